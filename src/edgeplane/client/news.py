"""Waiting for news: told by the event stream, or, where there is none, by asking again.

The stream only says when to look: what a task or an operation is comes from itself. So a stream
that breaks costs time and nothing else, and a control plane without one is asked at intervals.
"""

import math
import socket
import threading
import time
from contextlib import suppress

import urllib3
from urllib3.exceptions import HTTPError

from edgeplane.client.connection import Connection
from edgeplane.client.errors import ApiError, ClientError, Unreachable

#: The control plane gives a sign of life every 15 s: one that is silent for longer is gone.
SILENCE_SECONDS = 25.0
_OPEN_SECONDS = 5.0
_AGAIN_SECONDS = 2.0
_CLOSE_SECONDS = 1.0
_CHUNK = 64 << 10


class News:
    """Of what one filter of the event stream lets through.

    Args:
        connection: to the control plane.
        wanted: the filter, such as ``taskId=7``.
        spacing: seconds between looks at least, however much is told meanwhile.

    """

    def __init__(self, connection: Connection, wanted: str, spacing: float = 0.0) -> None:
        self._connection = connection
        self._path = f"/events?{wanted}"
        self._spacing = spacing
        self._stream: _Stream | None = None
        self._open_at = 0.0
        self._look_at = 0.0  #: not before this time

    def wait(self, pause: float, longest: float | None) -> None:
        """Return when there may be news, at most after ``longest`` seconds.

        ``pause``: seconds between looks as long as nobody tells.
        """
        most = math.inf if longest is None else longest
        if self._stream is None and time.monotonic() >= self._open_at and most > 0:
            self._open(min(most, _OPEN_SECONDS))
            if self._stream is not None:
                return  # it may have moved before anybody could tell
        if self._stream is None:
            time.sleep(min(pause, most))
        else:
            self._listen(self._stream, time.monotonic() + most)

    def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _open(self, seconds: float) -> None:
        try:
            response = self._connection.open_stream(self._path, seconds)
        except ClientError as error:
            self._open_at = time.monotonic() + _AGAIN_SECONDS if _passing(error) else math.inf
            return
        self._stream = _Stream(response)
        if not self._stream.begun.wait(seconds):  # it says at once that it is there
            self._hang_up()

    def _listen(self, stream: "_Stream", until: float) -> None:
        """Wait for an event; hang up where none will come any more."""
        if stream.wait(until) and (early := min(self._look_at, until) - time.monotonic()) > 0:
            time.sleep(early)
        stream.forget()
        self._look_at = time.monotonic() + self._spacing
        if stream.ended:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close()
        self._open_at = time.monotonic() + _AGAIN_SECONDS


class _Stream:
    """A stream that has begun, read by a thread of its own: it never waits for who looks."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.begun = threading.Event()
        self.ended = False
        self._news = threading.Event()
        self._response = response
        self._socket: socket.socket | None = getattr(response.connection, "sock", None)
        if self._socket is not None:
            self._socket.settimeout(SILENCE_SECONDS)
        self._thread = threading.Thread(target=self._read, name="news", daemon=True)
        self._thread.start()

    def wait(self, until: float) -> bool:
        """Wait until something is told or the stream ends; return whether it was in time."""
        left = until - time.monotonic()
        return self._news.wait(min(max(0.0, left), threading.TIMEOUT_MAX))

    def forget(self) -> None:
        """Take what was told so far as known: whoever looks after this sees it."""
        self._news.clear()
        if self.ended:
            self._news.set()

    def close(self) -> None:
        """Let the thread end; it gives the connection back."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(_CLOSE_SECONDS)

    def _read(self) -> None:
        line = b""
        try:
            for chunk in self._response.stream(_CHUNK, decode_content=False):
                *lines, line = (line + chunk).split(b"\n")
                if any(each.startswith(b"event:") for each in lines):
                    self._news.set()
                line = line[:_CHUNK]  # longer than any of ours: its end is of no use
                self.begun.set()
        except (HTTPError, OSError):
            pass
        finally:
            self._response.close()
            self.ended = True
            self._news.set()
            self.begun.set()


def _passing(error: ClientError) -> bool:
    return isinstance(error, Unreachable) or (
        isinstance(error, ApiError) and error.status in {429, 500, 502, 503, 504}
    )
