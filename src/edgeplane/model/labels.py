"""Labels: what a person says of a node, ``key=value``, to find it and to aim operations at."""

import re
from collections.abc import Mapping

from edgeplane.model.errors import Invalid, NotAllowed

MAX_LABELS = 32
NAME_PATTERN = "[A-Za-z0-9._/-]{1,63}"
VALUE_PATTERN = "[A-Za-z0-9._-]{0,63}"

_NAME = re.compile(NAME_PATTERN)
_VALUE = re.compile(VALUE_PATTERN)
_MAX_ECHO = 80


def check_labels(given: Mapping[str, str], field: str = "labels") -> dict[str, str]:
    """Return labels in the order of their keys.

    Raises:
        NotAllowed: more than a node may carry.
        Invalid: a key or a value that none can have.

    """
    if len(given) > MAX_LABELS:
        raise NotAllowed(f"{field}: at most {MAX_LABELS} entries")
    for name, value in given.items():
        if not _NAME.fullmatch(name):
            shown = ascii(name[:_MAX_ECHO])
            raise Invalid(f"{field}: key {shown}: 1 to 63 characters of A-Z a-z 0-9 . _ / -")
        if not _VALUE.fullmatch(value):
            raise Invalid(f"{field}.{name}: 0 to 63 characters of A-Z a-z 0-9 . _ - are allowed")
    return dict(sorted(given.items()))


def read_label(written: str, field: str = "label") -> tuple[str, str]:
    """Read ``key=value``; raise Invalid for what is none."""
    name, equals, value = written.partition("=")
    if not equals:
        raise Invalid(f"{field}: must be key=value")
    ((name, value),) = check_labels({name: value}, field).items()
    return name, value


def write_labels(labels: Mapping[str, str]) -> str:
    """Write labels as a person reads them."""
    return ", ".join(f"{name}={value}" for name, value in labels.items())
