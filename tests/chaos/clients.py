"""The clients of a run: they ask for what its schedule says, and tell the history what they heard.

A create or an operation under an id of the client's own is sent until it is answered. Everything
else is sent once; without an answer, nobody knows whether it happened.
"""

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from chaos.schedules import Act
from kit.history import (
    CancelTold,
    History,
    OperationAccepted,
    OperationAsked,
    OperationTold,
    Retried,
    Unheard,
)
from kit.processes import ControlPlane

_SIDE_BY_SIDE = 12
_ANSWER_SECONDS = 60.0
_PAUSE_SECONDS = 0.03
_PAYLOADS: Mapping[str, dict[str, Any]] = {
    "apply_config": {"vhost": "example.com", "upstream": ["192.168.1.1:80"]},
    "reload": {},
    "purge_cache": {"urls": ["/static/*"]},
}
_PATHS: Mapping[str, str] = {"stop": "cancel", "retry_failed": "retry-failed"}
_NOT_NOW = {429, 500, 503}
Answer = dict[str, Any]


class Clients:
    """Carries out acts; each at its time, side by side.

    Args:
        controls: asked in turn.
        nodes: ids of the nodes, by the places a schedule names.
        obstacle: called with an act and whether something is to stand in its way.

    """

    def __init__(
        self,
        history: History,
        controls: Sequence[ControlPlane],
        nodes: Sequence[int],
        obstacle: Callable[[Act, bool], None],
    ) -> None:
        self._history = history
        self._controls = itertools.cycle(controls)
        self._nodes = nodes
        self._obstacle = obstacle
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="client")
        self._sent: list[Future[Answer | None]] = []
        self._creates: dict[int, Act] = {}
        self._known: dict[tuple[str, int], tuple[int, str]] = {}  #: task or operation, request id
        self._lock = threading.Lock()
        self._gave_up = False

    def act(self, act: Act) -> None:
        """Begin to do what an act says; it goes on by itself."""
        if act.what in {"create", "anonymous"}:
            self._creates[act.number] = act
        if act.fails:
            self._obstacle(act, True)
        deeds: Mapping[str, Callable[[Act], Answer | None]] = {
            "create": self._create,
            "anonymous": self._create_once,
            "cancel": self._cancel,
            "retry": self._retry,
            "operate": self._operate,
        }
        for _ in range(act.posts):
            self._sent.append(self._pool.submit(deeds.get(act.what, self._change), act))

    def wait(self) -> None:
        """Wait until all have been answered, or never will be."""
        for future in self._sent:
            future.result(_ANSWER_SECONDS + 40)

    def resume_all(self) -> None:
        """Let every operation that may be paused go on."""
        for kind, number in list(self._known):
            if kind == "operation":
                act = Act(0.0, "resume", number)
                while self._change(act) is None:
                    time.sleep(_PAUSE_SECONDS)

    def give_up(self) -> None:
        """Send nothing again, and end."""
        self._gave_up = True
        self._pool.shutdown(cancel_futures=True)

    def _create(self, act: Act) -> None:
        node_id = self._nodes[act.nodes[0]]
        body = {**self._body(act), "nodeId": node_id, "requestId": f"r{act.number}"}
        data = self._until_answered("/agent-tasks/create", body)
        self._history.accept(f"r{act.number}", data["id"], node_id)
        self._know("task", act.number, data)

    def _create_once(self, act: Act) -> None:
        node_id = self._nodes[act.nodes[0]]
        answer = self._post("/agent-tasks/create", {**self._body(act), "nodeId": node_id})
        if answer is None or answer["code"] != 0:
            now = time.monotonic()
            self._history.add(Unheard(at=now, node_id=node_id, kind=act.kind))
            return
        data = answer["data"]
        self._history.accept(data["requestId"], data["id"], node_id)
        self._know("task", act.number, data)

    def _cancel(self, act: Act) -> None:
        if (known := self._known.get(("task", act.number))) is None:
            return
        task_id, name = known
        self._history.withdraw(name)
        answer = self._post("/agent-tasks/cancel", {"id": task_id})
        if answer is not None and answer["code"] == 0:
            status = answer["data"]["status"]
            self._history.add(CancelTold(at=time.monotonic(), request_id=name, status=status))

    def _retry(self, act: Act) -> None:
        if self._creates[act.number].fails:
            self._obstacle(self._creates[act.number], False)
        if (known := self._known.get(("task", act.number))) is not None:
            task_id, name = known
            self._history.add(Retried(at=time.monotonic(), request_id=name))
            self._post("/agent-tasks/retry", {"id": task_id})

    def _operate(self, act: Act) -> None:
        nodes = [self._nodes[place] for place in act.nodes]
        name = f"o{act.number}"
        limits = {"maxConcurrency": act.max_concurrency, "maxFailures": act.max_failures}
        body = {**self._body(act), "target": {"nodeIds": nodes}, "requestId": name, **limits}
        data = self._until_answered("/operations/create", body)
        self._history.add(
            OperationAccepted(
                at=time.monotonic(),
                request_id=name,
                operation_id=data["id"],
                kind=act.kind,
                nodes=tuple(nodes),
                max_concurrency=act.max_concurrency,
                max_failures=act.max_failures,
            )
        )
        self._know("operation", act.number, data)

    def _change(self, act: Act) -> Answer | None:
        """Change an operation; return the answer, None where there was none."""
        if (known := self._known.get(("operation", act.number))) is None:
            return {}
        which, what = known[0], _PATHS.get(act.what, act.what)
        asked = time.time()
        if what == "retry-failed":
            self._history.add(Retried(at=time.monotonic(), operation_id=which))
        else:
            self._history.add(
                OperationAsked(at=time.monotonic(), wall=asked, operation_id=which, what=what)
            )
        answer = self._post(f"/operations/{what}", {"id": which})
        if answer is None or answer["status"] in _NOT_NOW:
            return None
        self._history.add(
            OperationTold(
                at=time.monotonic(),
                wall=time.time(),
                asked=asked,
                operation_id=which,
                what=what,
                done=answer["code"] == 0,
            )
        )
        return answer

    def _body(self, act: Act) -> dict[str, Any]:
        return {"type": act.kind, "payload": _PAYLOADS[act.kind], "timeoutSeconds": 2}

    def _know(self, kind: str, number: int, data: Answer) -> None:
        self._known[kind, number] = (data["id"], data["requestId"])

    def _until_answered(self, path: str, body: dict[str, Any]) -> Answer:
        end = time.monotonic() + _ANSWER_SECONDS
        while True:
            answer = self._post(path, body)
            if answer is not None and answer["code"] == 0:
                return dict(answer["data"])
            assert answer is None or answer["status"] in _NOT_NOW, answer
            never = self._gave_up or time.monotonic() > end
            assert not never, f"{body['requestId']} was never answered"
            time.sleep(_PAUSE_SECONDS)  # a client waits a little before it asks again

    def _post(self, path: str, body: dict[str, Any]) -> Answer | None:
        with self._lock:
            control = next(self._controls)
        try:
            return control.call("POST", path, body)
        except (OSError, http.client.HTTPException, ValueError):
            return None
