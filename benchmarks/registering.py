"""Nodes stored past the API."""

import uvloop
from sqlalchemy import make_url

from edgeplane.model.nodes import NewNode, NodeStatus, NodeTransport
from edgeplane.store import mailboxes, node_health, nodes
from edgeplane.store.database import Database
from edgeplane.store.workers import Tx
from edgeplane.swarm.addresses import address_of, name_of


def register(url: str, count: int, port: int, transport: str = "push") -> list[int]:
    """Store a node for each agent of a swarm, with the tables there; return their ids."""
    return uvloop.run(_register(url, count, port, NodeTransport(transport)))


async def _register(url: str, count: int, port: int, transport: NodeTransport) -> list[int]:
    database = Database(make_url(url))

    def add(tx: Tx) -> list[int]:
        ids = []
        for number in range(1, count + 1):
            node = NewNode(
                name=name_of(number),
                main_ip=address_of(number),
                agent_port=port,
                enabled=True,
                status=NodeStatus.ONLINE,
                sub_ips=(),
                transport=transport,
            )
            ids.append(nodes.add(tx, node))
            mailboxes.add(tx, ids[-1])
            node_health.add(tx, ids[-1])
        return ids

    try:
        return await database.write(add)
    finally:
        await database.close()
