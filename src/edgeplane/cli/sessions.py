"""Who the command line is: the saved session, or what the environment says.

A saved token goes only to the address it was issued by. Where there are two, the one counts that a
person asked for last: by ``edgeplane login``, or by starting ``edgeplane up``. Nothing here reads
``.env``: a file that lies in some folder must not choose where credentials are sent.
"""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.options import Wishes
from edgeplane.client.errors import ClientError, Unreachable
from edgeplane.client.rest import Client
from edgeplane.environ import write_private

DEFAULT_URL = "http://127.0.0.1:8080"
#: Where ``edgeplane up`` leaves a session for whoever works in the same folder.
LOCAL_FILE = Path(".state") / "session.json"

_MAX_BYTES = 64 << 10


class Session(Struct, rename="camel", frozen=True, kw_only=True):
    """What ``edgeplane login`` keeps; ``since``: when a person asked for it."""

    url: str
    username: str
    token: str
    since: datetime = datetime.min.replace(tzinfo=UTC)

    def __repr__(self) -> str:
        """Say whose it is, never the token."""
        return f"Session({self.username} at {self.url})"


def config_file() -> Path:
    """Return where ``login`` saves: in EDGEPLANE_CONFIG_DIR, or the user's config folder."""
    chosen = os.environ.get("EDGEPLANE_CONFIG_DIR")
    if chosen:
        return Path(chosen).expanduser() / "session.json"
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "edgeplane" / "session.json"


def save(path: Path, session: Session) -> None:
    """Write a session, mode 0600; raise Stop where that is not possible."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, msgspec.json.encode(session).decode() + "\n")
    except OSError as error:
        raise Stop(Exit.FAILED, f"{path} cannot be written: {error.strerror}") from error


def connect(wishes: Wishes) -> Client:
    """Return a client that is logged in; raise Stop where nothing says who calls."""
    saved = _saved()
    url = open_client(wishes, saved[0][1].url if saved else DEFAULT_URL).base_url
    token = os.environ.get("EDGEPLANE_TOKEN")
    if token:
        return _client("EDGEPLANE_TOKEN", url, token, credential="EDGEPLANE_TOKEN")
    username, password = (os.environ.get(f"EDGEPLANE_{name}") for name in ("USERNAME", "PASSWORD"))
    if username and password:
        client = Client(url, credential=f"user {username}, EDGEPLANE_PASSWORD")
        client.login(username, password)
        return client
    for path, session in saved:
        if session.url == url:
            whose = f"the session in {path}; log in anew with: edgeplane login --username NAME"
            return _client(str(path), url, session.token, credential=whose)
    raise _stranger(url)


def open_client(
    wishes: Wishes, default: str = DEFAULT_URL, *, credential: str | None = None
) -> Client:
    """Make a client for the address that is asked for; raise Stop where it is none."""
    from_environment = os.environ.get("EDGEPLANE_URL")
    source = "--url" if wishes.url or not from_environment else "EDGEPLANE_URL"
    return _client(source, wishes.url or from_environment or default, credential=credential)


def _client(
    source: str, url: str, token: str | None = None, *, credential: str | None = None
) -> Client:
    try:
        return Client(url, token, credential=credential)
    except ValueError as error:
        raise Stop(Exit.USAGE, f"{source}: {error}") from error


def _stranger(url: str) -> Stop:
    """Say what to do where nobody is logged in: there may be nothing yet to log in at."""
    client = Client(url)
    try:
        client.ping()
    except Unreachable as error:
        hint = "; is edgeplane up running?" if url == DEFAULT_URL else ""
        return Stop(Exit.UNREACHABLE, f"{error}{hint}")
    except ClientError:
        pass  # somebody is there
    finally:
        client.close()
    return Stop(Exit.FORBIDDEN, f"not logged in at {url}: run edgeplane login")


def _saved() -> list[tuple[Path, Session]]:
    """Return the sessions there are, the latest first: a login's, and a running ``up``'s here."""
    paths = [config_file()]
    if not os.environ.get("EDGEPLANE_CONFIG_DIR"):
        paths.insert(0, LOCAL_FILE)
    found = [(path, session) for path in paths if (session := _read(path)) is not None]
    return sorted(found, key=lambda each: each[1].since, reverse=True)


def _read(path: Path) -> Session | None:
    """Read a session file; one that others may write or read is nobody's session."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            text = file.read(_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Stop(Exit.FORBIDDEN, f"{path} cannot be read: {error.strerror}") from error
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        click.echo(f"edgeplane: {path} is not yours alone (mode 0600): not used", err=True)
        return None
    try:
        return msgspec.json.decode(text, type=Session)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Stop(Exit.FORBIDDEN, f"{path} holds no session: run edgeplane login") from None
