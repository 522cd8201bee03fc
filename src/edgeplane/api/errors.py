"""Every error of the REST door, rendered in one place."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from edgeplane.api.envelope import refuse
from edgeplane.model.errors import DomainError, Internal, Invalid, Missing, NotAllowed, NotFound

log = logging.getLogger(__name__)

METHOD_NOT_ALLOWED = 405
NOT_FOUND = 404
#: What the query parser calls a value that is well formed and out of bounds.
_BOUNDS = ("greater_than", "less_than", "string_too", "too_long", "too_short")


def install(app: FastAPI) -> None:
    """Attach the handlers."""
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _to_the_door)


def unexpected(error: BaseException, request_id: str) -> Response:
    """Answer for a fault of ours: the log has it under the request id, the client only the id."""
    log.error("request %s failed", request_id, exc_info=error)
    return refuse(Internal(f"internal error: quote request id {request_id}"))


async def _to_the_door(_request: Request, error: Exception) -> Response:
    """Leave it to the door, which knows the request id: the framework would answer plain text."""
    raise error


async def _domain(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)
    return refuse(error)


async def _validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "request"
    kind, words = str(first["type"]), str(first["msg"])
    if kind == "missing":
        return refuse(Missing(f"{field}: is required"))
    shape = NotAllowed if kind.startswith(_BOUNDS) else Invalid
    return refuse(shape(f"{field}: {words[:1].lower()}{words[1:]}"))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == NOT_FOUND:
        return refuse(NotFound(f"no such path: {request.url.path[:200]}"))
    if error.status_code == METHOD_NOT_ALLOWED:
        response = refuse(
            NotAllowed(f"method {request.method[:20]} is not allowed here"), METHOD_NOT_ALLOWED
        )
        response.headers.update(error.headers or {})
        return response
    return refuse(Invalid(str(error.detail)), error.status_code)
