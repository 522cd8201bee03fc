"""Which control planes agents of the swarm connect out to."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from edgeplane.environ import SettingError, check_token
from edgeplane.wire import SYNC_PATH

PORT: Final = 8081  #: where none is given


@dataclass(frozen=True, slots=True)
class Control:
    """The sync listener of one control plane."""

    address: str
    port: int
    head: bytes  #: of every request, up to the value of ``content-length``

    @property
    def on_loopback(self) -> bool:
        """Whether agents can call it from loopback addresses of their own."""
        return self.address.startswith("127.")


def find(setting: str, urls: str, token: str) -> tuple[Control, ...]:
    """Return the control planes of a list like ``http://10.0.0.1:8081,http://10.0.0.2:8081``.

    A name is looked up once, here.

    Raises:
        SettingError: one is none, or cannot be looked up; or the token cannot be sent.

    """
    check_token("AGENT_TOKEN", token)
    return tuple(_find(setting, url.strip(), token) for url in urls.split(","))


def _find(setting: str, url: str, token: str) -> Control:
    wanted = f"{setting}: must look like http://127.0.0.1:{PORT}, not {url!r}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        raise SettingError(wanted) from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "http" or not host or rest:
        raise SettingError(wanted)
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = (
        f"POST {SYNC_PATH} HTTP/1.1",
        f"host: {shown}",
        f"authorization: Bearer {token}",
        "content-type: application/json",
        "content-length: ",
    )
    return Control(_address(setting, host), port, "\r\n".join(lines).encode("ascii"))


def _address(setting: str, host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingError(f"{setting}: {host} cannot be looked up: {error}") from error
    return str(found[0][4][0])
