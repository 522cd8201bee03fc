"""What the exit code of a command says, and which code an error leads to."""

import errno
from enum import IntEnum
from typing import Self

import click

from edgeplane.client.errors import ApiError, Unreachable
from edgeplane.environ import SettingError
from edgeplane.model import errors
from edgeplane.model.errors import DomainError


class Exit(IntEnum):
    """Exit codes; scripts rely on them."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Keep the sentence that ``--help`` shows beside the number."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "the task or operation did not succeed (--wait), or a general failure"
    USAGE = 2, "wrong usage, or a setting or value that is not allowed"
    FORBIDDEN = 3, "not logged in, or not allowed"
    NOT_FOUND = 4, "not found"
    CONFLICT = 5, "it exists already, or its state does not allow this"
    UNFINISHED = 6, "still not finished when --wait-timeout had passed"
    UNREACHABLE = 7, "the control plane cannot be reached"
    SERVER = 8, "too many requests, or an error of the server"
    BUG = 70, "an error of this program"
    INTERRUPTED = 130, "interrupted"


class Stop(Exception):
    """End the command: an exit code, one line for a person, and the contract's code for scripts."""

    def __init__(self, status: Exit, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = _CODES.get(status, errors.Internal.code) if code is None else code


#: What a write can meet. Files are named in such an error where they are opened; a stream is not.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_CODES = {
    Exit.USAGE: errors.Invalid.code,
    Exit.FORBIDDEN: errors.Unauthenticated.code,
    Exit.NOT_FOUND: errors.NotFound.code,
    Exit.CONFLICT: errors.WrongState.code,
    Exit.UNREACHABLE: 5003,
}
_STATUSES = {
    1: Exit.FORBIDDEN,
    2: Exit.USAGE,
    4: Exit.SERVER,
    5: Exit.SERVER,
}


def stop_for(error: Exception) -> Stop | None:
    """Return how a command ends that met this error; None for one nobody expected."""
    stop = error if isinstance(error, Stop) else None
    match error:
        case click.ClickException():
            stop = Stop(Exit.USAGE, _usage_line(error))
        case SettingError():
            stop = Stop(Exit.USAGE, str(error))
        case Unreachable():
            stop = Stop(Exit.UNREACHABLE, str(error))
        case ApiError():
            stop = Stop(_status_of(error.code), _api_line(error), error.code)
        case DomainError():
            stop = Stop(_status_of(error.code), error.message, error.code)
        case OSError(errno=number, filename=None) if number in _NO_ROOM:
            stop = Stop(Exit.FAILED, f"standard output cannot be written: {error.strerror}")
    return stop


def _status_of(code: int) -> Exit:
    if code == errors.NotFound.code:
        return Exit.NOT_FOUND
    if code == errors.TooMany.code:
        return Exit.SERVER
    if code in {errors.AlreadyExists.code, errors.WrongState.code}:
        return Exit.CONFLICT
    return _STATUSES.get(code // 1000, Exit.FAILED)


def _api_line(error: ApiError) -> str:
    line = error.message
    if error.retry_after is not None:
        line += f" (try again in {error.retry_after} s)"
    if _status_of(error.code) is Exit.SERVER and error.request_id:
        line += f" (request {error.request_id})"
    if error.status == 401:  # noqa: PLR2004 - what HTTP calls it
        # What was shown and not believed: to log in anew helps only against an old session.
        line += f" ({error.credential})" if error.credential else "; log in with: edgeplane login"
    return line


def _usage_line(error: click.ClickException) -> str:
    line = " ".join(error.format_message().split())  # click sets choices on lines of their own
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{line} (see {context.command_path} --help)" if context is not None else line
