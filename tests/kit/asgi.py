"""Calls on an ASGI application in this process: no socket, and every answer is looked over."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

#: Code by HTTP status, as the contract pairs them.
CODES = {
    200: {0},
    400: {2001, 2002, 2003},
    401: {1001, 1002, 1003},
    403: {1004},
    404: {3001},
    405: {2003},
    408: {2003},
    409: {3002, 3003},
    413: {2003},
    429: {3004},
    500: {5001, 5002},
    503: {5002},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose form has been checked: the envelope, its code, a request id."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    code: int
    message: str
    data: Any

    @property
    def brief(self) -> tuple[int, int]:
        """HTTP status and code."""
        return self.status, self.code


class Caller:
    """Calls an application, as whom a token says."""

    def __init__(self, app: Any, token: str | None = None, address: str = "192.0.2.7") -> None:
        self.app = app
        self.token = token
        self.address = address

    async def get(self, path: str, **query: Any) -> Answer:
        """GET a path below ``/api/v1``."""
        return await self.call("GET", path, query=urlencode(query))

    async def post(self, path: str, body: Any) -> Answer:
        """POST JSON (or bytes, as they are) to a path below ``/api/v1``."""
        return await self.call("POST", path, body)

    async def data(self, path: str, body: Any = None, **query: Any) -> Any:
        """Return the data of a call that must succeed: POST with a body, GET without."""
        answer = await (self.get(path, **query) if body is None else self.post(path, body))
        assert answer.brief == (200, 0), answer
        return answer.data

    async def call(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call and check the form of the answer; ``headers`` may replace the token's."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        whole = path if path.startswith("/api/") or not path.startswith("/") else f"/api/v1{path}"
        given = {"authorization": f"Bearer {self.token}"} if self.token else {}
        start, raw = await call_raw(
            self.app, method, whole, sent, query, {**given, **(headers or {})}, self.address
        )
        return _checked(start["status"], start["headers"], raw)


async def call_raw(  # noqa: PLR0917 (what a request consists of)
    app: Any,
    method: str,
    path: str,
    body: bytes = b"",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    address: str = "192.0.2.7",
) -> tuple[dict[str, Any], bytes]:
    """Call an application; return the message that starts its answer, and the body."""
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.Event().wait()  # nothing more ever comes
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in {"host": "control.test", **(headers or {})}.items()
        ],
        "client": (address, 40_000),
        "server": ("control.test", 80),
    }
    await app(scope, receive, send)
    return sent[0], b"".join(message.get("body", b"") for message in sent[1:])


def _checked(status: int, headers: Any, raw: bytes) -> Answer:
    """Fail unless the answer is the envelope, whole, with a request id."""
    named = {name.decode().lower(): value.decode("latin-1") for name, value in headers}
    body = json.loads(raw)
    assert list(body) == ["code", "message", "data"], body
    assert body["code"] in CODES[status], (status, body)
    assert isinstance(body["message"], str)
    assert body["message"]
    assert named["content-type"].startswith("application/json")
    assert named["content-length"] == str(len(raw))
    assert len(named["x-request-id"]) == 16
    if status != 200:
        assert body["data"] is None
    if status == 429:
        assert int(named["retry-after"]) >= 1
    return Answer(status, named, raw, body["code"], body["message"], body["data"])
