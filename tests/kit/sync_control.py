"""A control plane for agents that connect out: a real TCP server, answered by the test.

Every exchange is checked when it comes in, and waits until the test says what becomes of it.
"""

import json
import queue
import select
import socket
import ssl
import threading
from contextlib import suppress

import msgspec

from edgeplane.wire import MAX_BODY_BYTES, SYNC_PATH, SyncRequest, envelope, error_envelope
from kit.processes import AGENT_TOKEN

PATIENCE = 20.0
MAX_OPEN = 2

_decoder = msgspec.json.Decoder(SyncRequest)


def task(request_id, kind="reload", payload=None, **more):
    """Make a task of a reply."""
    return {"requestId": request_id, "type": kind, "payload": payload or {}, **more}


class Exchange:
    """One exchange that is held, on the connection with this number."""

    def __init__(self, control, connection, number, body):
        self._control = control
        self._connection = connection
        self.number = number
        self.size = len(body)
        self.request = _decoder.decode(body)
        self.answered = threading.Event()
        self.gone = threading.Event()

    @property
    def results(self):
        """What it tells: pairs of attempt and result."""
        return [(told.attempt, json.loads(bytes(told.result))) for told in self.request.results]

    @property
    def told(self):
        """The request ids it tells of, in order."""
        return [result["requestId"] for _, result in self.results]

    @property
    def cancels(self):
        """The answers to cancels in it."""
        return {reply.request_id: reply.state for reply in self.request.cancels}

    def reply(self, *tasks, cancels=(), acknowledged=(), wait=30.0, pause=0.0, reconnect=0.0):
        """Answer it; ``acknowledged`` are pairs of request id and attempt."""
        reply = {
            "nodeId": 7,
            "tasks": tasks,
            "cancels": cancels,
            "acknowledged": [{"requestId": name, "attempt": run} for name, run in acknowledged],
            "waitSeconds": wait,
            "pauseSeconds": pause,
            "reconnectSeconds": reconnect,
        }
        self.say(200, envelope(reply))

    def refuse(self, status, code=5001, words="the words of the refusal", *headers):
        """Answer it with an error."""
        self.say(status, error_envelope(code, words), *headers)

    def say(self, status, body, *headers):
        """Answer it with this."""
        lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}", *headers]
        with suppress(OSError):  # the agent may be gone
            self._connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        self._over()

    def hang_up(self, said=b""):
        """End its connection in the middle of it, after this."""
        with suppress(OSError):
            self._connection.sendall(said)
            self._connection.shutdown(socket.SHUT_RDWR)
        self._over()

    def wait_until_gone(self):
        """Wait until the agent has ended the connection; nothing more may come on it."""
        assert self.gone.wait(PATIENCE)

    def is_gone(self, seconds=0.0):
        """Say whether the agent has ended the connection, at least after this time."""
        watched = select.poll()
        watched.register(self._connection, select.POLLRDHUP)
        if watched.poll(seconds * 1000):
            self._control.held.discard(self)
            self.gone.set()
        return self.gone.is_set()

    def _over(self):
        self._control.held.discard(self)
        self.answered.set()


class SyncControl:
    """Where an agent connects out to; ``faults`` are what it must not have done."""

    def __init__(self, port=0, certificate=None, take=None):
        """Listen on loopback; ``certificate`` is a file with key and certificate, for https.

        ``take`` is called with each exchange, from a thread of its connection's; without it they
        wait for ``next``.
        """
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._tls = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self.faults = []
        self.held = set()
        self.refused_handshakes = threading.Semaphore(0)
        self._newest = {}
        self._coming = queue.SimpleQueue()
        self._hand_over = take or self._coming.put
        self._connections = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def connections(self):
        """How many connections have been made so far."""
        return len(self._connections)

    def next(self, seconds=PATIENCE):
        """Return the next exchange; fail when none comes."""
        try:
            return self._coming.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no exchange; faults: {self.faults}") from None

    def none_waits(self):
        """Say whether no exchange has come in that was not taken by ``next``."""
        return self._coming.empty()

    def close(self):
        """End everything, as a control plane does that dies; tell what was wrong."""
        for one in (self._listener, *self._connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for exchange in list(self.held):
            exchange.answered.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert self.faults == []

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE * 2)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection):
        with connection:
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                self.refused_handshakes.release()
                return
            self._connections.append(connection)
            number = len(self._connections)
            with suppress(OSError, EOFError, ValueError), connection.makefile("rb") as file:
                while True:
                    self._take(connection, number, file)

    def _take(self, connection, number, file):
        """Read one request, check it, and wait until the test has answered it."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            if not line:
                raise EOFError
            head += line
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        named = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in named}
        body = file.read(int(headers["content-length"]))
        try:
            exchange = Exchange(self, connection, number, body)
        except msgspec.MsgspecError as error:
            self.faults.append(f"malformed: {error}: {body[:200]!r}")
            raise EOFError from error
        self._check(first, headers, exchange)
        self.held.add(exchange)
        self._hand_over(exchange)
        while not exchange.answered.is_set():
            if exchange.is_gone(seconds=0.01):
                raise EOFError

    def _check(self, first, headers, exchange):
        request = exchange.request
        wrong = {
            "request line": first != f"POST {SYNC_PATH} HTTP/1.1",
            "token": headers.get("authorization") != f"Bearer {AGENT_TOKEN}",
            "host": headers.get("host") != f"127.0.0.1:{self.port}",
            "body is too large": exchange.size > MAX_BODY_BYTES,
            "exchange does not grow": request.exchange <= self._newest.get(request.session, 0),
            "too many are open": sum(not one.is_gone() for one in list(self.held)) >= MAX_OPEN,
        }
        # What runs side by side on two connections may arrive in either order.
        newest = self._newest.get(request.session, 0)
        if request.exchange == newest - 1 and self.held:
            wrong["exchange does not grow"] = False
        self._newest[request.session] = max(newest, request.exchange)
        self.faults += [what for what, is_so in wrong.items() if is_so]
