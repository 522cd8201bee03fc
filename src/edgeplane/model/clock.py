"""Time and fresh identifiers.

All times are aware UTC with milliseconds. A stored deadline is compared only with the clock of the
database that stores it; the length of a silence only with this machine's monotonic clock.
"""

import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache


def utc_now() -> datetime:
    """Return the wall clock, UTC, cut to milliseconds (what every store keeps)."""
    return truncate(datetime.now(UTC))


def truncate(moment: datetime) -> datetime:
    """Cut a time to milliseconds, so that what is returned equals what is read back."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def epoch_millis(moment: datetime) -> int:
    """Return milliseconds since 1970, exact."""
    return (moment - _EPOCH) // _MILLISECOND


@lru_cache(maxsize=1024)  # what was stored together shares its times
def rfc3339(moment: datetime) -> str:
    """Render a time as ``2026-01-23T10:00:00.000Z``."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def new_request_id() -> str:
    """Make a time-ordered UUID (version 7, RFC 9562): neighbours in time are so in an index."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
