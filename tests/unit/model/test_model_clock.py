"""Times and fresh identifiers."""

import re
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from edgeplane.model import clock


def test_now_is_utc_with_milliseconds():
    """What every store can keep, and read back equal."""
    now = clock.utc_now()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0


def test_a_time_is_cut_not_rounded():
    """Nothing is ever stored as later than it was."""
    moment = datetime(2026, 1, 23, 10, 0, 0, 999_999, UTC)
    assert clock.truncate(moment) == datetime(2026, 1, 23, 10, 0, 0, 999_000, UTC)


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 1, 23, 10, tzinfo=UTC), "2026-01-23T10:00:00.000Z"),
        (datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), "1999-12-31T23:59:59.999Z"),
        (datetime(2026, 1, 1, 0, 0, 0, 7000, UTC), "2026-01-01T00:00:00.007Z"),
    ],
)
def test_rfc3339_has_milliseconds_and_z(moment, written):
    """The form of every time in an answer."""
    assert clock.rfc3339(moment) == written
    assert datetime.fromisoformat(written) == clock.truncate(moment)


def test_epoch_millis_is_exact():
    """Also where a float would lose the last digit."""
    moment = datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)
    assert clock.epoch_millis(moment) == 253_402_300_799_999
    other = datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert clock.epoch_millis(other) == 0


def test_a_request_id_is_a_uuid_of_version_7():
    """In its usual spelling, with version and variant in place."""
    made = clock.new_request_id()
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made
    )
    assert uuid.UUID(made).variant == uuid.RFC_4122


def test_request_ids_are_in_the_order_of_time(monkeypatch):
    """One made a millisecond later sorts later, as text."""
    made = []
    for step in range(200):
        nanoseconds = 1_769_162_400_000_000_000 + step * 1_000_000
        monkeypatch.setattr(time, "time_ns", lambda now=nanoseconds: now)
        made.append(clock.new_request_id())
    assert made == sorted(made)
    assert int(made[0].replace("-", "")[:12], 16) == 1_769_162_400_000


def test_request_ids_differ_within_a_millisecond(monkeypatch):
    """74 random bits keep them apart."""
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    assert len({clock.new_request_id() for _ in range(1000)}) == 1000
