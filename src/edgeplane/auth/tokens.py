"""Login tokens: JWT, HS256 and nothing else, issuer checked; verified once, then remembered.

A token says under which password it was issued, by a mark that tells nothing about it: whoever
changes a password ends the sessions begun with the old one.
"""

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from edgeplane.model.clock import utc_now
from edgeplane.model.errors import BadCredentials, TokenExpired
from edgeplane.model.users import User

MAX_TOKEN_LENGTH = 4096
_REMEMBERED = 4096
_MARK_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    user_id: int
    expires: float  #: seconds since 1970
    password_mark: str


class Tokens:
    """Issues tokens and reads them."""

    def __init__(self, secret: str, *, issuer: str, minutes: int) -> None:
        # HMAC itself fills a short key up with zeros. Done here, the library does not warn of it at
        # every token: the line at start-up says it once.
        self._secret = secret.encode().ljust(32, b"\0")
        self._issuer = issuer
        self._lifetime = timedelta(minutes=minutes)
        self._known: OrderedDict[str, Claims] = OrderedDict()

    def mark(self, password_hash: str) -> str:
        """Return what a token says of the password it was issued under."""
        return hmac.digest(self._secret, password_hash.encode(), "sha256").hex()[:_MARK_LENGTH]

    def issue(self, user: User, password_hash: str) -> tuple[str, datetime]:
        """Return a token for a user whose password has this hash, and when it expires."""
        now = utc_now()
        expires = (now + self._lifetime).replace(microsecond=0)
        claims = {
            "uid": user.id,
            "sub": user.username,
            "role": user.role.value,
            "pwd": self.mark(password_hash),
            "iss": self._issuer,
            "iat": int(now.timestamp()),
            "exp": int(expires.timestamp()),
        }
        return jwt.encode(claims, self._secret, algorithm="HS256"), expires.astimezone(UTC)

    def read(self, token: str) -> Claims:
        """Return what a token says.

        Raises:
            TokenExpired: it was valid once.
            BadCredentials: it is not ours, or damaged.

        """
        known = self._known.get(token)
        if known is None:
            known = self._verify(token)
            self._known[token] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if known.expires <= time.time():
            self._known.pop(token, None)
            raise TokenExpired("token expired")
        return known

    def _verify(self, token: str) -> Claims:
        if len(token) > MAX_TOKEN_LENGTH:
            raise BadCredentials("invalid token")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                issuer=self._issuer,
                options={"require": ["exp", "iat", "iss", "uid", "pwd"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired("token expired") from None
        except (jwt.InvalidTokenError, ValueError):
            raise BadCredentials("invalid token") from None
        if not isinstance(claims["uid"], int):
            raise BadCredentials("invalid token")
        return Claims(claims["uid"], float(claims["exp"]), str(claims["pwd"]))
