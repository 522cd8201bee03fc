"""Pages of a list, newest first: shallow ones by number, any depth by cursor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgeplane.model.errors import Invalid, NotAllowed

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
#: Page numbers reach this many rows deep; beyond, a cursor costs the same at any depth.
MAX_OFFSET = 10_000
#: Totals are counted up to here and stop: a total of 10000 means "10000 or more".
TOTAL_CAP = 10_000

_MAX_ID = 2**63 - 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page: by number, or, where ``before`` is set, what is older than that id."""

    page: int = 1
    size: int = DEFAULT_PAGE_SIZE
    before: int | None = None

    @property
    def offset(self) -> int:
        """Rows to pass over."""
        return 0 if self.before is not None else (self.page - 1) * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """What a list answers."""

    items: Sequence[T]
    total: int
    page: int
    size: int
    next_cursor: str | None


def check_page(page: int, size: int, cursor: str | None) -> PageRequest:
    """Return a page request within bounds.

    Raises:
        Invalid: a cursor that no list gave out.
        NotAllowed: a page or a size out of bounds.

    """
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise NotAllowed(f"pageSize: must be from 1 to {MAX_PAGE_SIZE}")
    if page < 1:
        raise NotAllowed("page: must be at least 1")
    if cursor is not None:
        return PageRequest(page=page, size=size, before=_read_cursor(cursor))
    if (page - 1) * size > MAX_OFFSET:
        raise NotAllowed(f"page: reaches past {MAX_OFFSET} rows; follow nextCursor with cursor=")
    return PageRequest(page=page, size=size)


def cut_page(items: Sequence[T], ids: Sequence[int], total: int, asked: PageRequest) -> Page[T]:
    """Make a page of up to ``size`` items out of one more than that, which shows if more follow."""
    more = len(items) > asked.size
    return Page(
        items=items[: asked.size],
        total=total,
        page=asked.page,
        size=asked.size,
        next_cursor=write_cursor(ids[asked.size - 1]) if more else None,
    )


def write_cursor(last_id: int) -> str:
    """Name the place after a row; opaque to clients."""
    return f"b{last_id:x}"


def _read_cursor(cursor: str) -> int:
    try:
        value = int(cursor[1:17], 16)
    except ValueError:
        value = 0
    if 0 < value <= _MAX_ID and write_cursor(value) == cursor:
        return value
    raise Invalid("cursor: not a cursor this list gave out")
