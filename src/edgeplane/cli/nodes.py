"""``edgeplane node``: the edge machines."""

from typing import Any

import click
from click import Choice, IntRange

from edgeplane.cli import output, sessions
from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.options import Wishes, api_options, labels_option, pass_wishes
from edgeplane.client.records import NewNode, Node, NodeChanges, NodeFilter, SubIP
from edgeplane.client.rest import Client
from edgeplane.model.labels import write_labels
from edgeplane.model.nodes import DEFAULT_AGENT_PORT, NodeStatus, NodeTransport

_STATUSES = Choice([status.value for status in NodeStatus])
_STATUS_HELP = (
    "online, offline: whether its agent answers well, kept up to date by itself;"
    " maintenance: it is sent nothing and takes no new tasks, until a person ends it."
)
_TRANSPORTS = Choice([transport.value for transport in NodeTransport])
_TRANSPORT_HELP = (
    "push: the control plane calls the agent;"
    " sync: the agent, started with --control, calls the control plane."
)
_PORTS = IntRange(1, 65535)
_MAX_ID = 2**63 - 1


def node_id(client: Client, named: str) -> int:
    """Return the id of a node given by id or name: digits are an id.

    Raises:
        Stop: no node has that name.

    """
    if named.isascii() and named.isdigit():
        return min(int(named[:20]), _MAX_ID)
    found = client.find_node(named)
    if found is None:
        raise Stop(Exit.NOT_FOUND, f"no node is named {named!r}")
    return found.id


def _check_name(_: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Refuse what every other command would take for an id."""
    if name is not None and name.isascii() and name.isdigit():
        raise click.BadParameter("a name needs more than digits: those are an id", param=parameter)
    return name


@click.group()
def node() -> None:
    """List and change nodes."""


@node.command("list")
@click.option("--name", help="Only names that hold this text.")
@click.option("--ip", help="Only nodes with this address.")
@click.option("--status", type=_STATUSES)
@click.option("--enabled/--disabled", default=None, help="Only the one or the other.")
@click.option("--transport", type=_TRANSPORTS)
@click.option(
    "--label", multiple=True, metavar="KEY=VALUE", help="Only nodes with this; repeat for more."
)
@click.option("--page", type=IntRange(min=1), help="Which page, from 1.")
@click.option("--page-size", type=IntRange(1, 100), help="How many on a page; 20 if not given.")
@api_options
@pass_wishes
def list_nodes(wishes: Wishes, /, label: tuple[str, ...], **wanted: Any) -> None:
    """List nodes, newest first."""
    client = sessions.connect(wishes)
    page = client.list_nodes(NodeFilter(label=list(label) or None, **wanted))
    if wishes.json:
        output.print_json(client.last_data)
        return
    output.print_table(
        (
            *("ID", "NAME", "ADDRESS", "PORT", "STATUS", "ENABLED", "LABELS"),
            *("LAST SEEN", "HEALTH ERROR"),
        ),
        [
            (
                *(n.id, n.name, n.main_ip, n.agent_port, n.status, n.enabled),
                *(write_labels(n.labels), n.last_seen_at, n.last_health_error),
            )
            for n in page.list
        ],
    )
    if page.total > page.page * page.page_size:
        output.tell(f"{page.total} in all; more with --page {page.page + 1}")


@node.command("show")
@click.argument("named", metavar="ID|NAME")
@api_options
@pass_wishes
def show_node(wishes: Wishes, named: str) -> None:
    """Show one node."""
    client = sessions.connect(wishes)
    _print(wishes, client, client.get_node(node_id(client, named)))


@node.command("add")
@click.argument("name", callback=_check_name)
@click.argument("main_ip", metavar="IP")
@click.option("--port", "agent_port", type=_PORTS, default=DEFAULT_AGENT_PORT, show_default=True)
@click.option("--disabled", is_flag=True, help="Send it nothing yet.")
@click.option("--status", type=_STATUSES, help=_STATUS_HELP)
@click.option("--transport", type=_TRANSPORTS, help=_TRANSPORT_HELP)
@click.option("--sub-ip", "sub_ips", multiple=True, metavar="IP", help="A further address.")
@labels_option
@api_options
@pass_wishes
def add_node(
    wishes: Wishes,
    /,
    disabled: bool,
    sub_ips: tuple[str, ...],
    labels: dict[str, str],
    **facts: Any,
) -> None:
    """Add the node NAME, whose machine has the address IP."""
    client = sessions.connect(wishes)
    asked = NewNode(enabled=not disabled, sub_ips=_sub_ips(sub_ips), labels=labels or None, **facts)
    _print(wishes, client, client.create_node(asked))


@node.command("update")
@click.argument("named", metavar="ID|NAME")
@click.option("--name", callback=_check_name, help="Its new name.")
@click.option("--ip", "main_ip", metavar="IP")
@click.option("--port", "agent_port", type=_PORTS)
@click.option("--enable/--disable", "enabled", default=None, help="Send it tasks, or nothing.")
@click.option("--status", type=_STATUSES, help=_STATUS_HELP)
@click.option("--transport", type=_TRANSPORTS, help=_TRANSPORT_HELP)
@click.option("--sub-ip", "sub_ips", multiple=True, metavar="IP", help="Replaces all sub-IPs.")
@click.option("--no-sub-ips", is_flag=True, help="Remove all sub-IPs.")
@labels_option
@click.option("--unlabel", multiple=True, metavar="KEY", help="Take this label off.")
@api_options
@pass_wishes
def update_node(
    wishes: Wishes,
    /,
    named: str,
    sub_ips: tuple[str, ...],
    no_sub_ips: bool,
    labels: dict[str, str],
    unlabel: tuple[str, ...],
    **changes: Any,
) -> None:
    """Change a node; labels that are not named stay."""
    if sub_ips and no_sub_ips:
        raise click.UsageError("--sub-ip and --no-sub-ips exclude each other")
    asked = NodeChanges(sub_ips=[] if no_sub_ips else _sub_ips(sub_ips), **changes)
    if asked == NodeChanges() and not labels and not unlabel:
        raise click.UsageError("nothing to change is given")
    client = sessions.connect(wishes)
    which = node_id(client, named)
    if labels or unlabel:
        now = client.get_node(which).labels
        kept = {name: value for name, value in now.items() if name not in unlabel}
        asked.labels = {**kept, **labels}
    _print(wishes, client, client.update_node(which, asked))


node.add_command(update_node, "set")


@node.command("delete")
@click.argument("named", metavar="ID|NAME...", nargs=-1, required=True)
@api_options
@pass_wishes
def delete_node(wishes: Wishes, named: tuple[str, ...]) -> None:
    """Delete nodes that have no unfinished tasks."""
    client = sessions.connect(wishes)
    ids = {node_id(client, name) for name in named}
    count = client.delete_nodes(sorted(ids))
    if count < len(ids):
        line = f"deleted: {count}; not there: {len(ids) - count} of {len(ids)}"
        raise Stop(Exit.NOT_FOUND, line)
    if wishes.json:
        output.print_json(client.last_data)
    else:
        click.echo(f"deleted: {count}")


def _sub_ips(written: tuple[str, ...]) -> list[SubIP] | None:
    return [SubIP(ip) for ip in written] or None


def _print(wishes: Wishes, client: Client, shown: Node) -> None:
    if wishes.json:
        output.print_json(client.last_data)
        return
    subs = ", ".join(sub.ip if sub.enabled else f"{sub.ip} (disabled)" for sub in shown.sub_ips)
    output.print_fields(
        [
            ("id", shown.id),
            ("name", shown.name),
            ("address", shown.main_ip),
            ("agent port", shown.agent_port),
            ("enabled", shown.enabled),
            ("status", shown.status),
            ("transport", shown.transport),
            ("last seen", shown.last_seen_at),
            ("health error", shown.last_health_error),
            ("sub-IPs", subs),
            ("labels", write_labels(shown.labels)),
            ("created", shown.created_at),
            ("updated", shown.updated_at),
        ]
    )
