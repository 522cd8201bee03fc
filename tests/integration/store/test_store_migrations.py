"""The tables: made, checked, taken down and made again, on every dialect."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import inspect

from edgeplane.store import migrate
from edgeplane.store.database import make_engine
from edgeplane.store.migrate import SchemaError
from edgeplane.store.rows import metadata
from edgeplane.store.urls import URL, sqlite_url
from kit.factories import empty_mysql_url


@pytest.fixture(params=["sqlite", "mariadb"])
def empty(request, tmp_path):
    """Where no tables are yet."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "new.db")
    return empty_mysql_url(request.getfixturevalue("mysql_dsn"))


def tables(url):
    """Name the tables there are."""
    engine = make_engine(url)
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def test_tables_go_up_down_and_up_again(empty):
    """From nothing to the declared tables, back to nothing, and once more."""
    declared = set(metadata.tables)
    assert migrate.state(empty)[0] is None
    for _ in range(2):
        assert migrate.upgrade(empty) == len(declared)
        assert tables(empty) == declared | {"alembic_version"}
        found, needed = migrate.state(empty)
        assert found == needed
        migrate.check(empty)
        migrate.downgrade(empty, "base")
        assert tables(empty) <= {"alembic_version"}


def test_going_up_twice_changes_nothing(empty):
    """MIGRATE=1 at every start is safe."""
    migrate.upgrade(empty)
    assert migrate.upgrade(empty) == len(metadata.tables)


@pytest.mark.parametrize("last", ["nodes", "node_mailboxes", "agent_tasks"])
def test_a_migration_that_was_killed_goes_on(request, last):
    """MariaDB keeps what was made until then: the next one makes the rest, and all is there."""
    url = empty_mysql_url(request.getfixturevalue("mysql_dsn"))
    migrate.upgrade(url)
    names = ["nodes", "node_mailboxes", "agent_tasks", "task_attempts"]
    with make_engine(url).begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        if last == "agent_tasks":
            connection.exec_driver_sql(
                "DROP INDEX ix_agent_tasks_node_id_lane_lane_rank_id ON agent_tasks"
            )
        for name in names[names.index(last) + 1 :]:
            connection.exec_driver_sql(f"DROP TABLE {name}")
    assert migrate.upgrade(url) == len(metadata.tables)
    migrate.check(url)


def test_nodes_that_were_there_get_their_health(empty):
    """From the release of before: nothing is known of them, all are due; and again after a kill."""
    migrate.upgrade(empty)
    migrate.downgrade(empty, "0001")
    assert "node_health" not in tables(empty)
    with make_engine(empty).begin() as connection:
        for number in range(3):
            connection.exec_driver_sql(
                "INSERT INTO nodes (name, main_ip, agent_port, enabled, status, created_at,"
                f" updated_at) VALUES ('n{number}', '127.0.0.1', 1, 1, 'online',"
                " '2026-01-23 10:00:00.000', '2026-01-23 10:00:00.000')"
            )
    for _ in range(2):
        migrate.upgrade(empty)
        with make_engine(empty).begin() as connection:
            query = "SELECT n.id, h.failures, h.seen_at, h.check_at IS NOT NULL FROM nodes n"
            found = connection.exec_driver_sql(
                f"{query} JOIN node_health h ON h.node_id = n.id ORDER BY n.id"
            ).all()
            connection.exec_driver_sql("DELETE FROM node_health WHERE node_id = 2")
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        assert [tuple(row) for row in found] == [(n, 0, None, 1) for n in (1, 2, 3)]


def test_two_that_migrate_at_once_take_turns(request):
    """Both start; the tables are made once."""
    url = empty_mysql_url(request.getfixturevalue("mysql_dsn"))
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(migrate.upgrade, [url, url]))
    assert counts == [len(metadata.tables)] * 2
    migrate.check(url)


def test_tables_that_differ_are_told(empty):
    """The check can fail."""
    migrate.upgrade(empty)
    with make_engine(empty).begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN more INTEGER")
    with pytest.raises(SchemaError, match="^migration: "):
        migrate.check(empty)


def test_an_unknown_revision_is_one_line(empty):
    """No traceback for the person who asked."""
    with pytest.raises(SchemaError, match="^migration: .*nowhere") as raised:
        migrate.downgrade(empty, "nowhere")
    assert "\n" not in str(raised.value)


def test_a_database_that_is_not_there_is_one_line():
    """The message has the server's or the network's words."""
    url = URL.create("mysql+pymysql", "u", "p-secret", "127.0.0.1", 1, "nothing")
    with pytest.raises(SchemaError) as raised:
        migrate.upgrade(url)
    assert "\n" not in str(raised.value)
    assert "p-secret" not in str(raised.value)


def test_the_seeds_columns_have_the_seeds_names(empty):
    """What its SQL checks select is there."""
    migrate.upgrade(empty)
    with make_engine(empty).connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("agent_tasks")}
        unique = inspect(connection).get_unique_constraints("agent_tasks")
    assert columns >= {
        *("id", "node_id", "type", "payload", "status", "last_error", "attempts"),
        *("next_retry_at", "request_id", "created_at", "updated_at"),
    }
    found = sorted(one["column_names"] for one in unique)
    assert found == [["operation_id", "node_id"], ["request_id"]]
