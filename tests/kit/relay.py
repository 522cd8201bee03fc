"""A way to an agent or out of one; requests on it can be kept waiting, as by a slow network."""

import socket
import threading
from contextlib import suppress

from kit.ports import free_port


class Relay:
    """Passes bytes between its own port and an agent's; what is held it does not even read."""

    def __init__(self, to_port: int) -> None:
        self.port = free_port()
        self._to_port = to_port
        self._gate = _opened()  #: of the connections to come
        self._held: list[tuple[threading.Event, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept)

    def hold(self) -> None:
        """Keep what comes on connections made from now on."""
        self._gate = threading.Event()

    def pass_on(self) -> None:
        """Let connections made from now on through; those that are held stay so."""
        self._gate = _opened()

    def waiting(self) -> int:
        """Return on how many held connections something has come."""
        found = 0
        for gate, client in self._held:
            with suppress(BlockingIOError):
                come = client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                found += bool(come) and not gate.is_set()
        return found

    def release(self) -> None:
        """Let everything through."""
        for gate, _ in self._held:
            gate.set()
        self._held.clear()

    def cut(self) -> None:
        """End every connection there is; new ones are let through."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it; whoever talks through it has to be gone."""
        self._listener.shutdown(socket.SHUT_RDWR)  # this wakes up who accepts; a close would not
        self.release()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work, *given) -> threading.Thread:
        thread = threading.Thread(target=work, args=given, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            gate = self._gate
            if not gate.is_set():
                self._held.append((gate, client))
            self._start(self._carry, gate, client)

    def _carry(self, gate: threading.Event, client: socket.socket) -> None:
        gate.wait()
        with (
            client,
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._to_port)) as to,
        ):
            self._open |= {client, to}
            back = self._start(_pump, to, client)
            _pump(client, to)
            back.join()
            self._open -= {client, to}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(64 << 10):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _opened() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate
