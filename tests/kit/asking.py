"""One call, one answer: an agent that connects out is asked as one that listens is.

So that what an agent promises is asked of it whichever way the question comes.
"""

import itertools
import threading
import time
from concurrent.futures import Future, wait

import msgspec

from kit.sync_control import PATIENCE, SyncControl

_POLL_SECONDS = 0.02
_LONG = 3000.0  #: for which an exchange may be held: none ends by itself
_words = msgspec.json.Encoder(order="deterministic")


class Asker:
    """A control plane that asks what its callers want asked, and gives each the result.

    Args:
        is_alive: whether the agent's process is there; who waits for one that has died is told as
            somebody is whose connection was reset.

    """

    def __init__(self, is_alive=lambda: True):
        self.is_alive = is_alive
        self._lock = threading.Lock()
        self._held = None  #: the exchange that waits for something to do
        self._due = []  #: results to be acknowledged with the next reply
        self._tasks, self._cancels = [], []  #: to be asked with the next reply
        self._runs, self._asked = {}, {}  #: who waits for a run, and in what words it was asked
        self._orders = {}  #: who waits for the answer to a cancel
        self._markers = itertools.count()
        self.control = SyncControl(take=self._take)
        self.url = self.control.url

    def execute(self, request_id, kind="apply_config", payload='{"a":1}', **more):
        """Ask for an execution; the payload is JSON text and travels as it is."""
        fields = {"requestId": request_id, "type": kind, **more}
        if payload is not None:
            fields["payload"] = msgspec.Raw(payload.encode())
        (result,) = self._results([fields])
        if "httpStatus" not in result:
            return 200, {"code": 0, "message": "success", "data": result}
        refusal = {"code": result["code"], "message": result["error"], "data": result.get("data")}
        return result["httpStatus"], refusal

    def execute_batch(self, *tasks):
        """Ask for many executions with one reply; answer as a batch is answered, in its order."""
        filled = [{"type": "apply_config", "payload": {"a": 1}, **task} for task in tasks]
        data = {"results": self._results(filled)}
        return 200, {"code": 0, "message": "success", "data": data}

    def cancel(self, request_id, **more):
        """Ask for a request to have no effect; return None where that is not answered.

        An agent says nothing of a cancel that it refuses. That is certain once it has answered
        another that was asked after it with the same reply.
        """
        marker = f"asked-after-{next(self._markers)}"
        asked = [{"requestId": request_id, **more}, {"requestId": marker}]
        with self._lock:
            answer, after = (self._orders.setdefault(one["requestId"], Future()) for one in asked)
            self._cancels += asked
            self._reply()
        self._wait([after])
        with self._lock:
            self._orders.pop(request_id, None)
            if not answer.done():
                return None
        data = {"requestId": request_id, "state": answer.result()}
        return 200, {"code": 0, "message": "success", "data": data}

    def close(self):
        """End it; the agent has to be gone, and to have kept to the protocol until then."""
        self.control.close()

    def _results(self, tasks):
        """Ask for runs with one reply; wait for all, and return their results."""
        futures = [Future() for _ in tasks]
        with self._lock:
            for task, future in zip(tasks, futures, strict=True):
                run = (task["requestId"], task.get("attempt", 1))
                words = _words.encode(task)
                assert self._asked.setdefault(run, words) == words, f"{run} is asked differently"
                self._runs.setdefault(run, []).append(future)
            self._tasks += tasks
            self._reply()
        self._wait(futures)
        return [future.result() for future in futures]

    def _wait(self, futures):
        end = time.monotonic() + PATIENCE
        while wait(futures, _POLL_SECONDS).not_done:
            if not self.is_alive():
                raise ConnectionResetError("the agent's process has ended")
            faults = self.control.faults
            assert time.monotonic() < end, f"no answer within {PATIENCE} s; faults: {faults}"

    def _take(self, exchange):
        """Give what an exchange tells to who waits for it, and hold it until there is more to do.

        An agent's first is answered at once, and so is an older one when a newer comes.
        """
        with self._lock:
            older, self._held = self._held, exchange
            if older is not None:
                older.reply(wait=_LONG)
            if exchange.request.again:
                self.control.faults.append("a reply was lost")
            for attempt, result in exchange.results:
                self._ended((result["requestId"], attempt), result)
            for request_id, state in exchange.cancels.items():
                if request_id in self._orders:
                    self._orders.pop(request_id).set_result(state)
            self._reply(at_once=exchange.request.exchange == 1)

    def _ended(self, run, result):
        self._due.append(run)
        self._asked.pop(run, None)
        for future in self._runs.pop(run, ()):
            future.set_result(result)

    def _reply(self, *, at_once=False):
        """Answer the exchange that is held, if there is something to do."""
        if self._held is None or not (self._tasks or self._cancels or at_once):
            return
        exchange, self._held = self._held, None
        tasks, cancels, due = self._tasks, self._cancels, self._due
        self._tasks, self._cancels, self._due = [], [], []
        exchange.reply(*tasks, cancels=cancels, acknowledged=due, wait=_LONG)
