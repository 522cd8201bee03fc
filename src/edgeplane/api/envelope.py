"""The envelope of every answer, and of every list."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from fastapi import Response

from edgeplane.model.errors import DomainError, TooMany
from edgeplane.model.paging import Page
from edgeplane.wire import envelope, error_envelope

T = TypeVar("T")

JSON = "application/json; charset=utf-8"


class ListView(msgspec.Struct, rename="camel"):
    """A page of a list, newest first. ``total`` stops counting at 10000: then it means or more."""

    list: list[Any]
    total: int
    page: int
    page_size: int
    next_cursor: str | None


def ok(data: object) -> Response:
    """Answer with data."""
    return Response(envelope(data), media_type=JSON)


def ok_page(page: Page[T], view: Callable[[T], object]) -> Response:
    """Answer with a page."""
    return ok(
        ListView(
            list=[view(item) for item in page.items],
            total=page.total,
            page=page.page,
            page_size=page.size,
            next_cursor=page.next_cursor,
        )
    )


def refuse(error: DomainError, status: int | None = None) -> Response:
    """Answer with an error."""
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooMany) else None
    body = error_envelope(error.code, error.message)
    return Response(body, status_code=status or error.status, media_type=JSON, headers=headers)
