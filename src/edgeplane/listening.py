"""Listening sockets and the HTTP server both daemons run behind them."""

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import uvicorn

from edgeplane.environ import ListenAddress, SettingError
from edgeplane.http1.bounds import Bounds, bounded

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 120  #: not below 75: a control plane comes back on the same connection
GRACE_SECONDS = 10
FILES_KEPT = 64  #: of those the process may have open, for all that is no connection


def bind(setting: str, address: ListenAddress) -> socket.socket:
    """Return a socket bound to an address; an empty host means every interface, v4 and v6.

    Raises:
        SettingError: the address is taken, not ours, or not permitted.

    """
    try:
        return _listening(address)
    except OSError as error:
        raise SettingError(f"{setting}: cannot listen on {address}: {_why(error)}") from error


def within_files(bounds: Bounds) -> Bounds:
    """Let this process open as many files as it may, and take no more connections than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return bounds
    return replace(bounds, connections=max(1, min(bounds.connections, soft - FILES_KEPT)))


def _listening(address: ListenAddress) -> socket.socket:
    if address.host:
        return _bound(socket.AF_INET6 if ":" in address.host else socket.AF_INET, address)
    try:
        return _bound(socket.AF_INET6, address)
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
    return _bound(socket.AF_INET, address)  # on a machine without IPv6


def _bound(family: int, address: ListenAddress) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
        bound.bind((address.host, address.port))
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken by another process: end it, or choose another port"
    if error.errno == errno.EACCES:
        return "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE"
    return str(error.strerror or error).lower()


class Server(uvicorn.Server):
    """A uvicorn server with bounds, that leaves signals to us and says when it listens.

    Args:
        app: what answers.
        on_listening: called once, when connections are accepted.
        bounds: of its connections; those of a control plane unless given, and fewer connections
            where the process may not open as many files.

    """

    def __init__(
        self, app: Any, on_listening: Callable[[], None], bounds: Bounds | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(within_files(bounds or Bounds())),
                lifespan="off",
                ws="none",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        # Below this, it logs what any stranger sends it.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets=sockets)
        self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: ``stop_on_signals`` has them."""
        yield

    def stop_on_signals(self, also: Callable[[], None] | None = None) -> None:
        """Stop on SIGTERM and SIGINT; a second one does not wait for open connections.

        ``also`` is called at each of them, before the server begins to stop.
        """

        def stop() -> None:
            if also is not None:
                also()
            self.force_exit = self.should_exit
            self.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
