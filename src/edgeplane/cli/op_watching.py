"""Staying with an operation until it has ended: a bar while it goes on, then what failed."""

import sys
from collections.abc import Callable
from contextlib import closing

from edgeplane.cli import output
from edgeplane.cli.exits import Exit
from edgeplane.client.errors import ApiError
from edgeplane.client.records import Operation, TaskFilter
from edgeplane.client.rest import Client

MAX_TOLD = 20  #: failures that are named; more are counted
_BAR_WIDTH = 30


Over = Callable[[Operation], bool]  #: whether there is nothing more to wait for


def follow(client: Client, operation: Operation, timeout: float | None, over: Over) -> Operation:
    """Tell how far an operation is, at each change; return it as it was last seen.

    On a terminal one line is drawn anew; elsewhere each change is a line.
    """
    redrawn = sys.stderr.isatty()
    try:
        with closing(client.wait_operation(operation.id, timeout)) as changes:
            for seen in changes:
                operation = seen
                _tell(seen, redrawn=redrawn)
                if over(seen):
                    break
    except KeyboardInterrupt:
        _end_line(redrawn=redrawn)
        output.tell(
            f"operation {operation.id} goes on; see it with: edgeplane op watch {operation.id}"
        )
        raise
    _end_line(redrawn=redrawn)
    return operation


def _tell(seen: Operation, *, redrawn: bool) -> None:
    if redrawn:
        sys.stderr.write(f"\r\x1b[K{line(seen)}")
        sys.stderr.flush()
    else:
        output.tell(line(seen))


def _end_line(*, redrawn: bool) -> None:
    if redrawn:
        sys.stderr.write("\n")


def line(seen: Operation) -> str:
    """Say how far an operation is."""
    ended = sum(seen.counts.get(name, 0) for name in ("success", "failed", "skipped"))
    share = ended / seen.total if seen.total else 1.0
    bar = "#" * int(share * _BAR_WIDTH)
    rest = [
        f"{number} {name}" for name, number in seen.counts.items() if number and name != "success"
    ]
    told = ", ".join([f"{seen.counts.get('success', 0)} of {seen.total} succeeded", *rest])
    return f"operation {seen.id} {seen.state} [{bar:.<{_BAR_WIDTH}}] {share:4.0%} {told}"


def tell_failures(client: Client, operation: Operation) -> None:
    """Name the nodes at which an operation failed for good, and why."""
    failed = operation.counts.get("failed", 0)
    if not failed:
        return
    told = 0
    cursor: str | None = None
    while told < MAX_TOLD:
        page = client.list_operation_tasks(
            operation.id, TaskFilter(status="failed", page_size=100, cursor=cursor)
        )
        for task in [task for task in page.list if task.final][: MAX_TOLD - told]:
            told += 1
            output.tell(f"failed at {_name(client, task.node_id)}: {task.last_error}")
        cursor = page.next_cursor
        if cursor is None:
            break
    if failed > told:
        listed = f"edgeplane op tasks {operation.id} --status failed"
        output.tell(f"… and {failed - told} more: {listed}")


def exit_of(operation: Operation, over: Over) -> Exit:
    """Return how the command ends that waited for it until it was over."""
    if not over(operation):
        return Exit.UNFINISHED
    return Exit.FAILED if operation.final and not operation.succeeded else Exit.DONE


def _name(client: Client, node_id: int) -> str:
    try:
        return f"{client.get_node(node_id).name} (node {node_id})"
    except ApiError:
        return f"node {node_id}"
