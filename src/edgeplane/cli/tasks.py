"""``edgeplane task``: create, watch, retry and cancel tasks."""

from typing import Any

import click
from click import Choice, IntRange

from edgeplane.cli import attempt_log, following, output, payloads, sessions, task_table
from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.nodes import node_id
from edgeplane.cli.options import (
    Wishes,
    api_options,
    cursor_options,
    list_options,
    pass_wishes,
    wait_options,
    wait_timeout_option,
)
from edgeplane.client.errors import Unreachable
from edgeplane.client.records import NewTask, PageWanted, Task, TaskFilter
from edgeplane.client.rest import Client
from edgeplane.model.clock import new_request_id
from edgeplane.model.tasks import (
    MAX_DEADLINE_SECONDS,
    MAX_MAX_ATTEMPTS,
    MAX_PRIORITY,
    MAX_TIMEOUT_SECONDS,
    TaskKind,
    TaskStatus,
)

_KINDS = Choice([kind.value for kind in TaskKind])
_IDS = IntRange(1, 2**63 - 1)


@click.group()
def task() -> None:
    """Create, watch, retry and cancel tasks."""


@task.command("list")
@click.option("--node", "named", metavar="ID|NAME", help="Only tasks of this node.")
@click.option("--type", "type", type=_KINDS)
@click.option("--status", type=Choice([status.value for status in TaskStatus]))
@list_options
@api_options
@pass_wishes
def list_tasks(wishes: Wishes, /, named: str | None, **wanted: Any) -> None:
    """List tasks, newest first."""
    client = sessions.connect(wishes)
    node = node_id(client, named) if named is not None else None
    page = client.list_tasks(TaskFilter(node_id=node, **wanted))
    if wishes.json:
        output.print_json(client.last_data)
        return
    task_table.show(page)


@task.command("show")
@click.argument("task_id", metavar="ID", type=_IDS)
@api_options
@pass_wishes
def show_task(wishes: Wishes, task_id: int) -> None:
    """Show one task."""
    client = sessions.connect(wishes)
    _print(wishes, client, client.get_task(task_id))


@task.command("log")
@click.argument("task_id", metavar="ID", type=_IDS)
@cursor_options
@api_options
@pass_wishes
def show_log(wishes: Wishes, /, task_id: int, **wanted: Any) -> None:
    """Show how each attempt at a task went, newest first."""
    client = sessions.connect(wishes)
    page = client.list_attempts(task_id, PageWanted(**wanted))
    if wishes.json:
        output.print_json(client.last_data)
        return
    if not page.list:
        output.tell(f"task {task_id}: no attempt has begun")
    for number, attempt in enumerate(page.list):
        if number:
            click.echo()
        attempt_log.show(attempt)
    output.tell_of_more(page.next_cursor)


@task.command("create")
@click.option("--node", "named", required=True, metavar="ID|NAME", help="Digits are an id.")
@click.option("--type", "kind", required=True, type=_KINDS)
@click.option("--payload", metavar="JSON|@FILE", help="A JSON object; {} if not given.")
@click.option("--payload-stdin", is_flag=True, help="Read the payload from standard input.")
@click.option("--request-id", metavar="ID", help="The same id again returns the same task.")
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=IntRange(1, MAX_TIMEOUT_SECONDS),
    help="How long one attempt may take at the node.",
)
@click.option("--max-attempts", type=IntRange(1, MAX_MAX_ATTEMPTS), help="1 turns retries off.")
@click.option(
    "--deadline",
    "deadline_seconds",
    metavar="SECONDS",
    type=IntRange(1, MAX_DEADLINE_SECONDS),
    help="When to give up; one day if not given.",
)
@click.option(
    "--priority",
    type=IntRange(0, MAX_PRIORITY),
    help="9 goes first; among purges and nodes, never within the config lane. 5 if not given.",
)
@wait_options()
@api_options
@pass_wishes
def create_task(
    wishes: Wishes, /, named: str, payload: str | None, payload_stdin: bool, **details: Any
) -> None:
    """Create a task for a node."""
    text = payloads.read(payload, from_stdin=payload_stdin)
    client = sessions.connect(wishes)
    # With an id of its own the task can be asked for again when the answer is lost.
    details["request_id"] = details["request_id"] or new_request_id()
    details["type"] = details.pop("kind")
    asked = NewTask(node_id=node_id(client, named), payload=text, **details)
    try:
        created = client.create_task(asked)
    except Unreachable as error:
        if not error.sent:
            raise
        hint = f"the task may exist: ask again with --request-id {asked.request_id}"
        raise Stop(Exit.UNREACHABLE, f"{error}; {hint}") from error
    _finish(wishes, client, created)


@task.command("retry")
@click.argument("task_id", metavar="ID", type=_IDS)
@wait_options()
@api_options
@pass_wishes
def retry_task(wishes: Wishes, task_id: int) -> None:
    """Run a failed task now."""
    client = sessions.connect(wishes)
    _finish(wishes, client, client.retry_task(task_id))


@task.command("cancel")
@click.argument("task_id", metavar="ID", type=_IDS)
@wait_options()
@api_options
@pass_wishes
def cancel_task(wishes: Wishes, task_id: int) -> None:
    """Take a task back; one that runs ends when its attempt is back, and may still succeed."""
    client = sessions.connect(wishes)
    _finish(wishes, client, client.cancel_task(task_id))


@task.command("watch")
@click.argument("task_id", metavar="ID", type=_IDS)
@wait_timeout_option
@api_options
@pass_wishes
def watch_task(wishes: Wishes, task_id: int) -> None:
    """Stay with a task until it has ended; the exit code tells how."""
    client = sessions.connect(wishes)
    wishes.wait = True
    _finish(wishes, client, client.get_task(task_id))


def _finish(wishes: Wishes, client: Client, shown: Task) -> None:
    """Print the task, after having waited for its end if that was asked for."""
    waits = wishes.wait or wishes.wait_timeout is not None
    if waits:
        shown = following.follow(client, shown, wishes.wait_timeout)
    _print(wishes, client, shown)
    if waits:
        click.get_current_context().exit(following.exit_of(shown))


def _print(wishes: Wishes, client: Client, shown: Task) -> None:
    if wishes.json:
        output.print_json(client.last_data)
        return
    output.print_fields(
        [
            ("id", shown.id),
            ("node", shown.node_id),
            ("type", shown.type),
            ("status", shown.status),
            ("priority", shown.priority),
            ("generation", shown.generation),
            ("superseded by", shown.superseded_by),
            ("attempts", f"{shown.attempts} (at most {shown.max_attempts} that count)"),
            ("operation", shown.operation_id),
            ("request id", shown.request_id),
            ("result", shown.result),
            ("last error", shown.last_error),
            ("next try", shown.next_retry_at),
            ("created", shown.created_at),
            ("finished", shown.finished_at),
            ("deadline", shown.deadline_at),
            ("payload", output.shortened(bytes(shown.payload))),
        ]
    )
