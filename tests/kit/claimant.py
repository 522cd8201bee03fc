"""A process that speaks for a node which is another's: it takes what is asked, and does nothing.

It has no journal and no executor; a real second agent would carry out again what the first has
done, and nobody could keep it from that.
"""

import http.client
import itertools
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import closing, suppress

from edgeplane.wire import SYNC_PATH
from kit.processes import AGENT_TOKEN

_PAUSE_SECONDS = 0.1


def claim(ports: Sequence[int], node: str, seconds: float) -> int:
    """Speak for a node for a while, at whichever control plane lets it.

    Return how often a control plane took it for the node's agent.
    """
    session, end, heard = secrets.token_hex(16), time.monotonic() + seconds, 0
    turns = itertools.cycle(ports)
    exchange = 0
    while (left := end - time.monotonic()) > 0:
        connection = http.client.HTTPConnection("127.0.0.1", next(turns), timeout=left)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            while (left := end - time.monotonic()) > 0:
                exchange += 1
                if connection.sock is not None:
                    connection.sock.settimeout(left)
                if not _exchange(connection, node, session, exchange):
                    break
                heard += 1
        time.sleep(min(_PAUSE_SECONDS, max(0.0, end - time.monotonic())))
    return heard


def _exchange(connection: http.client.HTTPConnection, node: str, session: str, number: int) -> bool:
    """Make one exchange; say whether it brought a reply."""
    body = {"node": node, "session": session, "exchange": number, "version": "claimant"}
    headers = {"Authorization": f"Bearer {AGENT_TOKEN}"}
    connection.request("POST", SYNC_PATH, json.dumps(body), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status == http.client.OK
