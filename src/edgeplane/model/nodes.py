"""Nodes: the edge machines, and the addresses a task may be sent to."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from edgeplane.model.errors import Invalid, Missing, NotAllowed

DEFAULT_AGENT_PORT = 9090
MAX_NAME_LENGTH = 128
MAX_SUB_IPS = 64


class NodeStatus(StrEnum):
    """What was last stated or observed of a node (``model.health`` has the rule)."""

    ONLINE = "online"
    OFFLINE = "offline"
    MAINTENANCE = "maintenance"  #: a person's word: no observation replaces it


class NodeTransport(StrEnum):
    """How tasks get to a node."""

    PUSH = "push"  #: the control plane calls the agent at the node's addresses
    SYNC = "sync"  #: the agent calls the control plane, and is handed them there


@dataclass(frozen=True, slots=True, kw_only=True)
class SubIP:
    """A further address of a node."""

    ip: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A row of ``nodes`` with its sub-IPs."""

    id: int
    name: str
    main_ip: str
    agent_port: int
    enabled: bool
    status: NodeStatus
    sub_ips: tuple[SubIP, ...]
    created_at: datetime
    updated_at: datetime
    transport: NodeTransport = NodeTransport.PUSH
    #: Empty where the engine looks: it has no use for them.
    labels: Mapping[str, str] = field(default_factory=dict)
    last_seen_at: datetime | None = None  #: when it last gave a good answer; None: never
    last_health_error: str | None = None  #: what is wrong with it; None: nothing that is known

    @property
    def paused(self) -> bool:
        """Whether nothing is to be sent to it."""
        return not self.enabled or self.status is NodeStatus.MAINTENANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """A node as asked for."""

    name: str
    main_ip: str
    agent_port: int
    enabled: bool
    status: NodeStatus
    sub_ips: tuple[SubIP, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    transport: NodeTransport = NodeTransport.PUSH


def check_ip(value: str, field: str) -> str:
    """Return an IP literal in its usual spelling; refuse names, zones and what no node can have.

    Raises:
        Invalid: not an IPv4 or IPv6 literal.
        NotAllowed: an address that is no machine's own (unspecified, multicast, broadcast).

    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise Invalid(f"{field}: must be an IPv4 or IPv6 address, not a name or URL") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise Invalid(f"{field}: an address with a zone is not supported")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise NotAllowed(f"{field}: {address} is not the address of a machine")
    return str(address)


def check_name(value: str) -> str:
    """Return a node's name without outer blanks; refuse an empty, long or unprintable one."""
    name = value.strip()
    if not name:
        raise Missing("name: must not be empty")
    if len(name) > MAX_NAME_LENGTH:
        raise NotAllowed(f"name: at most {MAX_NAME_LENGTH} characters")
    if not name.isprintable():
        raise Invalid("name: must be printable text on one line")
    return name


def check_sub_ips(values: list[tuple[str, bool]]) -> tuple[SubIP, ...]:
    """Return checked sub-IPs; refuse too many and the same one twice."""
    if len(values) > MAX_SUB_IPS:
        raise NotAllowed(f"subIPs: at most {MAX_SUB_IPS} entries")
    checked: dict[str, SubIP] = {}
    for index, (value, enabled) in enumerate(values):
        ip = check_ip(value, f"subIPs[{index}].ip")
        if ip in checked:
            raise Invalid(f"subIPs[{index}].ip: duplicate sub IP: {ip}")
        checked[ip] = SubIP(ip=ip, enabled=enabled)
    return tuple(checked.values())
