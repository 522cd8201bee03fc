"""Alembic's environment and the versions of the schema; a released version is never edited."""
