"""The domain's errors, each with the number the contract gives it.

::

    DomainError
    ├── Unauthenticated      1001  401   not logged in
    │   ├── BadCredentials   1002  401   invalid token or credentials
    │   └── TokenExpired     1003  401
    ├── Forbidden            1004  403
    ├── Invalid              2002  400   malformed
    │   ├── Missing          2001  400   a parameter is not there
    │   └── NotAllowed       2003  400   well formed, but outside what is allowed
    │       ├── WrongMethod  2003  405   the path takes another method
    │       └── TooLarge     2003  413   more than is read
    ├── NotFound             3001  404
    ├── AlreadyExists        3002  409
    ├── WrongState           3003  409   the current state does not allow it
    ├── TooMany              3004  429   come back after ``retry_after`` seconds
    └── Internal             5001  500
        └── DatabaseError    5002  500
            └── DatabaseAway 5002  503   it may pass by itself

A message names the field and what is wrong with it. Nothing here knows HTTP: ``status`` is only the
contract's second column, kept beside the first so that one table holds both.
"""

from typing import ClassVar


class DomainError(Exception):
    """An answer a caller can act on; ``code`` and ``status`` are the contract's."""

    code: ClassVar[int] = 5001
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unauthenticated(DomainError):
    """Nobody is logged in."""

    code = 1001
    status = 401


class BadCredentials(Unauthenticated):
    """A token or a password that is not valid."""

    code = 1002


class TokenExpired(Unauthenticated):
    """A token that was valid once."""

    code = 1003


class Forbidden(DomainError):
    """The caller is known and may not do this."""

    code = 1004
    status = 403


class Invalid(DomainError):
    """A parameter is malformed."""

    code = 2002
    status = 400


class Missing(Invalid):
    """A required parameter is not there."""

    code = 2001


class NotAllowed(Invalid):
    """A parameter is well formed, but its value is not allowed."""

    code = 2003


class WrongMethod(NotAllowed):
    """The path is there, and takes another method."""

    status = 405


class TooLarge(NotAllowed):
    """More was sent than is read."""

    status = 413


class NotFound(DomainError):
    """What was named does not exist."""

    code = 3001
    status = 404


class AlreadyExists(DomainError):
    """It exists already, and differs from what was asked."""

    code = 3002
    status = 409


class WrongState(DomainError):
    """The current state does not allow the operation."""

    code = 3003
    status = 409


class TooMany(DomainError):
    """A bound was met; ``retry_after`` says in how many seconds to try again."""

    code = 3004
    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Internal(DomainError):
    """A fault of ours; its message carries no internals."""


class DatabaseError(Internal):
    """The database refused; the cause is in the log, not in the message."""

    code = 5002


class DatabaseAway(DatabaseError):
    """The database cannot be reached just now; the same request may be sent again."""

    status = 503
