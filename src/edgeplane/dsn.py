"""The database's address in the form the seed's drivers use: a DSN, read into its parts.

What is wrong with one is a line that names the setting; nothing of what was written is repeated.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote_plus

from edgeplane.environ import SettingError

_DSN_FORM = "user:password@tcp(host:3306)/database?charset=utf8mb4"
_DSN = re.compile(
    # Greedy on purpose: the last slash ends the address, and the last @ before it the password.
    r"(?:(?P<login>.*)@)?(?P<net>[a-z]*)(?:\((?P<address>[^@]*)\))?/(?P<database>[^/?]*)"
    r"(?:\?(?P<params>[^/]*))?",
    re.DOTALL,
)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65535
_DEFAULT_MYSQL_PORT = 3306
_UNDERSTOOD = frozenset({"charset", "collation", "parseTime", "loc", "tls"})


class Tls(StrEnum):
    """How the connection to the database is protected; the words are the DSN's."""

    OFF = "false"
    VERIFIED = "true"  #: encrypted, and the server's certificate is checked
    UNVERIFIED = "skip-verify"  #: encrypted, to whoever answers


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlParts:
    """What a ``MYSQL_DSN`` says."""

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    unix_socket: str | None
    """Path of the socket; where it is set, host and port are not used."""
    database: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Parameters as they were written, percent-decoded."""
    tls: Tls = Tls.OFF
    ignored: tuple[str, ...] = ()
    """Names of parameters that have no meaning here."""


def read_dsn(written: str) -> MysqlParts:
    """Read a DSN of the Go form: ``user:password@tcp(host:3306)/database?name=value``.

    The password may contain anything: what ends it is the last ``@`` before the last ``/``. Only
    the parameters' values are percent-decoded.

    Raises:
        SettingError: it has another form. Nothing of what was written is repeated.

    """
    found = _DSN.fullmatch(written)
    if found is None or not _is_text(written):
        raise _malformed("it has another form")
    if not found["database"]:
        raise _malformed("no database is named after the last /")
    user, _, password = (found["login"] or "").partition(":")
    host, port, unix_socket = _read_address(found["net"], found["address"])
    params = _read_params(found["params"] or "")
    return MysqlParts(
        user=user,
        password=password,
        host=host,
        port=port,
        unix_socket=unix_socket,
        database=found["database"],
        params=params,
        tls=_read_tls(dict(params)),
        ignored=tuple(name for name, _ in params if name not in _UNDERSTOOD),
    )


def _read_address(net: str, address: str | None) -> tuple[str, int, str | None]:
    """Return host, port and socket path; without an address, this machine."""
    if net == "unix":
        if not address or not address.startswith("/"):
            raise _malformed("unix( ) needs the absolute path of a socket")
        return "localhost", _DEFAULT_MYSQL_PORT, address
    if net not in ({"tcp"} if address is not None else {"tcp", ""}):
        raise _malformed("the address must be tcp(host:port) or unix(/path)")
    place = read_host_port(address or "127.0.0.1", default_port=_DEFAULT_MYSQL_PORT)
    if place is None:
        raise _malformed("what is inside tcp( ) is not a host and a port")
    return *place, None


def read_host_port(written: str, default_port: int | None) -> tuple[str, int] | None:
    """Read ``name``, ``name:port``, ``[v6]``, ``[v6]:port`` or a bare v6; None for the rest."""
    if default_port is not None and _is_ipv6(written):
        return written, default_port
    host, colon, port = written.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = written, "" if default_port is None else str(default_port)
    bracketed = host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1])
    if not (bracketed or _HOST.fullmatch(host)) or not _PORT.fullmatch(port):
        return None
    if not 1 <= int(port) <= _MAX_PORT:
        return None
    return (host[1:-1] if bracketed else host), int(port)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_text(text: str) -> bool:
    """Whether a driver can send it: no lone surrogates, no NUL."""
    return "\x00" not in text and text.encode("utf-8", "replace").decode("utf-8") == text


def _read_params(written: str) -> tuple[tuple[str, str], ...]:
    pairs = (pair.partition("=") for pair in written.split("&") if pair)
    return tuple((name, unquote_plus(value)) for name, _, value in pairs)


def _read_tls(params: dict[str, str]) -> Tls:
    try:
        return Tls(params.get("tls", "false"))
    except ValueError:
        raise _malformed("tls must be true, skip-verify or false") from None


def _malformed(why: str) -> SettingError:
    return SettingError(f"MYSQL_DSN: must look like {_DSN_FORM}: {why}")
