"""What the routes work with, joined once in ``joining``, and how a route gets it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec  # noqa: TC002 (read at run time, by FastAPI)
from fastapi import Depends, Query, Request
from starlette.convertors import StringConvertor, register_url_convertor

from edgeplane import jsonbody
from edgeplane.auth.rbac import Permission, Principal, require
from edgeplane.model.errors import Invalid
from edgeplane.model.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, PageRequest, check_page
from edgeplane.observe.metrics import Metrics
from edgeplane.services.feed import Feed
from edgeplane.services.intake import Intake
from edgeplane.services.users import Sessions
from edgeplane.store.database import Database

T = TypeVar("T")


class _IdConvertor(StringConvertor):
    """What may be an id in a path: not a verb, so that a wrong method on ``/create`` is told so."""

    regex = "(?!(?:create|update|delete|retry|cancel|pause|resume|retry-failed)$)[^/]+"


register_url_convertor("id", _IdConvertor())

_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a running control plane that the door reaches."""

    database: Database
    sessions: Sessions
    intake: Intake
    feed: Feed
    metrics: Metrics
    metrics_token: str | None = field(repr=False)  #: who may look at the metrics: see api/metrics
    tell: Callable[[Iterable[int]], None]  #: say that nodes have news, here and to other replicas
    call: Callable[[], None]  #: say that an operation calls for a step


def parts_of(request: Request) -> Parts:
    """Return the parts of the app that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


def needs(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """Make a dependency that lets in only callers with a permission."""

    async def allowed(request: Request) -> Principal:
        sessions = parts_of(request).sessions
        principal = await sessions.principal(request.headers.get("authorization"))
        require(principal, permission)
        return principal

    return allowed


def body_of(decoder: "msgspec.json.Decoder[T]") -> Callable[[Request], Awaitable[T]]:
    """Make a dependency that reads the body into a shape."""

    async def read(request: Request) -> T:
        return jsonbody.decode(decoder, await request.body())

    return read


def known_query(request: Request) -> None:
    """Refuse query parameters the route does not declare, and the same one twice.

    A misspelt filter must not show all, nor one of two filters be passed over.
    """
    route = request.scope["route"]
    known = _query_names(route.dependant)
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise Invalid(f"{name[:80]}: unknown query parameter")
        if name in seen and not known[name]:
            raise Invalid(f"{name}: given more than once")
        seen.add(name)


def _query_names(dependant: Any) -> dict[str, bool]:
    """Return the names a route declares, and whether each may be given more than once."""
    names = {each.alias: _is_list(each.field_info.annotation) for each in dependant.query_params}
    for further in dependant.dependencies:
        names |= _query_names(further)
    return names


def _is_list(annotation: Any) -> bool:
    return list in {get_origin(part) for part in (annotation, *get_args(annotation))}


def paging(
    page: Annotated[int, Query(ge=1, le=_MAX_ID)] = 1,
    page_size: Annotated[int, Query(alias="pageSize", ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
) -> PageRequest:
    """Read which page is asked for."""
    return check_page(page, page_size, cursor)


def known_id(written: str, noun: str) -> int:
    """Read an id from a path: digits within range, or Invalid."""
    if written.isascii() and written.isdigit() and len(written) <= 19:  # noqa: PLR2004
        value = int(written)
        if 0 < value <= _MAX_ID:
            return value
    raise Invalid(f"id: not a {noun} id")


Paging = Annotated[PageRequest, Depends(paging)]
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
Operator = Annotated[Principal, Depends(needs(Permission.OPERATE))]
