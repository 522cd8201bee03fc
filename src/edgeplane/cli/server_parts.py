"""The one place where the command line reaches for the control plane's own parts.

They are loaded when a command needs them: an edge node installs the command line without them, and
``--help`` need not wait for them.
"""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

from edgeplane import settings as configuration
from edgeplane.cli.exits import Exit, Stop
from edgeplane.dsn import read_dsn
from edgeplane.environ import Environ, default_state_folder
from edgeplane.model.users import Role, User
from edgeplane.settings import DatabaseSettings, Settings

T = TypeVar("T")


class Bootstrap(Protocol):
    """``edgeplane.bootstrap``, as far as commands use it."""

    StartError: type[Exception]

    def serve(self, settings: Settings) -> int:
        """Serve until a signal comes."""

    def migrate(self, database: DatabaseSettings) -> int:
        """Bring the tables up to date; return how many there are."""

    def migrate_down(self, database: DatabaseSettings, revision: str) -> None:
        """Take the tables back to a revision."""

    def check_schema(self, database: DatabaseSettings) -> str | None:
        """Return None where the tables are current, else one line."""

    def with_store(self, database: DatabaseSettings, use: Callable[[Any], Awaitable[T]]) -> T:
        """Run something with the open store."""


class Users(Protocol):
    """``edgeplane.services.users``, as far as commands use it; all raise DomainError."""

    async def create(self, database: Any, username: str, password: str, role: Role) -> User:
        """Add a user."""

    async def list_all(self, database: Any) -> list[User]:
        """Return every user."""

    async def set_password(self, database: Any, username: str, password: str) -> Any:
        """Change a password."""

    async def set_role(self, database: Any, username: str, role: Role) -> Any:
        """Change a role."""

    async def set_active(self, database: Any, username: str, *, active: bool) -> Any:
        """Let in or lock out."""


def bootstrap() -> Bootstrap:
    """Load the control plane; raise Stop where its packages are not installed."""
    return cast("Bootstrap", _load("edgeplane.bootstrap"))


def users() -> Users:
    """Load the use cases of users; raise Stop where the packages are not installed."""
    return cast("Users", _load("edgeplane.services.users"))


def settings() -> Settings:
    """Read the control plane's settings, and make the folder and the secrets that are missing.

    Raises:
        SettingError: one of them cannot be used.

    """
    return configuration.load(Environ.load())


def database() -> DatabaseSettings:
    """Read where the tables are, and make nothing; raise SettingError where nobody can tell."""
    environ = Environ.load()
    written = environ.text("MYSQL_DSN")
    if written:
        return DatabaseSettings(url_parts=read_dsn(written), path=None)
    folder = environ.path("EDGEPLANE_STATE_DIR", lambda: default_state_folder("edgeplane"))
    return DatabaseSettings(url_parts=None, path=folder / "edgeplane.db")


def use_store(use: Callable[[Any], Awaitable[T]]) -> T:
    """Run something with the store these settings name."""
    parts = bootstrap()
    try:
        return parts.with_store(database(), use)
    except parts.StartError as error:
        raise Stop(Exit.FAILED, str(error)) from error


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "edgeplane":
            raise
        needed = (
            "this command needs the control plane: pip install '.[server]' in its source folder"
        )
        raise Stop(Exit.USAGE, needed) from error
