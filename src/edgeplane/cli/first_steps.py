"""What ``edgeplane up`` does through the API once both daemons run: log in, register the node."""

import urllib3

from edgeplane.cli import sessions
from edgeplane.cli.local import Keys, Place
from edgeplane.cli.sessions import Session
from edgeplane.client.errors import ApiError, ClientError
from edgeplane.client.records import Login, NewNode, Node, NodeChanges
from edgeplane.client.rest import Client
from edgeplane.model.nodes import NodeStatus
from edgeplane.wire import HEALTH_PATH

ADMIN = "admin"
NODE_NAME = "local"

_HEALTH_BYTES = 64 << 10


def control_is_ready(place: Place) -> bool:
    """Whether the control plane answers."""
    client = Client(place.control_url)
    try:
        client.ping()
    except ClientError:
        return False
    finally:
        client.close()
    return True


def agent_is_ready(place: Place, keys: Keys) -> bool:
    """Whether the agent answers to this token."""
    headers = {"Authorization": f"Bearer {keys.agent_token}"}
    with urllib3.PoolManager() as pool:
        try:
            answer = pool.request(
                "GET",
                place.agent_url + HEALTH_PATH,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=3.0,
                preload_content=False,
            )
            answer.read(_HEALTH_BYTES)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200  # noqa: PLR2004 - what HTTP calls it


def log_in(place: Place, keys: Keys) -> Login | None:
    """Log in and save the session; None where the kept password is no longer the admin's."""
    client = Client(place.control_url)
    try:
        login = client.login(ADMIN, keys.admin_password)
    except ApiError as error:
        if error.status not in {401, 403}:
            raise
        return None
    finally:
        client.close()
    session = Session(url=client.base_url, username=ADMIN, token=login.token, since=place.since)
    sessions.save(place.session_file, session)
    return login


def register(place: Place, token: str) -> Node:
    """Make this machine's node known, or its address right; its agent has just answered."""
    client = Client(place.control_url, token)
    try:
        known = client.find_node(NODE_NAME)
        port = place.agent.port
        if known is None:
            new = NewNode(
                name=NODE_NAME,
                main_ip=place.agent_ip,
                agent_port=port,
                status=NodeStatus.ONLINE.value,
            )
            return client.create_node(new)
        if (known.main_ip, known.agent_port) != (place.agent_ip, port):
            changes = NodeChanges(main_ip=place.agent_ip, agent_port=port)
            return client.update_node(known.id, changes)
        return known
    finally:
        client.close()
