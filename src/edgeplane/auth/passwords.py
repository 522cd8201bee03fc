"""Password hashes: argon2id with the library's defaults, off the event loop, two at a time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_hasher = PasswordHasher()
#: A check takes tens of milliseconds and 64 MiB: a flood of logins must not take the machine.
_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2")
#: Checked in place of a user who is not there, so that the answer takes as long.
_NOBODY = _hasher.hash("nobody has this password")


async def make_hash(password: str) -> str:
    """Return a salted hash to store."""
    return await asyncio.get_running_loop().run_in_executor(_pool, _hasher.hash, password)


async def matches(password: str, stored: str | None) -> bool:
    """Whether a password is the one stored; None (no such user) takes as long to deny."""
    checked = await asyncio.get_running_loop().run_in_executor(
        _pool, _verify, stored or _NOBODY, password
    )
    return checked and stored is not None


def _verify(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
