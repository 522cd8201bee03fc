"""Waiting for news of a task: told by the event stream, or, where there is none, by asking again.

The stream only says when to look: what a task is comes from the task itself. So a stream that
breaks costs time and nothing else, and a control plane without one is asked at intervals.
"""

import math
import time
from collections.abc import Iterator

import urllib3
from urllib3.exceptions import HTTPError

from edgeplane.client.connection import Connection
from edgeplane.client.errors import ApiError, ClientError, Unreachable

#: The control plane gives a sign of life every 15 s: one that is silent for longer is gone.
SILENCE_SECONDS = 25.0
_OPEN_SECONDS = 5.0
_AGAIN_SECONDS = 2.0
_CHUNK = 64 << 10


class News:
    """Of one task."""

    _chunks: Iterator[bytes] = iter(())

    def __init__(self, connection: Connection, task_id: int) -> None:
        self._connection = connection
        self._path = f"/events?taskId={task_id}"
        self._response: urllib3.BaseHTTPResponse | None = None
        self._open_at = 0.0

    def wait(self, pause: float, longest: float | None) -> None:
        """Return when there may be news, at most after ``longest`` seconds.

        ``pause``: seconds between looks as long as nobody tells.
        """
        most = SILENCE_SECONDS if longest is None else min(longest, SILENCE_SECONDS)
        if self._response is None and time.monotonic() >= self._open_at and most > 0:
            self._open(min(most, _OPEN_SECONDS))
            if self._response is not None:
                return  # it may have moved before anybody could tell
        if self._response is None:
            time.sleep(min(pause, most))
        else:
            self._listen(self._response, most)

    def close(self) -> None:
        """Hang up."""
        if self._response is not None:
            self._response.close()
        self._response = None

    def _open(self, seconds: float) -> None:
        try:
            response = self._connection.open_stream(self._path, seconds)
        except ClientError as error:
            self._open_at = time.monotonic() + _AGAIN_SECONDS if _passing(error) else math.inf
            return
        self._response = response
        self._chunks = response.stream(_CHUNK, decode_content=False)
        self._listen(response, seconds)  # it says at once that it is there

    def _listen(self, response: urllib3.BaseHTTPResponse, seconds: float) -> None:
        """Wait for the next words; one that has none in time, or has ended, is hung up."""
        connection = response.connection
        socket = getattr(connection, "sock", None)
        if socket is not None:
            socket.settimeout(max(0.001, seconds))
        try:
            if next(self._chunks, None) is not None:
                return
        except (HTTPError, OSError):
            pass
        self.close()
        self._open_at = time.monotonic() + _AGAIN_SECONDS


def _passing(error: ClientError) -> bool:
    return isinstance(error, Unreachable) or (
        isinstance(error, ApiError) and error.status in {429, 500, 502, 503, 504}
    )
