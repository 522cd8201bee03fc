"""What many measurements come to."""

from collections.abc import Sequence
from statistics import median


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Return a percentile, in milliseconds."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def spread(values: Sequence[float], digits: int) -> str:
    """Show the median, and of more than one the least and the most."""
    middle = f"{median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} [{min(values):.{digits}f}-{max(values):.{digits}f}]"
