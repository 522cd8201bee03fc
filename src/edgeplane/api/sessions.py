"""Logging in, and who is logged in."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from msgspec import Meta, Struct

from edgeplane.api import parts
from edgeplane.api.documents import describe
from edgeplane.api.envelope import ok
from edgeplane.api.parts import Reader

_Role = Literal["viewer", "operator", "admin"]


class Login(Struct, forbid_unknown_fields=True):
    """Who logs in."""

    username: Annotated[str, Meta(min_length=1, max_length=64)]
    password: Annotated[str, Meta(min_length=1, max_length=256)]


class UserView(Struct):
    """A person."""

    id: int
    username: str
    role: _Role


class LoginView(Struct, rename="camel"):
    """A token, to be sent as ``Authorization: Bearer``."""

    token: str
    expire_at: str
    user: UserView


class PingView(Struct):
    """A sign of life."""

    pong: bool


router = APIRouter(dependencies=[Depends(parts.known_query)])
_login_body = parts.body_of(msgspec.json.Decoder(Login))


@router.post(
    "/auth/login",
    openapi_extra=describe(data=LoginView, body=Login, errors="400 401 429", anyone=True),
)
async def log_in(request: Request, asked: Annotated[Login, Depends(_login_body)]) -> Response:
    """Log in."""
    address = request.client.host if request.client else ""
    sessions = parts.parts_of(request).sessions
    user, token, expires = await sessions.log_in(asked.username, asked.password, address)
    shown = UserView(id=user.id, username=user.username, role=user.role.value)
    return ok(LoginView(token=token, expire_at=expires, user=shown))


@router.get("/me", openapi_extra=describe(data=UserView, errors="400 401"))
async def me(principal: Reader) -> Response:
    """Show who is logged in."""
    return ok(
        UserView(id=principal.user_id, username=principal.username, role=principal.role.value)
    )


@router.get("/ping", openapi_extra=describe(data=PingView, anyone=True))
async def ping() -> Response:
    """Answer that the control plane is there."""
    return ok(PingView(pong=True))
