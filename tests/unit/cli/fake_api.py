"""A small HTTP server that answers what a test scripts, and keeps what it was asked."""

import json
import queue
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NODE = {
    "id": 7,
    "name": "edge-1",
    "mainIP": "192.0.2.7",
    "agentPort": 9090,
    "enabled": True,
    "status": "offline",
    "subIPs": [{"ip": "192.0.2.8", "enabled": False}],
    "lastSeenAt": "2026-01-23T09:59:00.000Z",
    "lastHealthError": "refused",
    "createdAt": "2026-01-23T10:00:00.000Z",
    "updatedAt": "2026-01-23T10:00:00.000Z",
}
TASK = {
    "id": 12,
    "nodeId": 7,
    "type": "reload",
    "payload": {},
    "status": "pending",
    "attempts": 0,
    "maxAttempts": 5,
    "timeoutSeconds": 30,
    "deadlineAt": "2026-01-24T10:00:00.000Z",
    "requestId": "r-1",
    "nextRetryAt": None,
    "lastError": None,
    "result": None,
    "createdBy": "admin",
    "createdAt": "2026-01-23T10:00:00.000Z",
    "startedAt": None,
    "finishedAt": None,
    "updatedAt": "2026-01-23T10:00:00.000Z",
}
LOGIN = {
    "token": "made-token",
    "expireAt": "2026-01-24T10:00:00.000Z",
    "user": {"id": 1, "username": "admin", "role": "admin"},
}


def page(*items):
    """Return a list's data with these items."""
    return {
        "list": list(items),
        "total": len(items),
        "page": 1,
        "pageSize": 20,
        "nextCursor": None,
    }


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class FakeApi:
    """Scripted answers by method and path; the last one of a path is repeated."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    streams: list[Any] = field(default_factory=list)

    def answer(self, method, path, data=None, *, status=200, code=0, message="success", headers=()):
        """Script an answer in the envelope."""
        body = json.dumps({"code": code, "message": message, "data": data}).encode()
        self.raw(method, path, body, status=status, headers=headers)

    def refuse(self, method, path, status, code, message, headers=()):
        """Script an error."""
        self.answer(method, path, status=status, code=code, message=message, headers=headers)

    def raw(self, method, path, body, *, status=200, headers=()):
        """Script any bytes."""
        self.answers.setdefault((method, path), []).append((status, body, dict(headers)))

    def stream(self, path):
        """Script an event stream; what is put into the queue is sent, None ends it."""
        chunks = queue.SimpleQueue()
        self.streams.append(chunks)
        self.raw("GET", path, chunks, headers={"Content-Type": "text/event-stream"})
        return chunks

    def end_streams(self):
        """Let nobody wait for what will not come: it would be told beside a later test."""
        for chunks in self.streams:
            chunks.put(None)

    def take(self, request):
        """Return the next answer to a request."""
        self.requests.append(request)
        scripted = self.answers.get((request.method, request.path.partition("?")[0]))
        if not scripted:
            return 404, b'{"code":3001,"message":"no such path","data":null}', {}
        return scripted.pop(0) if len(scripted) > 1 else scripted[0]


class _Server(ThreadingHTTPServer):
    """Says nothing of a client that hung up: it would stand in what a command printed."""

    def handle_error(self, request, client_address):
        """Tell of what is wrong in the script."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(fake):
    """Serve a script on a free loopback port; return the server, to be shut down."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def log_message(self, *_):
            """Say nothing."""

        def _answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
            status, body, headers = fake.take(request)
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**_framing(body), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if isinstance(body, bytes):
                self.wfile.write(body)
            else:
                self.close_connection = True
                _stream(body, self.wfile)

        do_GET = do_POST = _answer  # noqa: N815 - names http.server wants

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def _framing(body):
    if isinstance(body, bytes):
        return {"Content-Length": str(len(body))}
    return {"Transfer-Encoding": "chunked"}


def _stream(chunks, out):
    """Send what comes until None, or until whoever listened has hung up."""
    try:
        while (chunk := chunks.get()) is not None:
            out.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        out.write(b"0\r\n\r\n")
    except OSError:
        pass
