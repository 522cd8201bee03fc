"""The control plane's settings: defaults, bounds, and one line for what cannot be used."""

import stat
from pathlib import Path

import pytest

from edgeplane.dsn import Tls
from edgeplane.environ import Environ, ListenAddress, SettingError
from edgeplane.settings import (
    DispatchSettings,
    RedisSettings,
    RetentionSettings,
    load,
    warnings,
)


@pytest.fixture
def environment(tmp_path):
    """Return a function that loads settings from a few names, with a state folder of its own."""

    def loaded(**values):
        return load(Environ({"EDGEPLANE_STATE_DIR": str(tmp_path / "state"), **values}))

    return loaded


def test_the_defaults_need_nothing_set(environment, tmp_path):
    """With nothing set: SQLite in the state folder, migrated at start, no Redis, made secrets."""
    settings = environment()
    assert settings.database.path == tmp_path / "state" / "edgeplane.db"
    assert settings.database.url_parts is None
    assert settings.migrate is True
    assert settings.redis is None
    assert settings.listen == ListenAddress("", 8080)
    assert (settings.auth.expire_minutes, settings.auth.issuer) == (1440, "edgeplane")
    assert settings.auth.admin_password is None
    assert settings.crash_at is None
    assert settings.dispatch == DispatchSettings()
    assert settings.retention == RetentionSettings(success_days=30, failed_days=90)
    assert settings.metrics_token is None
    assert warnings(settings) == []


def test_made_secrets_are_kept_private(environment):
    """A secret that is not set is made once, kept with mode 0600, and the same ever after."""
    first, second = environment(), environment()
    for before, after in (
        (first.auth.jwt_secret, second.auth.jwt_secret),
        (first.agent.token, second.agent.token),
    ):
        assert before.value == after.value
        assert len(before.value) >= 32
        assert stat.S_IMODE(Path(before.source).stat().st_mode) == 0o600
    assert first.auth.jwt_secret.value != first.agent.token.value


def test_no_secret_is_in_the_repr(environment):
    """The repr of all settings, which may meet a log, holds no secret."""
    settings = environment(
        JWT_SECRET="s3cret-of-jwt",
        AGENT_TOKEN="s3cret-of-agent",
        ADMIN_PASSWORD="s3cret-of-admin",
        METRICS_TOKEN="s3cret-of-metrics",
        REDIS_ADDR="127.0.0.1:6379",
        REDIS_PASS="s3cret-of-redis",
        MYSQL_DSN="root:s3cret-of-mysql@tcp(db)/x?password=s3cret",
    )
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in " ".join(warnings(settings))


def test_a_dsn_chooses_mysql_and_leaves_migration_to_a_person(environment):
    """With MYSQL_DSN there is no file, and MIGRATE is off until it is set."""
    dsn = "u:long-enough-for-anyone@tcp(db:3307)/cmdb?tls=true"
    settings = environment(MYSQL_DSN=dsn)
    assert settings.database.path is None
    assert settings.database.url_parts.host == "db"
    assert settings.database.url_parts.tls is Tls.VERIFIED
    assert settings.migrate is False
    assert environment(MYSQL_DSN=dsn, MIGRATE="1").migrate is True


def test_redis_is_read(environment):
    """REDIS_ADDR, REDIS_PASS and REDIS_DB make one group."""
    settings = environment(REDIS_ADDR="[::1]:6380", REDIS_PASS="word", REDIS_DB="3")
    assert settings.redis == RedisSettings(host="::1", port=6380, password="word", database=3)


def test_bounds_of_the_engine_are_read(environment):
    """The two limits of the engine have names in the environment."""
    settings = environment(
        EDGEPLANE_MAX_IN_FLIGHT="10", EDGEPLANE_MAX_PER_NODE="2", EDGEPLANE_PROBE_SECONDS="0"
    )
    assert (settings.dispatch.max_in_flight, settings.dispatch.max_per_node) == (10, 2)
    assert settings.dispatch.probe_seconds == 0


def test_a_lease_outlives_two_failed_renewals():
    """The defaults fit together: two renewals may fail before a lease lapses."""
    dispatch = DispatchSettings()
    assert 3 * dispatch.renew_seconds < dispatch.lease_seconds < 15


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MYSQL_DSN", "mysql://root@db/x"),
        ("REDIS_ADDR", "redis://db"),
        ("REDIS_ADDR", "db"),
        ("REDIS_ADDR", ":6379"),
        ("REDIS_ADDR", "::1:6379"),
        ("REDIS_ADDR", "db:0"),
        ("REDIS_DB", "-1"),
        ("JWT_EXPIRE_MINUTES", "0"),
        ("JWT_EXPIRE_MINUTES", "525601"),
        ("JWT_EXPIRE_MINUTES", "a day"),
        ("ADMIN_PASSWORD", "short"),
        ("ADMIN_PASSWORD", "long" * 65),
        ("HTTP_ADDR", "8080"),
        ("MIGRATE", "maybe"),
        ("EDGEPLANE_MAX_IN_FLIGHT", "0"),
        ("EDGEPLANE_MAX_PER_NODE", "many"),
        ("EDGEPLANE_PROBE_SECONDS", "3601"),
        ("EDGEPLANE_STATE_DIR", "/proc/1/nowhere"),
    ],
)
def test_a_malformed_setting_is_one_line_that_names_it(environment, name, value):
    """Every setting that cannot be used stops the start with its own name first."""
    with pytest.raises(SettingError) as caught:
        environment(**{name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    if name == "ADMIN_PASSWORD":
        assert value not in str(caught.value)


def test_short_passwords_of_servers_start_with_a_warning(environment):
    """One that travels to the database or Redis can be guessed like any other."""
    short = environment(REDIS_ADDR="a:1", REDIS_PASS="abc", MYSQL_DSN="root:x@tcp(db)/cmdb")
    assert [line.split(" is ")[0] for line in warnings(short)] == [
        "REDIS_PASS",
        "MYSQL_DSN: its password",
    ]
    assert warnings(environment(MYSQL_DSN="root@unix(/run/mysqld.sock)/cmdb")) == []


def test_weak_secrets_start_with_a_warning_each(environment):
    """The published examples start, and each has a line that names its setting."""
    settings = environment(
        JWT_SECRET="your-secret-key",
        AGENT_TOKEN="test-agent-token",
        ADMIN_PASSWORD="admin123",
        REDIS_ADDR="127.0.0.1:6379",
        REDIS_PASS="password",
        MYSQL_DSN="root:password@tcp(db)/cmdb?timeout=1s&tls=skip-verify",
    )
    lines = warnings(settings)
    starts = ["JWT_SECRET", "AGENT_TOKEN", "ADMIN_PASSWORD", "REDIS_PASS", *["MYSQL_DSN"] * 3]
    assert [line.split()[0].rstrip(":") for line in lines] == starts
    assert "timeout" in lines[-1]


def test_what_is_finished_is_kept_for_so_many_days(environment):
    """0 is for ever; a number that cannot be stops the start."""
    kept = environment(EDGEPLANE_KEEP_SUCCESS_DAYS="0", EDGEPLANE_KEEP_FAILED_DAYS="7").retention
    assert kept == RetentionSettings(success_days=0, failed_days=7)
    for wrong in ("-1", "36501", "a week"):
        with pytest.raises(SettingError, match="EDGEPLANE_KEEP_FAILED_DAYS"):
            environment(EDGEPLANE_KEEP_FAILED_DAYS=wrong)


def test_the_token_for_metrics_can_travel_in_a_header(environment):
    """One that could not would lock everybody out; a short one starts with a warning."""
    for wrong in ("with a blank", "t\u00f6ken", "line\nline"):
        with pytest.raises(SettingError, match="METRICS_TOKEN: must be printable"):
            environment(METRICS_TOKEN=wrong)
    (line,) = warnings(environment(METRICS_TOKEN="short"))
    assert line.startswith("METRICS_TOKEN is shorter")
    assert warnings(environment(METRICS_TOKEN="x" * 40)) == []
