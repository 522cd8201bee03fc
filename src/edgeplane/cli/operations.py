"""``edgeplane op`` and ``edgeplane purge``: work on many nodes at once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec
from click import Choice, IntRange
from msgspec import Raw

from edgeplane.cli import op_watching, output, payloads, sessions, task_table
from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.nodes import node_id
from edgeplane.cli.options import (
    UNTIL_ENDED,
    Wishes,
    api_options,
    labels_option,
    list_options,
    pass_wishes,
    wait_options,
    wait_timeout_option,
)
from edgeplane.client.errors import Unreachable
from edgeplane.client.records import NewOperation, Operation, OperationFilter, Target, TaskFilter
from edgeplane.client.rest import Client
from edgeplane.model.clock import new_request_id
from edgeplane.model.progress import OperationState
from edgeplane.model.tasks import (
    MAX_DEADLINE_SECONDS,
    MAX_MAX_ATTEMPTS,
    MAX_PRIORITY,
    MAX_TIMEOUT_SECONDS,
    TaskKind,
    TaskStatus,
)

F = TypeVar("F", bound=Callable[..., Any])
_IDS = IntRange(1, 2**63 - 1)


def _creating(command: F) -> F:
    """Add what every command has that creates an operation."""
    for option in (
        api_options,
        wait_options(UNTIL_ENDED),
        click.option("--request-id", metavar="ID", help="The same id again is the same operation."),
        click.option(
            "--timeout",
            "timeout_seconds",
            metavar="SECONDS",
            type=IntRange(1, MAX_TIMEOUT_SECONDS),
            help="How long one attempt may take at a node.",
        ),
        click.option("--priority", type=IntRange(0, MAX_PRIORITY), help="9 is the most urgent."),
        click.option("--max-attempts", type=IntRange(1, MAX_MAX_ATTEMPTS)),
        click.option(
            "--deadline",
            "deadline_seconds",
            metavar="SECONDS",
            type=IntRange(1, MAX_DEADLINE_SECONDS),
            help="When to give up at a node; one day after it is sent if not given.",
        ),
        click.option("--max-failures", metavar="N|N%", help="Stop when so many nodes failed."),
        click.option("--max-concurrency", metavar="N|N%", help="So many nodes at once."),
        click.option("--all", "everywhere", is_flag=True, help="On every node."),
        labels_option,
        click.option("--node", "named", multiple=True, metavar="ID|NAME", help="Repeat for more."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@_creating
@pass_wishes
def purge(wishes: Wishes, /, urls: tuple[str, ...], **details: Any) -> None:
    """Purge URLs on many nodes.

    On those that are named, on those that carry all labels given, or on all.
    """
    payload = Raw(msgspec.json.encode({"urls": list(urls)}))
    _create(wishes, TaskKind.PURGE_CACHE.value, payload, details)


@click.group()
def op() -> None:
    """Work on many nodes: watch, pause, cancel, retry."""


@op.command("create")
@click.option("--type", "kind", required=True, type=Choice([kind.value for kind in TaskKind]))
@click.option("--payload", metavar="JSON|@FILE", help="A JSON object; {} if not given.")
@click.option("--payload-stdin", is_flag=True, help="Read the payload from standard input.")
@_creating
@pass_wishes
def create(
    wishes: Wishes, /, kind: str, payload: str | None, payload_stdin: bool, **details: Any
) -> None:
    """Ask for work on many nodes."""
    _create(wishes, kind, payloads.read(payload, from_stdin=payload_stdin), details)


@op.command("list")
@click.option("--state", type=Choice([state.value for state in OperationState]))
@list_options
@api_options
@pass_wishes
def list_operations(wishes: Wishes, /, **wanted: Any) -> None:
    """List operations, newest first."""
    client = sessions.connect(wishes)
    page = client.list_operations(OperationFilter(**wanted))
    if wishes.json:
        output.print_json(client.last_data)
        return
    output.print_table(
        ("ID", "TYPE", "STATE", "NODES", "SUCCESS", "FAILED", "LEFT", "BY", "CREATED", "REASON"),
        [
            (
                *(row.id, row.type, row.state, row.total, row.counts.get("success")),
                *(row.counts.get("failed"), row.left, row.created_by, row.created_at, row.reason),
            )
            for row in page.list
        ],
    )
    output.tell_of_more(page.next_cursor)


@op.command("show")
@click.argument("operation_id", metavar="ID", type=_IDS)
@api_options
@pass_wishes
def show(wishes: Wishes, operation_id: int) -> None:
    """Show one operation."""
    client = sessions.connect(wishes)
    _print(wishes, client, client.get_operation(operation_id))


@op.command("tasks")
@click.argument("operation_id", metavar="ID", type=_IDS)
@click.option("--status", type=Choice([status.value for status in TaskStatus]))
@list_options
@api_options
@pass_wishes
def list_tasks(wishes: Wishes, /, operation_id: int, **wanted: Any) -> None:
    """List the tasks of an operation, newest first."""
    client = sessions.connect(wishes)
    page = client.list_operation_tasks(operation_id, TaskFilter(**wanted))
    if wishes.json:
        output.print_json(client.last_data)
        return
    task_table.show(page)


@op.command("watch")
@click.argument("operation_id", metavar="ID", type=_IDS)
@wait_timeout_option
@api_options
@pass_wishes
def watch(wishes: Wishes, operation_id: int) -> None:
    """Stay with an operation until it has ended, and name what failed."""
    client = sessions.connect(wishes)
    wishes.wait = True
    _finish(wishes, client, client.get_operation(operation_id))


def _final(seen: Operation) -> bool:
    return seen.final


def _quiet(seen: Operation) -> bool:
    return seen.quiet


def _verb(
    verb: str, words: str, over: op_watching.Over = _final, waits_for: str = UNTIL_ENDED
) -> None:
    @op.command(verb, help=words)
    @click.argument("operation_id", metavar="ID", type=_IDS)
    @wait_options(waits_for)
    @api_options
    @pass_wishes
    def change(wishes: Wishes, operation_id: int) -> None:
        client = sessions.connect(wishes)
        _finish(wishes, client, client.change_operation(verb, operation_id), over)


_verb("cancel", "Take back what has not begun; what is out may finish.")
_verb(
    "pause",
    "Let no further task begin; what is out may finish.",
    over=_quiet,
    waits_for="Stay until nothing of it runs any more.",
)
_verb("resume", "Let a paused operation go on.")
_verb("retry-failed", "Try again what has failed for good.")


def _create(wishes: Wishes, kind: str, payload: Raw, details: dict[str, Any]) -> None:
    named, everywhere = details.pop("named"), details.pop("everywhere")
    labels = details.pop("labels")
    if sum(map(bool, (named, labels, everywhere))) != 1:
        raise click.UsageError("exactly one of --node, --label and --all is needed")
    for limit in ("max_concurrency", "max_failures"):
        details[limit] = _limit(details[limit])
    client = sessions.connect(wishes)
    target = Target(
        node_ids=[node_id(client, name) for name in named] or None,
        labels=labels or None,
        all=everywhere or None,
    )
    # With an id of its own the operation can be asked for again when the answer is lost.
    details["request_id"] = details["request_id"] or new_request_id()
    asked = NewOperation(type=kind, payload=payload, target=target, **details)
    try:
        created = client.create_operation(asked)
    except Unreachable as error:
        if not error.sent:
            raise
        hint = f"the operation may exist: ask again with --request-id {asked.request_id}"
        raise Stop(Exit.UNREACHABLE, f"{error}; {hint}") from error
    _finish(wishes, client, created)


def _limit(written: str | None) -> int | str | None:
    return int(written) if written and written.isascii() and written.isdigit() else written


def _finish(
    wishes: Wishes, client: Client, shown: Operation, over: op_watching.Over = _final
) -> None:
    """Print the operation, after having waited for its end if that was asked for."""
    waits = wishes.wait or wishes.wait_timeout is not None
    if waits:
        shown = op_watching.follow(client, shown, wishes.wait_timeout, over)
        if not wishes.json:
            op_watching.tell_failures(client, shown)
    _print(wishes, client, shown)
    if waits:
        click.get_current_context().exit(op_watching.exit_of(shown, over))


def _failures(shown: Operation) -> str | None:
    if shown.max_failures is None:
        return None
    return f"{shown.max_failures} failed nodes ({shown.failures} so far)"


def _print(wishes: Wishes, client: Client, shown: Operation) -> None:
    if wishes.json:
        output.print_json(client.last_data)
        return
    output.print_fields(
        [
            ("id", shown.id),
            ("type", shown.type),
            ("state", shown.state),
            ("reason", shown.reason),
            ("nodes", shown.total),
            *((name, number) for name, number in shown.counts.items() if number),
            ("at once", shown.max_concurrency),
            ("stops at", _failures(shown)),
            ("request id", shown.request_id),
            ("target", output.shortened(bytes(shown.target))),
            ("payload", output.shortened(bytes(shown.payload))),
            ("by", shown.created_by),
            ("created", shown.created_at),
            ("finished", shown.finished_at),
        ]
    )
