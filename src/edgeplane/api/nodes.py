"""Nodes: list, look at, create, update, delete."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Meta, Struct, field

from edgeplane.api import parts
from edgeplane.api.documents import describe
from edgeplane.api.envelope import ok, ok_page
from edgeplane.api.parts import Operator, Paging, Reader
from edgeplane.model.clock import rfc3339
from edgeplane.model.errors import NotFound
from edgeplane.model.labels import (
    MAX_LABELS,
    NAME_PATTERN,
    VALUE_PATTERN,
    check_labels,
    read_label,
)
from edgeplane.model.nodes import (
    DEFAULT_AGENT_PORT,
    NewNode,
    Node,
    NodeStatus,
    NodeTransport,
    SubIP,
    check_ip,
    check_name,
    check_sub_ips,
)
from edgeplane.services import nodes as rules
from edgeplane.services.nodes import NodeChange
from edgeplane.store import nodes as rows
from edgeplane.store.nodes import NodeFilter

_MAX_ID = 2**63 - 1
_Status = Literal["online", "offline", "maintenance"]
_Transport = Literal["push", "sync"]
_Id = Annotated[int, Meta(ge=1, le=_MAX_ID)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_Labels = Annotated[
    dict[str, str],
    Meta(
        extra_json_schema={
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
            "additionalProperties": {"type": "string", "pattern": f"^{VALUE_PATTERN}$"},
        }
    ),
]


class SubIPView(Struct, forbid_unknown_fields=True):
    """A further address of a node."""

    ip: str
    enabled: bool = True


class CreateNode(Struct, rename="camel", forbid_unknown_fields=True):
    """A node to register."""

    name: str
    main_ip: str = field(name="mainIP")
    agent_port: _Port = DEFAULT_AGENT_PORT
    enabled: bool = True
    status: _Status = "offline"
    sub_ips: Annotated[list[SubIPView], Meta(max_length=64)] = field(
        name="subIPs", default_factory=list
    )
    labels: _Labels = field(default_factory=dict)
    transport: _Transport = "push"


class UpdateNode(Struct, rename="camel", forbid_unknown_fields=True):
    """What to change of a node; what is absent stays."""

    id: _Id
    name: str | None = None
    main_ip: str | None = field(name="mainIP", default=None)
    agent_port: _Port | None = None
    enabled: bool | None = None
    status: _Status | None = None
    sub_ips: Annotated[list[SubIPView], Meta(max_length=64)] | None = field(
        name="subIPs", default=None
    )
    labels: _Labels | None = None
    transport: _Transport | None = None


class DeleteNodes(Struct, forbid_unknown_fields=True):
    """Which nodes to delete."""

    ids: Annotated[list[_Id], Meta(min_length=1, max_length=1000)]


class DeletedView(Struct, rename="camel"):
    """How many were deleted."""

    deleted_count: int


class NodeView(Struct, rename="camel"):
    """A node."""

    id: int
    name: str
    main_ip: str = field(name="mainIP")
    agent_port: int
    enabled: bool
    status: _Status
    transport: _Transport
    sub_ips: list[SubIPView] = field(name="subIPs")
    labels: dict[str, str]
    last_seen_at: str | None
    last_health_error: str | None
    created_at: str
    updated_at: str


router = APIRouter(prefix="/nodes", dependencies=[Depends(parts.known_query)])
_create_body = parts.body_of(msgspec.json.Decoder(CreateNode))
_update_body = parts.body_of(msgspec.json.Decoder(UpdateNode))
_delete_body = parts.body_of(msgspec.json.Decoder(DeleteNodes))


def view(node: Node) -> NodeView:
    """Show a node."""
    return NodeView(
        id=node.id,
        name=node.name,
        main_ip=node.main_ip,
        agent_port=node.agent_port,
        enabled=node.enabled,
        status=node.status.value,
        transport=node.transport.value,
        sub_ips=[SubIPView(ip=sub.ip, enabled=sub.enabled) for sub in node.sub_ips],
        labels=dict(node.labels),
        last_seen_at=None if node.last_seen_at is None else rfc3339(node.last_seen_at),
        last_health_error=node.last_health_error,
        created_at=rfc3339(node.created_at),
        updated_at=rfc3339(node.updated_at),
    )


def _filter(
    name: Annotated[str | None, Query(max_length=128)] = None,
    ip: Annotated[str | None, Query(max_length=64)] = None,
    status: Annotated[NodeStatus | None, Query()] = None,
    enabled: Annotated[bool | None, Query()] = None,
    transport: Annotated[NodeTransport | None, Query()] = None,
    label: Annotated[list[str] | None, Query(max_length=MAX_LABELS)] = None,
) -> NodeFilter:
    labels = tuple(read_label(written) for written in label or ())
    return NodeFilter(
        name=name or None,
        ip=ip or None,
        status=status,
        enabled=enabled,
        transport=transport,
        labels=labels,
    )


@router.get("", openapi_extra=describe(listed=NodeView, errors="400 401 403"))
async def list_all(
    request: Request,
    _principal: Reader,
    asked: Paging,
    wanted: Annotated[NodeFilter, Depends(_filter)],
) -> Response:
    """List nodes, newest first; ``name`` and ``ip`` match parts, and every ``label`` must match."""
    database = parts.parts_of(request).database
    return ok_page(await database.read(lambda tx: rows.list_page(tx, wanted, asked)), view)


@router.get("/{node_id:id}", openapi_extra=describe(data=NodeView, errors="400 401 403 404"))
async def get_node(request: Request, _principal: Reader, node_id: str) -> Response:
    """Show a node."""
    wanted = parts.known_id(node_id, "node")
    node = await parts.parts_of(request).database.read(lambda tx: rows.get(tx, wanted))
    if node is None:
        raise NotFound(f"node {wanted} not found")
    return ok(view(node))


@router.post(
    "/create", openapi_extra=describe(data=NodeView, body=CreateNode, errors="400 401 403 409")
)
async def create_node(
    request: Request, _principal: Operator, asked: Annotated[CreateNode, Depends(_create_body)]
) -> Response:
    """Register a node."""
    node = NewNode(
        name=check_name(asked.name),
        main_ip=check_ip(asked.main_ip, "mainIP"),
        agent_port=asked.agent_port,
        enabled=asked.enabled,
        status=NodeStatus(asked.status),
        sub_ips=_sub_ips(asked.sub_ips),
        labels=check_labels(asked.labels),
        transport=NodeTransport(asked.transport),
    )
    return ok(view(await rules.create(parts.parts_of(request).database, node)))


@router.post(
    "/update",
    openapi_extra=describe(data=NodeView, body=UpdateNode, errors="400 401 403 404 409"),
)
async def update_node(
    request: Request, _principal: Operator, asked: Annotated[UpdateNode, Depends(_update_body)]
) -> Response:
    """Change a node; ``subIPs`` and ``labels``, if given, replace them all."""
    change = NodeChange(
        name=None if asked.name is None else check_name(asked.name),
        main_ip=None if asked.main_ip is None else check_ip(asked.main_ip, "mainIP"),
        agent_port=asked.agent_port,
        enabled=asked.enabled,
        status=None if asked.status is None else NodeStatus(asked.status),
        sub_ips=None if asked.sub_ips is None else _sub_ips(asked.sub_ips),
        labels=None if asked.labels is None else check_labels(asked.labels),
        transport=None if asked.transport is None else NodeTransport(asked.transport),
    )
    joined = parts.parts_of(request)
    node = await rules.update(joined.database, asked.id, change)
    joined.tell([node.id])
    return ok(view(node))


@router.post(
    "/delete", openapi_extra=describe(data=DeletedView, body=DeleteNodes, errors="400 401 403 409")
)
async def delete_nodes(
    request: Request, _principal: Operator, asked: Annotated[DeleteNodes, Depends(_delete_body)]
) -> Response:
    """Delete nodes that have no unfinished tasks."""
    return ok(DeletedView(await rules.delete(parts.parts_of(request).database, asked.ids)))


def _sub_ips(views: list[SubIPView]) -> tuple[SubIP, ...]:
    return check_sub_ips([(sub.ip, sub.enabled) for sub in views])
