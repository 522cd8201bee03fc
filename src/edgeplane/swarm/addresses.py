"""Which loopback address an agent of the swarm has: 127.1.0.1, 127.1.0.2 and so on."""

from typing import Final

MAX_AGENTS: Final = 10_000

_PER_BLOCK: Final = 254  #: last octets 1 to 254


def address_of(number: int) -> str:
    """Return the address of an agent, counted from 1."""
    block, place = divmod(number - 1, _PER_BLOCK)
    return f"127.1.{block}.{place + 1}"


def name_of(number: int) -> str:
    """Return the name an agent's node is registered under."""
    return f"swarm-{number:05}"
