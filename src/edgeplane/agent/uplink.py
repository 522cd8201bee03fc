"""Connections to one control plane: a body goes out, its answer comes back, or a word on why not.

The address is that of the setting and nothing else: redirects are not followed and proxy variables
are not read, so the bearer token goes nowhere else.
"""

import asyncio
import os
import socket
import time
from ssl import SSLCertVerificationError, SSLContext, SSLError
from typing import Any, Final

from edgeplane.agent.control_urls import ControlUrl
from edgeplane.http1 import keepalive
from edgeplane.http1.outgoing import Answer, Connection, ConnectionEnded
from edgeplane.wire import MAX_BODY_BYTES, SYNC_PATH

CONNECT_SECONDS: Final = 5.0  #: for each address, with its TLS handshake
RESOLVE_SECONDS: Final = 10.0
MAX_ADDRESSES: Final = 4  #: of one name that are tried
MAX_REPLY_BYTES: Final = 2 * MAX_BODY_BYTES  #: a largest payload, and all that may come beside it
IDLE_SECONDS: Final = 30.0  #: a second connection that is not needed any more is closed then

_AddressInfo = tuple[int, int, int, str, Any]


class NotReached(Exception):
    """Nothing was sent; the message says where and why."""


class ReplyLost(Exception):
    """It was sent, and no whole answer came."""


class Uplink:
    """The connections to one control plane, kept open between exchanges."""

    def __init__(self, url: ControlUrl, token: str, tls: SSLContext | None) -> None:
        """``tls`` is what an https URL is verified with; a plain one does not use it."""
        self.url = url
        self._tls = tls if url.tls else None
        self._head = (
            f"POST {SYNC_PATH} HTTP/1.1\r\nHost: {url.authority}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        ).encode("latin-1", "strict")
        self._idle: list[Connection] = []

    async def post(self, body: bytes, seconds: float) -> Answer:
        """Send an exchange; return its answer, whatever it is.

        Raises:
            NotReached: no connection could be made.
            ReplyLost: the connection ended before the answer, or there was none in the time.

        """
        connection = self._take() or await self._connect()
        message = b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body)
        try:
            answer = await connection.send(message, seconds)
        except TimeoutError:
            connection.abort()
            raise ReplyLost(f"no answer within {seconds:g} s") from None
        except ConnectionEnded as ended:
            raise ReplyLost(str(ended)) from ended
        except asyncio.CancelledError:
            connection.abort()
            raise
        if answer.keep_alive and connection.open:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    def close(self) -> None:
        """End what is open and idle; what is held ends with the cancelling of its ``post``."""
        while self._idle:
            self._idle.pop().abort()

    def _take(self) -> Connection | None:
        """Return the connection used last, if it is still there; close what idles too long."""
        while self._idle and time.monotonic() - self._idle[0].idle_since > IDLE_SECONDS:
            self._idle.pop(0).abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.quiet:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        """Connect to the first address of the host that lets itself be reached."""
        why = "its name has no address"
        for address in await self._addresses():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._connect_to(address)
            except TimeoutError:
                why = f"timed out after {CONNECT_SECONDS:g} s"
            except OSError as error:
                why = _words(error)
        raise NotReached(why)

    async def _addresses(self) -> list[_AddressInfo]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await loop.getaddrinfo(
                    self.url.host, self.url.port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            raise NotReached("its name is not resolved in time") from None
        except OSError as error:
            raise NotReached(f"its name cannot be resolved: {_words(error)}") from error
        return list(found[:MAX_ADDRESSES])

    async def _connect_to(self, address: _AddressInfo) -> Connection:
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, place = address
        plain = socket.socket(family, kind, protocol)
        try:
            plain.setblocking(False)
            keepalive.watch(plain)
            await loop.sock_connect(plain, place)
            _, connection = await loop.create_connection(
                lambda: Connection(MAX_REPLY_BYTES),
                sock=plain,
                ssl=self._tls,
                server_hostname=self.url.host if self._tls else None,
            )
        except BaseException:
            plain.close()
            raise
        return connection


def _words(error: OSError) -> str:
    if isinstance(error, SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, SSLError):
        return f"no TLS: {error.reason or error}"
    if isinstance(error, socket.gaierror) or not error.errno:
        return str(error.strerror or error).lower()
    return os.strerror(error.errno).lower()
