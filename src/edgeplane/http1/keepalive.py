"""Noticing a link that is cut: in an exchange that is held, nothing is sent that could fail."""

import socket
from typing import Final

#: About 8 s of silence, though nothing is sent.
_OPTIONS: Final = (
    ("TCP_KEEPIDLE", 4),  # seconds
    ("TCP_KEEPINTVL", 1),  # seconds
    ("TCP_KEEPCNT", 4),
    ("TCP_USER_TIMEOUT", 8_000),  # milliseconds
)


def watch(connection: socket.socket) -> None:
    """Have the kernel end a connection whose other end is silent, where it knows how to."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
