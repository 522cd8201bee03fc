"""Create a node and a task, wait for its end, and print what became of it."""

import os
import sys

try:
    from msgspec import Raw

    from edgeplane.client.errors import ClientError
    from edgeplane.client.records import NewNode, NewTask
    from edgeplane.client.rest import Client
    from edgeplane.model.clock import new_request_id
except ModuleNotFoundError as missing:
    sys.exit(f"first_task: {sys.executable} has no {missing.name}: run it with .venv/bin/python")


def setting(name: str, default: str | None = None) -> str:
    """Return what the environment says."""
    value = os.environ.get(name) or default
    if value is None:
        sys.exit(f"first_task: {name} is not set; beside `make up`, see this example's README")
    return value


def main() -> int:
    """Return 0 where the task succeeded."""
    client = Client(setting("EDGEPLANE_URL", "http://127.0.0.1:8080"))
    user = client.login(setting("EDGEPLANE_USERNAME"), setting("EDGEPLANE_PASSWORD")).user
    print(f"logged in as {user.username}")

    port = int(setting("AGENT_PORT", "9090"))
    node = client.find_node("example") or client.create_node(
        NewNode(name="example", main_ip="127.0.0.1", agent_port=port)
    )
    print(f"node {node.id}: {node.main_ip}, port {node.agent_port}")

    # An id of our own: if the answer were lost, the same call again would find the same task.
    asked = NewTask(
        node_id=node.id,
        type="apply_config",
        payload=Raw(b'{"vhost": "example.com", "upstream": ["192.168.1.1:80"]}'),
        request_id=new_request_id(),
    )
    task = client.create_task(asked)
    for seen in client.wait(task.id, timeout=60):
        print(f"task {seen.id}: {seen.status}, attempts {seen.attempts}")
        task = seen
    print(task.result or task.last_error)

    again = client.create_task(asked)
    print(f"asked again: task {again.id}, attempts {again.attempts}")
    client.close()
    return 0 if task.status == "success" else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ClientError, ValueError) as error:  # ValueError: an address or a port that is none
        sys.exit(f"first_task: {error}")
