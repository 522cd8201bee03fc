"""Cursors and page numbers: what is given out is read back, and nothing else is."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeplane.model.errors import Invalid, NotAllowed
from edgeplane.model.paging import (
    MAX_OFFSET,
    MAX_PAGE_SIZE,
    PageRequest,
    check_page,
    cut_page,
    write_cursor,
)

_ids = st.integers(1, 2**63 - 1)
_near = st.from_regex(r"b?[0-9a-fA-Fx_+\- ]{0,20}", fullmatch=True)


@given(_ids)
@example(2**63 - 1)
def test_a_cursor_is_read_back(last_id):
    """It names the id it was written for."""
    assert check_page(1, 20, write_cursor(last_id)).before == last_id


@given(st.text(max_size=40) | _near)
@example("b0x1f")
@example("b01")
@example("b0")
@example("b")
@example("bFF")
@example("b1_0")
@example("b٣")
@example("b8000000000000000")
@example("b" + "f" * 10_000)
def test_no_other_text_is_a_cursor(text):
    """What no list gave out is refused, never guessed at."""
    with suppress(Invalid):
        before = check_page(1, 20, text).before
        assert before is not None
        assert write_cursor(before) == text


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
@example(1, MAX_PAGE_SIZE)
@example(101, 100)
@example(102, 100)
@example(10_001, 1)
@example(10_002, 1)
def test_pages_reach_so_deep_and_no_deeper(page, size):
    """A page is allowed exactly if it starts within the first 10000 rows."""
    allowed = 1 <= size <= MAX_PAGE_SIZE and page >= 1 and (page - 1) * size <= MAX_OFFSET
    if allowed:
        assert check_page(page, size, None) == PageRequest(page=page, size=size)
    else:
        with pytest.raises(NotAllowed, match="^page(Size)?: "):
            check_page(page, size, None)


@given(st.lists(_ids, unique=True, max_size=60), st.integers(1, 20))
def test_pages_by_cursor_are_the_list(ids, size):
    """Followed to the end they hold every row once, newest first."""
    newest_first = sorted(ids, reverse=True)
    cursor: str | None = None
    seen: list[int] = []
    while True:
        asked = check_page(1, size, cursor)
        left = [one for one in newest_first if asked.before is None or one < asked.before]
        rows = left[: size + 1]
        page = cut_page(rows, rows, len(ids), asked)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == size
    assert seen == newest_first
