"""People who may log in, and what each role may do."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from edgeplane.model.errors import Invalid, NotAllowed

MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 256

_USERNAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Role(StrEnum):
    """From reading only to everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A row of ``users``, without its password's hash."""

    id: int
    username: str
    role: Role
    active: bool
    created_at: datetime


def check_username(value: str) -> str:
    """Return a well-formed user name; raise Invalid otherwise."""
    if not _USERNAME.fullmatch(value):
        raise Invalid("username: 1 to 64 characters of A-Z a-z 0-9 . _ @ - are allowed")
    return value


def check_password(value: str) -> str:
    """Return a password worth storing; raise NotAllowed for a short or endless one."""
    if not MIN_PASSWORD_LENGTH <= len(value) <= MAX_PASSWORD_LENGTH:
        raise NotAllowed(
            f"password: {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters are allowed"
        )
    return value
