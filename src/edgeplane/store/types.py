"""The few differences between the dialects: times, identifiers, exact text."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, LargeBinary, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

#: Ids: BIGINT, and on SQLite the INTEGER that a row id must be.
Id = BigInteger().with_variant(Integer(), "sqlite")
#: A payload: up to 16 MB where the default text ends at 64 KB.
PayloadText = Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4"), "mysql", "mariadb")
Digest = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")


def exact(length: int) -> TypeEngine[str]:
    """Text compared byte by byte on both dialects, ASCII only."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
    )


def name(length: int) -> TypeEngine[str]:
    """Text of any language, compared byte by byte on both dialects."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC with milliseconds: DATETIME(3), or text that sorts by time on SQLite."""

    impl = String(23)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the dialect."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(23))
        return dialect.type_descriptor(mysql.DATETIME(fsp=3))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write UTC without its zone."""
        if value is None:
            return None
        naive = value.astimezone(UTC).replace(tzinfo=None)
        if dialect.name == "sqlite":
            return naive.isoformat(" ", "milliseconds")
        return naive

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read it as aware UTC."""
        if value is None:
            return None
        naive = datetime.fromisoformat(value) if dialect.name == "sqlite" else value
        return naive.replace(tzinfo=UTC)
