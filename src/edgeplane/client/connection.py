"""One control plane's address and token: requests out, envelopes in, and words for what went wrong.

Redirects are not followed and proxy variables are not read: a token goes nowhere but to the address
the connection was made for. Only reading is repeated, and only where no connection came about.
"""

import re
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3
from msgspec import Struct
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, ReadTimeoutError
from urllib3.util import Retry, Timeout

from edgeplane import __version__
from edgeplane.client.errors import ApiError, Unreachable
from edgeplane.wire import Envelope

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
MAX_ANSWER_BYTES = 16 << 20

#: The contract's code for "something outside misbehaved": here, what answered is no control plane.
FOREIGN_ANSWER = 5003

_URL = re.compile(r"https?://[^\s@?#\\\x00-\x1f\x7f]+")
_TOKEN = re.compile(r"[!-~]+")
_SECONDS = re.compile(r"[0-9]{1,5}")

T = TypeVar("T")


class Connection:
    """A kept-alive connection; ``last_data`` is the data of the latest answer as it came.

    ``credential`` says for errors, in words, who the requests are of.
    """

    def __init__(self, base_url: str, token: str | None, credential: str | None = None) -> None:
        self.base_url = check_url(base_url)
        self.credential = credential
        self.last_data = b"null"
        self._pool = urllib3.PoolManager(maxsize=1)
        self._streams = urllib3.PoolManager(maxsize=1)
        self._token: str | None = None
        if token is not None:
            self.use(token)

    def use(self, token: str) -> None:
        """Send this token from now on; raise ValueError for what no token looks like."""
        if not _TOKEN.fullmatch(token):
            raise ValueError("the token holds characters no token has")
        self._token = token

    def close(self) -> None:
        """Give the connection back."""
        self._pool.clear()
        self._streams.clear()

    def get(self, path: str, shape: type[T], query: Struct | None = None) -> T:
        """Read; None in a query is left out."""
        pairs = msgspec.to_builtins(query).items() if query is not None else ()
        asked = urlencode([(key, _query_value(value)) for key, value in pairs], doseq=True)
        return self._read("GET", f"{path}?{asked}" if asked else path, None, shape)

    def post(self, path: str, body: object, shape: type[T]) -> T:
        """Ask for a change, once."""
        return self._read("POST", path, msgspec.json.encode(body), shape)

    def _read(self, method: str, path: str, body: bytes | None, shape: type[T]) -> T:
        response, answer = self._send(method, path, body)
        status, request_id = response.status, response.headers.get("X-Request-Id")
        try:
            envelope = msgspec.json.decode(answer, type=Envelope)
            if envelope.code == 0 and status == 200:  # noqa: PLR2004
                self.last_data = bytes(envelope.data)
                return msgspec.json.decode(envelope.data, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"{self.base_url} answered {status}, but not as a control plane does"
            raise ApiError(FOREIGN_ANSWER, status, message, request_id) from error
        after = response.headers.get("Retry-After", "")
        raise ApiError(
            envelope.code or FOREIGN_ANSWER,
            status,
            envelope.message,
            request_id,
            retry_after=int(after) if _SECONDS.fullmatch(after) else None,
            credential=self.credential,
        )

    def _send(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        headers = self._headers("application/json")
        if body is not None:
            headers["Content-Type"] = "application/json"
        again = 2 if method == "GET" else 0
        try:
            response = self._pool.request(
                method,
                f"{self.base_url}/api/v1{path}",
                body=body,
                headers=headers,
                timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
                retries=Retry(None, connect=again, read=0, status=0, other=0, backoff_factor=0.1),
                redirect=False,
                preload_content=False,
            )
            return response, _bounded_body(response)
        except HTTPError as error:
            raise _unreachable(self.base_url, method, error) from error

    def open_stream(self, path: str, seconds: float) -> urllib3.BaseHTTPResponse:
        """Begin to read events, over a connection of their own; the caller closes it."""
        try:
            response = self._streams.request(
                "GET",
                f"{self.base_url}/api/v1{path}",
                headers=self._headers("text/event-stream"),
                timeout=Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except HTTPError as error:
            raise _unreachable(self.base_url, "GET", error) from error
        kind = response.headers.get("Content-Type", "")
        if response.status == 200 and kind.startswith("text/event-stream"):  # noqa: PLR2004
            return response
        response.close()
        message = f"{self.base_url} has no event stream"
        raise ApiError(FOREIGN_ANSWER, response.status, message)

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"User-Agent": f"edgeplane/{__version__}", "Accept": accept}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers


def _query_value(value: Any) -> Any:
    """Write true and false as the API does; a list is the same parameter several times."""
    return str(value).lower() if isinstance(value, bool) else value


def check_url(url: str) -> str:
    """Return an address without a slash at its end; raise ValueError if it is no http address."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        plain = None
    if not plain or not _URL.fullmatch(url):
        raise ValueError("the address must look like http://127.0.0.1:8080 or https://name")
    return url.rstrip("/")


def _bounded_body(response: urllib3.BaseHTTPResponse) -> bytes:
    """Read the whole answer; past the bound, give the connection up and return what no JSON is."""
    answer = response.read(MAX_ANSWER_BYTES + 1, decode_content=False)
    if len(answer) > MAX_ANSWER_BYTES:
        response.close()
        return b""
    response.release_conn()
    return answer


def _unreachable(url: str, method: str, error: HTTPError) -> Unreachable:
    cause: BaseException | None = error.reason if isinstance(error, MaxRetryError) else error
    never_sent = isinstance(cause, ConnectTimeoutError)  # also what refused or has no address
    if type(cause) is ConnectTimeoutError:
        reason = f"no connection within {CONNECT_SECONDS:.0f} s"
    elif isinstance(cause, ReadTimeoutError):
        reason = f"no answer within {ANSWER_SECONDS:.0f} s"
    else:
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        words = (cause.strerror or str(cause)) if cause is not None else "the connection was lost"
        reason = words[:1].lower() + words[1:]
    return Unreachable(url, reason, sent=method != "GET" and not never_sent)
