"""The control plane's settings: one frozen group per subject, read once at start and passed down.

Every name here is read from the environment or ``.env``. What is wrong with a value is one line
that names it; a password or a token is in no message and in no ``repr``.
"""

from dataclasses import dataclass, field
from pathlib import Path

from edgeplane import environ as environment
from edgeplane.dsn import MysqlParts, Tls, read_dsn, read_host_port
from edgeplane.environ import Environ, ListenAddress, Secret, SettingError
from edgeplane.model.users import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """Where the tables are: exactly one of the two is set."""

    url_parts: MysqlParts | None
    """MariaDB or MySQL, from ``MYSQL_DSN``."""
    path: Path | None
    """SQLite, ``edgeplane.db`` in the state folder: what a single machine needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The way hints pass between replicas; without it one process serves alone."""

    host: str
    port: int
    password: str | None = field(repr=False)
    database: int
    """``REDIS_DB``, default 0. Only channel names are used; nothing is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Login tokens and the first user."""

    jwt_secret: Secret
    """``JWT_SECRET``; made and kept in the state folder if not set. Replicas must share one."""
    expire_minutes: int
    """``JWT_EXPIRE_MINUTES``, 1 to 525600, default 1440: a person logs in once a day."""
    issuer: str
    """``JWT_ISSUER``, default ``edgeplane``: written into each token, and checked."""
    admin_password: str | None = field(repr=False)
    """``ADMIN_PASSWORD`` of the first user, 8 to 256 characters; None: one is made and shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What agents are called with."""

    token: Secret
    """``AGENT_TOKEN``: the bearer token every agent expects; made and kept if it is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSettings:
    """How the engine delivers."""

    max_in_flight: int = 512
    """``EDGEPLANE_MAX_IN_FLIGHT``: deliveries of this process at once, each with one connection."""
    max_per_node: int = 8
    """``EDGEPLANE_MAX_PER_NODE``: requests to a node at once, of one config task or many purges."""
    probe_seconds: int = 30
    """``EDGEPLANE_PROBE_SECONDS``: a node nobody has seen for so long is asked how it is; 0: never.
    Up to 80 s each probe finds the connection of the one before still open."""
    lease_seconds: float = 10.0
    """A dead owner's nodes are free after this long: below the 15 s a repair may take."""
    renew_seconds: float = 3.0
    """Leases are renewed this often: two renewals may fail before one lapses."""
    poll_seconds: float = 1.0
    """Due work is looked for this often when no hint comes: what a lost hint costs at most."""
    connect_timeout_seconds: float = 3.0
    """Longer than one lost SYN's repetition (1 s); a node that takes more counts as unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long what is finished is kept, in days; 0: for ever."""

    success_days: int
    """``EDGEPLANE_KEEP_SUCCESS_DAYS``, default 30: tasks that succeeded, with their attempts."""
    failed_days: int
    """``EDGEPLANE_KEEP_FAILED_DAYS``, default 90: longer, because somebody may yet ask why."""
    event_days: int = 7
    """``EDGEPLANE_KEEP_EVENT_DAYS``, default 7: a follower may be away for a week-end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them."""

    state_dir: Path
    """``EDGEPLANE_STATE_DIR``: secrets and, with SQLite, the tables. Mode 0700."""
    listen: ListenAddress
    """``HTTP_ADDR``, default ``:8080``."""
    sync_listen: ListenAddress | None
    """``SYNC_HTTP_ADDR``: where agents that connect out are taken in, ``:8081`` say; None, the
    default: nowhere. No port is open that nobody needs."""
    migrate: bool
    """``MIGRATE``: bring the tables up to date at start. Default: yes for SQLite, whose file is
    this process's own; no for a shared database, where a person says when."""
    crash_at: str | None
    """``EDGEPLANE_CRASH_AT``: for tests, where to be killed."""
    database: DatabaseSettings
    redis: RedisSettings | None
    auth: AuthSettings
    agent: AgentSettings
    dispatch: DispatchSettings
    retention: RetentionSettings
    metrics_token: str | None = field(repr=False)
    """``METRICS_TOKEN``: bearer token for ``GET /metrics``; None: this machine alone may look."""


def load(environ: Environ) -> Settings:
    """Read every setting; make the state folder and the secrets that are missing.

    Raises:
        SettingError: one line, naming the first setting that cannot be used.

    """
    state_dir = environ.folder(
        "EDGEPLANE_STATE_DIR", lambda: environment.default_state_folder("edgeplane")
    )
    database = _database(environ, state_dir)
    return Settings(
        listen=environ.listen("HTTP_ADDR", ":8080"),
        sync_listen=_sync_listen(environ),
        migrate=environ.flag("MIGRATE", default=database.path is not None),
        crash_at=environ.text("EDGEPLANE_CRASH_AT") or None,
        state_dir=state_dir,
        database=database,
        redis=_redis(environ),
        dispatch=_dispatch(environ),
        retention=_retention(environ),
        metrics_token=_metrics_token(environ),
        auth=_auth(environ, state_dir),
        agent=AgentSettings(token=environment.keep_token(environ, "AGENT_TOKEN", state_dir)),
    )


def _sync_listen(environ: Environ) -> ListenAddress | None:
    written = environ.text("SYNC_HTTP_ADDR")
    return environ.listen("SYNC_HTTP_ADDR", written) if written else None


def warnings(settings: Settings) -> list[str]:
    """Say, a line each, what starts but should not stay as it is."""
    lines = [settings.auth.jwt_secret.weakness, settings.agent.token.weakness]
    if settings.auth.admin_password in environment.KNOWN_SECRETS:
        lines.append("ADMIN_PASSWORD is a published example: anyone can know it; set your own")
    if settings.redis is not None and settings.redis.password:
        lines.append(environment.weakness("REDIS_PASS", settings.redis.password))
    if settings.metrics_token is not None:
        lines.append(environment.weakness("METRICS_TOKEN", settings.metrics_token))
    lines += _database_warnings(settings.database.url_parts)
    return [line for line in lines if line is not None]


def _database_warnings(parts: MysqlParts | None) -> list[str | None]:
    if parts is None:
        return []
    lines: list[str | None] = []
    if parts.unix_socket is None:  # a socket's user may be known without a password
        lines.append(environment.weakness("MYSQL_DSN: its password", parts.password))
    if parts.tls is Tls.UNVERIFIED:
        lines.append("MYSQL_DSN says tls=skip-verify: nobody checks who answers as the database")
    if parts.ignored:
        lines.append(f"MYSQL_DSN: parameters without effect: {', '.join(parts.ignored)}")
    return lines


def _auth(environ: Environ, state_dir: Path) -> AuthSettings:
    password = environ.text("ADMIN_PASSWORD") or None
    if password and not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise SettingError(
            f"ADMIN_PASSWORD: must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters,"
            f" not {len(password)}"
        )
    return AuthSettings(
        expire_minutes=environ.integer("JWT_EXPIRE_MINUTES", 1440, least=1, most=525_600),
        issuer=environ.text("JWT_ISSUER", "edgeplane"),
        admin_password=password,
        jwt_secret=environment.keep_secret(environ, "JWT_SECRET", state_dir),
    )


def _dispatch(environ: Environ) -> DispatchSettings:
    return DispatchSettings(
        max_in_flight=environ.integer("EDGEPLANE_MAX_IN_FLIGHT", 512, least=1, most=65_536),
        max_per_node=environ.integer("EDGEPLANE_MAX_PER_NODE", 8, least=1, most=1024),
        probe_seconds=environ.integer("EDGEPLANE_PROBE_SECONDS", 30, least=0, most=3600),
    )


def _metrics_token(environ: Environ) -> str | None:
    token = environ.text("METRICS_TOKEN") or None
    if token is not None:
        environment.check_token("METRICS_TOKEN", token)
    return token


def _retention(environ: Environ) -> RetentionSettings:
    return RetentionSettings(
        success_days=environ.integer("EDGEPLANE_KEEP_SUCCESS_DAYS", 30, least=0, most=36_500),
        failed_days=environ.integer("EDGEPLANE_KEEP_FAILED_DAYS", 90, least=0, most=36_500),
        event_days=environ.integer("EDGEPLANE_KEEP_EVENT_DAYS", 7, least=0, most=36_500),
    )


def _redis(environ: Environ) -> RedisSettings | None:
    written = environ.text("REDIS_ADDR")
    database = environ.integer("REDIS_DB", 0, least=0, most=65_535)
    if not written:
        return None
    place = read_host_port(written, default_port=None)
    if place is None:
        raise SettingError("REDIS_ADDR: must look like 127.0.0.1:6379, redis:6379 or [::1]:6379")
    host, port = place
    password = environ.text("REDIS_PASS") or None
    return RedisSettings(host=host, port=port, password=password, database=database)


def _database(environ: Environ, state_dir: Path) -> DatabaseSettings:
    written = environ.text("MYSQL_DSN")
    if not written:
        return DatabaseSettings(url_parts=None, path=state_dir / "edgeplane.db")
    return DatabaseSettings(url_parts=read_dsn(written), path=None)
