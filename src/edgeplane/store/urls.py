"""Where the tables are, as SQLAlchemy writes it."""

import ssl
from pathlib import Path

from sqlalchemy import URL

from edgeplane.dsn import MysqlParts, Tls
from edgeplane.settings import DatabaseSettings

__all__ = ["URL", "database_url", "place", "sqlite_url"]


def sqlite_url(path: Path) -> URL:
    """Return the URL of a SQLite file."""
    return URL.create("sqlite+pysqlite", database=str(path))


def database_url(database: DatabaseSettings) -> URL:
    """Return the URL of the database the settings name."""
    if database.url_parts is None:
        assert database.path is not None  # one of the two is set
        return sqlite_url(database.path)
    return _mysql_url(database.url_parts)


def place(database: DatabaseSettings) -> str:
    """Name the database for a person; never with its password."""
    parts = database.url_parts
    if parts is None:
        return str(database.path)
    return f"{parts.unix_socket or f'{parts.host}:{parts.port}'}/{parts.database} (MYSQL_DSN)"


def _mysql_url(parts: MysqlParts) -> URL:
    query = {"charset": "utf8mb4"}
    if parts.unix_socket:
        query["unix_socket"] = parts.unix_socket
    if parts.tls is not Tls.OFF:
        checked = "true" if parts.tls is Tls.VERIFIED else "false"
        query["ssl_ca"] = ssl.get_default_verify_paths().openssl_cafile
        query |= {"ssl_verify_cert": checked, "ssl_verify_identity": checked}
    return URL.create(
        "mysql+pymysql",
        username=parts.user,
        password=parts.password,
        host=parts.host,
        port=parts.port,
        database=parts.database,
        query=query,
    )
