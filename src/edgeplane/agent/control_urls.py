"""The control planes an agent connects out to, read from a setting."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from edgeplane.environ import SettingError

DEFAULT_PORT: Final = 8081
MAX_URLS: Final = 16

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")


@dataclass(frozen=True, slots=True)
class ControlUrl:
    """Where a control plane takes agents in."""

    host: str  #: a name or an address, an IPv6 one without brackets
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """Host and port, as an HTTP head names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        """Render it the way the setting is written."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def read_control_urls(setting: str, written: str) -> tuple[ControlUrl, ...]:
    """Read URLs with commas between them; none where nothing is written.

    Raises:
        SettingError: one of them is malformed, or there are too many.

    """
    if not written:
        return ()
    urls = tuple(_read(setting, part.strip()) for part in written.split(","))
    if len(urls) > MAX_URLS:
        raise SettingError(f"{setting}: at most {MAX_URLS} control planes, not {len(urls)}")
    return urls


def _read(setting: str, written: str) -> ControlUrl:
    url = _url(written)
    if url is None:
        raise SettingError(
            f"{setting}: must look like https://control.example.com:8081 (http or https, a host, "
            f"a port or none for {DEFAULT_PORT}, nothing after it), not {_without_user(written)!r}"
        )
    return url


def _url(written: str) -> ControlUrl | None:
    try:
        parts = urlsplit(written)
        host, port = parts.hostname or "", parts.port
        if not _plain(written, parts) or not _is_host(parts, host) or port == 0:
            return None
    except ValueError:
        return None
    return ControlUrl(host, DEFAULT_PORT if port is None else port, parts.scheme == "https")


def _plain(written: str, parts: SplitResult) -> bool:
    """Say whether a URL is a scheme, a host and a port, and nothing else."""
    return (
        parts.scheme in {"http", "https"}
        and not parts.netloc.endswith(":")
        and not any(mark in written for mark in "@?#\\%")
        and parts.path in {"", "/"}
        and written.isascii()
        and written.isprintable()
    )


def _is_host(parts: SplitResult, host: str) -> bool:
    if "[" in parts.netloc:
        IPv6Address(host)
        return True
    return _HOST.fullmatch(host) is not None


def _without_user(written: str) -> str:
    """Leave out what may be a password: a refused setting is printed."""
    before, at, host = written.rpartition("@")
    return f"{before.partition('://')[0]}://...@{host}" if at else written
