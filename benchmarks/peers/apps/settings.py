"""What every peer is told, and the one thing each has to do: post a task to its agent."""

import os
import uuid

DATABASE = os.environ["PEERS_DATABASE"]  #: user:password@host:port/name
REDIS = os.environ["PEERS_REDIS"]
AGENT_PORT = os.environ["PEERS_AGENT_PORT"]
#: Whether the job calls an agent, or does nothing at all.
CALLS = os.environ["PEERS_JOB"] == "agent"
SECRET = os.environ["PEERS_SECRET"]

AGENTS = 64
HEADERS = {"Authorization": f"Bearer {os.environ['PEERS_AGENT_TOKEN']}"}


def url_of(number: int) -> str:
    """Return where a task goes: to one of the agents in turn."""
    return f"http://127.1.0.{1 + number % AGENTS}:{AGENT_PORT}/agent/v1/tasks/execute"


def body_of(number: int, name: str | None = None) -> dict[str, object]:
    """Return what an agent is asked."""
    payload = {"urls": [f"https://www.example.com/images/{number}.jpg"]}
    return {"requestId": name or str(uuid.uuid4()), "type": "purge_cache", "payload": payload}


def message_of(answer: dict) -> str:
    """Return an agent's words, if it succeeded."""
    if answer["data"]["status"] != "success":
        raise RuntimeError(answer)
    return answer["data"]["message"]
