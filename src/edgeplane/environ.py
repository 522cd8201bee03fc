"""Reading settings from the environment and ``.env``, and keeping secrets in a state folder.

The real environment wins over the file; an empty value counts as unset. What is wrong with a value
is one line that names the setting and says what it should be.
"""

import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

MIN_SECRET_LENGTH = 16

_HEADER_TEXT = re.compile(r"[!-~]+")

#: Examples from documentation: whoever reads it knows them.
KNOWN_SECRETS = frozenset(
    {
        "your-secret-key",
        "test-agent-token",
        "default-agent-token",
        "admin123",
        "password",
        "changeme",
        "secret",
    }
)


class SettingError(Exception):
    """A setting that cannot be used; the message is one line for the person who set it."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a server listens; an empty host means every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        """Render it the way the setting is written: ``:8080``, ``[::1]:8080``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Environ:
    """The settings of one process, read by name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    @classmethod
    def load(cls, folder: Path | None = None) -> "Environ":
        """Join the ``.env`` of a folder (default: the working folder) and the real environment."""
        values = _read_file((folder or Path.cwd()) / ".env")
        return cls({**values, **{name: value for name, value in os.environ.items() if value}})

    def text(self, name: str, default: str = "") -> str:
        """Return a setting as it is written."""
        return self._values.get(name) or default

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number within bounds.

        Raises:
            SettingError: it is no number, or out of bounds.

        """
        written = self.text(name)
        if not written:
            return default
        wanted = f"{name}: must be a whole number from {least} to {most}, not {written!r}"
        if not written.isascii() or not written.isdigit() or len(written) > 18:  # noqa: PLR2004
            raise SettingError(wanted)
        value = int(written)
        if not least <= value <= most:
            raise SettingError(wanted)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return 1/true/yes/on or 0/false/no/off.

        Raises:
            SettingError: it is something else.

        """
        written = self.text(name).lower()
        if not written:
            return default
        if written in {"1", "true", "yes", "on"}:
            return True
        if written in {"0", "false", "no", "off"}:
            return False
        raise SettingError(f"{name}: must be 1 or 0, not {self.text(name)!r}")

    def listen(self, name: str, default: str) -> ListenAddress:
        """Return an address to listen on: ``:8080``, ``127.0.0.1:8080`` or ``[::1]:8080``.

        Raises:
            SettingError: it is none of these.

        """
        return read_listen_address(name, self.text(name, default))

    def path(self, name: str, default: Callable[[], Path]) -> Path:
        """Return where a state folder is or would be; nothing is made.

        Raises:
            SettingError: nobody can tell.

        """
        written = self.text(name)
        try:
            return (Path(written).expanduser() if written else default()).absolute()
        except RuntimeError as error:  # whose home it is, nobody can tell
            raise SettingError(f"{name}: must be an absolute path: {error}") from error

    def folder(self, name: str, default: Callable[[], Path]) -> Path:
        """Return a state folder, made with mode 0700 where it is not there yet.

        Raises:
            SettingError: it cannot be made or written.

        """
        path = self.path(name, default)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:
            raise SettingError(f"{name}: {path} is not a folder") from error
        except OSError as error:
            raise SettingError(f"{name}: {path} cannot be made: {error.strerror}") from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise SettingError(f"{name}: {path} is not writable by this user")
        return path


def _read_file(file: Path) -> dict[str, str]:
    """Read a ``.env`` as it is written: nothing is expanded, and no line is passed over."""
    found: dict[str, str] = {}
    try:
        if not file.is_file():
            return found
        with file.open(encoding="utf-8") as lines:
            for binding in parse_stream(lines):
                if binding.error or (binding.key is not None and binding.value is None):
                    written = binding.original
                    blank = len(written.string) - len(written.string.lstrip("\r\n"))
                    line = written.line + written.string[:blank].count("\n")
                    raise SettingError(f"{file}, line {line}: must look like NAME=value")
                if binding.key is not None and binding.value is not None:
                    found[binding.key] = binding.value
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: cannot be read: {error}") from error
    return found


def read_listen_address(name: str, written: str) -> ListenAddress:
    """Read ``[host]:port``; raise SettingError with the setting's name."""
    host, colon, port = written.rpartition(":")
    wanted = f"{name}: must look like :8080, 127.0.0.1:8080 or [::1]:8080, not {written!r}"
    most = 65535
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > most:
        raise SettingError(wanted)
    if host.startswith("[") and host.endswith("]"):
        return ListenAddress(host[1:-1], int(port))
    if ":" in host or "/" in host or any(char.isspace() for char in host):
        raise SettingError(wanted)
    return ListenAddress(host, int(port))


def default_state_folder(name: str) -> Path:
    """Return where a daemon keeps its state: below /var/lib for root, else in the home."""
    if os.geteuid() == 0:
        return Path("/var/lib") / name
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / name


def openness(folder: Path) -> str | None:
    """Say in one line that others may change what lies in a state folder, if they may."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o022:
        return None
    return f"{folder} has mode {mode:04o}: others can put files into it; chmod 700 it"


def weakness(source: str, value: str) -> str | None:
    """Say in one line why a secret should be replaced, if it should."""
    if value in KNOWN_SECRETS:
        return f"{source} is a published example: anyone can know it; set your own"
    if len(value) < MIN_SECRET_LENGTH:
        return f"{source} is shorter than {MIN_SECRET_LENGTH} characters; set a longer one"
    return None


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and where it came from; its text appears in no repr and no log."""

    value: str
    source: str  #: the setting's name, or the file it is kept in

    def __repr__(self) -> str:
        """Say where it lies, never what it is."""
        return f"Secret(from {self.source})"

    @property
    def weakness(self) -> str | None:
        """Say in one line why this secret should be replaced, if it should."""
        return weakness(self.source, self.value)


def keep_token(environ: Environ, name: str, folder: Path) -> Secret:
    """Return a secret that travels in an HTTP header; see ``keep_secret``.

    Raises:
        SettingError: as there, or it has characters that a header cannot carry unchanged.

    """
    found = keep_secret(environ, name, folder)
    check_token(found.source, found.value)
    return found


def check_token(source: str, value: str) -> None:
    """Raise SettingError where a secret has characters that a header cannot carry unchanged."""
    if not _HEADER_TEXT.fullmatch(value):
        raise SettingError(
            f"{source}: must be printable ASCII without blanks: it travels in an HTTP header"
        )


def keep_secret(environ: Environ, name: str, folder: Path) -> Secret:
    """Return a secret from the environment, or the one kept in ``folder``, made at first need.

    The file is named like the setting, in small letters, mode 0600.

    Raises:
        SettingError: the file cannot be read or written.

    """
    given = environ.text(name)
    if given:
        return Secret(given, name)
    path = folder / name.lower()
    try:
        return Secret(_read_or_make(path), str(path))
    except OSError as error:
        raise SettingError(f"{name}: {path} cannot be kept: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{name}: {path} is not text: remove it to have one made") from error


def _read_or_make(path: Path) -> str:
    if path.exists():
        kept = path.read_text(encoding="utf-8").strip()
        if kept:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
            return kept
    value = secrets.token_urlsafe(32)
    write_private(path, value + "\n")
    return value


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner may read, whole or not at all, and on disk when this returns."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
