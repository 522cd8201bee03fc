"""The calls of the REST API: what the command line, examples and tests speak through."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

import msgspec
from msgspec import Raw

from edgeplane.client.connection import Connection
from edgeplane.client.errors import ApiError, ClientError, Unreachable
from edgeplane.client.news import News
from edgeplane.client.records import (
    Attempt,
    Deleted,
    Login,
    NewNode,
    NewOperation,
    NewTask,
    Node,
    NodeChanges,
    NodeFilter,
    Operation,
    OperationFilter,
    Page,
    PageWanted,
    Task,
    TaskFilter,
    User,
)
from edgeplane.model.paging import MAX_PAGE_SIZE

#: Between looks at an operation whose tasks move.
_SPACING_SECONDS = 0.5

W = TypeVar("W", Task, Operation)


class Client:
    """A control plane at one address, spoken to with one token.

    Every call raises ApiError where the answer is an error, Unreachable where there is none.
    """

    def __init__(
        self, base_url: str, token: str | None = None, *, credential: str | None = None
    ) -> None:
        """Take ``http://host:port``; ``credential`` says in errors whose calls these are.

        Raises:
            ValueError: the address or the token is none.

        """
        self._connection = Connection(base_url, token, credential)

    @property
    def base_url(self) -> str:
        """The address, without a slash at its end."""
        return self._connection.base_url

    @property
    def last_data(self) -> bytes:
        """The data of the latest answer, byte for byte."""
        return self._connection.last_data

    def login(self, username: str, password: str) -> Login:
        """Log in; later calls carry the token."""
        login = self._connection.post(
            "/auth/login", {"username": username, "password": password}, Login
        )
        self._connection.use(login.token)
        return login

    def me(self) -> User:
        """Return who the token is of."""
        return self._connection.get("/me", User)

    def ping(self) -> None:
        """Return when the control plane answers."""
        self._connection.get("/ping", Raw)

    def list_nodes(self, wanted: NodeFilter | None = None) -> Page[Node]:
        """Return a page of nodes."""
        return self._connection.get("/nodes", Page[Node], wanted)

    def get_node(self, node_id: int) -> Node:
        """Return one node."""
        return self._connection.get(f"/nodes/{node_id}", Node)

    def find_node(self, name: str) -> Node | None:
        """Return the node of exactly this name, if there is one."""
        page = 1
        while True:
            found = self.list_nodes(NodeFilter(name=name, page=page, page_size=MAX_PAGE_SIZE))
            for node in found.list:
                if node.name == name:
                    return node
            if not found.list or page * found.page_size >= found.total:
                return None
            page += 1

    def create_node(self, node: NewNode) -> Node:
        """Create a node."""
        return self._connection.post("/nodes/create", node, Node)

    def update_node(self, node_id: int, changes: NodeChanges) -> Node:
        """Change a node."""
        return self._connection.post(
            "/nodes/update", {"id": node_id, **msgspec.to_builtins(changes)}, Node
        )

    def delete_nodes(self, node_ids: Sequence[int]) -> int:
        """Delete nodes; return how many there were."""
        return self._connection.post(
            "/nodes/delete", {"ids": list(node_ids)}, Deleted
        ).deleted_count

    def list_tasks(self, wanted: TaskFilter | None = None) -> Page[Task]:
        """Return a page of tasks."""
        return self._connection.get("/agent-tasks", Page[Task], wanted)

    def get_task(self, task_id: int) -> Task:
        """Return one task."""
        return self._connection.get(f"/agent-tasks/{task_id}", Task)

    def list_attempts(self, task_id: int, wanted: PageWanted | None = None) -> Page[Attempt]:
        """Return a page of a task's attempts, newest first."""
        return self._connection.get(f"/agent-tasks/{task_id}/attempts", Page[Attempt], wanted)

    def create_task(self, task: NewTask) -> Task:
        """Create a task; with a request id it may be sent again and is done once."""
        return self._connection.post("/agent-tasks/create", task, Task)

    def retry_task(self, task_id: int) -> Task:
        """Run a failed task now."""
        return self._connection.post("/agent-tasks/retry", {"id": task_id}, Task)

    def cancel_task(self, task_id: int) -> Task:
        """Take a task back; one that runs may still succeed."""
        return self._connection.post("/agent-tasks/cancel", {"id": task_id}, Task)

    def list_operations(self, wanted: OperationFilter | None = None) -> Page[Operation]:
        """Return a page of operations."""
        return self._connection.get("/operations", Page[Operation], wanted)

    def get_operation(self, operation_id: int) -> Operation:
        """Return one operation."""
        return self._connection.get(f"/operations/{operation_id}", Operation)

    def list_operation_tasks(
        self, operation_id: int, wanted: TaskFilter | None = None
    ) -> Page[Task]:
        """Return a page of an operation's tasks."""
        return self._connection.get(f"/operations/{operation_id}/tasks", Page[Task], wanted)

    def create_operation(self, operation: NewOperation) -> Operation:
        """Create an operation; with a request id it may be sent again and is done once."""
        return self._connection.post("/operations/create", operation, Operation)

    def change_operation(self, verb: str, operation_id: int) -> Operation:
        """Cancel, pause, resume or retry-failed an operation."""
        return self._connection.post(f"/operations/{verb}", {"id": operation_id}, Operation)

    def wait(
        self, task_id: int, timeout: float | None = None, *, patience: float = 30.0
    ) -> Iterator[Task]:
        """Yield the task as it is and again at each change, until it is final or time is up.

        The control plane's event stream tells of changes; where there is none, it is asked again.

        Args:
            task_id: which.
            timeout: seconds; None waits as long as it takes. The last task yielded says by
                ``final`` whether it ended.
            patience: seconds for which a control plane that cannot answer is asked again.

        """
        with closing(News(self._connection, f"taskId={task_id}")) as news:
            yield from _changes(lambda: self.get_task(task_id), _face, news.wait, timeout, patience)

    def wait_operation(
        self, operation_id: int, timeout: float | None = None, *, patience: float = 30.0
    ) -> Generator[Operation, None, None]:
        """Yield the operation as it is and again at each change, as ``wait`` does.

        However many of its tasks move, it is looked at twice a second at most.
        """
        wanted = f"operationId={operation_id}"
        with closing(News(self._connection, wanted, _SPACING_SECONDS)) as news:
            yield from _changes(
                lambda: self.get_operation(operation_id),
                lambda seen: (seen.state, seen.counts),
                news.wait,
                timeout,
                patience,
            )

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


def _passing(error: ClientError) -> bool:
    return isinstance(error, Unreachable) or (
        isinstance(error, ApiError) and error.status in {429, 502, 503, 504}
    )


def _face(task: Task) -> tuple[object, ...]:
    """Return what makes a change worth telling."""
    asked = task.cancel_requested
    return task.status, task.attempts, task.next_retry_at, task.last_error, asked


def _changes(
    get: Callable[[], W],
    face: Callable[[W], object],
    rest: Callable[[float, float | None], None],
    timeout: float | None,
    patience: float,
) -> Iterator[W]:
    """Yield what is got at first and at each change of its face, until it is final.

    ``rest`` waits for news: for so long where nobody tells of any, and no longer than that.
    """
    now = time.monotonic()
    end = None if timeout is None else now + timeout
    seen: W | None = None
    pause, heard = 0.05, now
    while True:
        try:
            found = get()
        except ClientError as error:
            if not _passing(error) or time.monotonic() - heard > patience:
                raise
        else:
            heard = time.monotonic()
            if seen is None or face(found) != face(seen):
                seen, pause = found, 0.05
                yield found
        now = time.monotonic()
        if (seen is not None and seen.final) or (end is not None and now >= end):
            return
        rest(pause, None if end is None else end - now)
        pause = min(pause * 2, 1.0)
