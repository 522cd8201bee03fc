"""Staying with a task until it has ended: what changes is told, how it ended is the exit code."""

from edgeplane.cli import output
from edgeplane.cli.exits import Exit
from edgeplane.client.records import Task
from edgeplane.client.rest import Client
from edgeplane.model.clock import rfc3339


def follow(client: Client, task: Task, timeout: float | None) -> Task:
    """Tell each change of a task and return it as it was last seen."""
    for seen in client.wait(task.id, timeout):
        task = seen
        output.tell(_line(seen))
    return task


def exit_of(task: Task) -> Exit:
    """Return how the command ends that waited for it."""
    if not task.final:
        return Exit.UNFINISHED
    return Exit.DONE if task.status == "success" else Exit.FAILED


def _line(task: Task) -> str:
    begun = f"task {task.id}: {task.status}"
    if task.attempts:
        begun += f", attempt {task.attempts}"
    if task.status == "running" and task.cancel_requested:
        begun += ", to be cancelled"
    if task.status == "success":
        return f"{begun}: {task.result or 'done'}"
    if task.status == "superseded":
        return f"{begun} by task {task.superseded_by}"
    if task.status != "failed":
        return f"{begun}: {task.last_error}" if task.last_error else begun
    if task.next_retry_at is None:
        return f"{begun}, for good: {task.last_error}"
    return f"{begun}, next try at {rfc3339(task.next_retry_at)}: {task.last_error}"
