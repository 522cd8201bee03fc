"""Telling a control plane of the swarm's agents: a node each, through its REST API."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edgeplane.client.errors import ApiError
from edgeplane.client.records import NewNode
from edgeplane.client.rest import Client
from edgeplane.model.errors import AlreadyExists
from edgeplane.swarm.addresses import address_of, name_of

SIDE_BY_SIDE: Final = 16


def register(count: int, url: str, token: str, port: int, transport: str) -> int:
    """Create the nodes of agents 1 to ``count``; return how many were not there before.

    Raises:
        ClientError: one of them could not be created; asked again, the rest is.
        ValueError: the address or the token is none.

    """
    Client(url, token).close()  # what is wrong with either is told before anything begins
    mine = threading.local()

    def create(number: int) -> bool:
        if not hasattr(mine, "client"):
            mine.client = Client(url, token)
        node = NewNode(
            name=name_of(number),
            main_ip=address_of(number),
            agent_port=port,
            transport=None if transport == "push" else transport,
        )
        try:
            mine.client.create_node(node)
        except ApiError as error:
            if error.status != AlreadyExists.status:
                raise
            return False
        return True

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        try:
            return sum(pool.map(create, range(1, count + 1)))
        finally:
            pool.shutdown(cancel_futures=True)
