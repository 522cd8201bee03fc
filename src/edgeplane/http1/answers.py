"""HTTP answers as bytes."""

from http import HTTPStatus
from typing import Final

from edgeplane.wire import MAX_BODY_BYTES, error_envelope

_LINES: Final = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n"
    "content-type: application/json\r\ncontent-length: ".encode()
    for status in HTTPStatus
}
_TOO_LARGE_HEAD: Final = 431


def message(status: int, body: bytes, extra: bytes = b"") -> bytes:
    """Render an answer; ``extra`` are whole lines of its head."""
    return b"%s%d\r\n%s\r\n%s" % (_LINES[status], len(body), extra, body)


CLOSE: Final = b"connection: close\r\n"

MALFORMED: Final = message(400, error_envelope(2002, "request: not valid HTTP/1.1"), CLOSE)
HEAD_TOO_LARGE: Final = message(_TOO_LARGE_HEAD, error_envelope(2003, "head: is too large"), CLOSE)
BODY_TOO_LARGE: Final = message(
    413, error_envelope(2003, f"body: at most {MAX_BODY_BYTES} bytes are allowed"), CLOSE
)
TOO_MANY: Final = message(
    429,
    error_envelope(3004, "too many connections; come back later"),
    CLOSE + b"retry-after: 1\r\n",
)
