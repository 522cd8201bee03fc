"""Who the command line is: the saved session, or what the environment says.

A saved token goes only to the address it was issued by. Nothing here reads ``.env``: a file that
lies in some folder must not choose where credentials are sent.
"""

import os
import stat
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.options import Wishes
from edgeplane.client.rest import Client
from edgeplane.environ import write_private

DEFAULT_URL = "http://127.0.0.1:8080"
#: Where ``edgeplane up`` leaves a session for whoever works in the same folder.
LOCAL_FILE = Path(".state") / "session.json"

_MAX_BYTES = 64 << 10


class Session(Struct, rename="camel", frozen=True, kw_only=True):
    """What ``edgeplane login`` keeps."""

    url: str
    username: str
    token: str

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
    asked = wishes.url or os.environ.get("EDGEPLANE_URL")
    saved = _saved()
    client = open_client(asked or (saved[0].url if saved else DEFAULT_URL))
    token = os.environ.get("EDGEPLANE_TOKEN")
    username, password = (os.environ.get(f"EDGEPLANE_{name}") for name in ("USERNAME", "PASSWORD"))
    if token:
        return open_client(client.base_url, token)
    if username and password:
        client.login(username, password)
        return client
    for session in saved:
        if session.url == client.base_url:
            return open_client(session.url, session.token)
    raise Stop(Exit.FORBIDDEN, f"not logged in at {client.base_url}: run edgeplane login")


def open_client(url: str, token: str | None = None) -> Client:
    """Make a client; an address or token that is none is a matter of usage."""
    try:
        return Client(url, token)
    except ValueError as error:
        raise Stop(Exit.USAGE, f"--url or EDGEPLANE_TOKEN: {error}") from error


def _saved() -> list[Session]:
    """Return the sessions there are: a running ``up``'s in this folder, then the saved one."""
    paths = [config_file()]
    if not os.environ.get("EDGEPLANE_CONFIG_DIR"):
        paths.insert(0, LOCAL_FILE)
    return [session for session in map(_read, paths) if session is not None]


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
