"""``edgeplane user``: who may log in. These commands open the store, on the server's host."""

import click
import msgspec
from click import Choice

from edgeplane.cli import output, passwords, server_parts
from edgeplane.cli.options import Wishes, json_option, pass_wishes
from edgeplane.model.clock import rfc3339
from edgeplane.model.users import Role, User

_ROLES = Choice([role.value for role in Role])


@click.group()
def user() -> None:
    """Add and change users, on the server's own host."""


@user.command("add")
@click.argument("username")
@click.option("--role", type=_ROLES, default=Role.OPERATOR.value, show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--generate", is_flag=True, help="Make a password and show it once.")
@json_option
@pass_wishes
def add_user(
    wishes: Wishes, username: str, role: str, password_stdin: bool, generate: bool
) -> None:
    """Add a user."""
    users = server_parts.users()
    password = _password(password_stdin, generate)
    added = server_parts.use_store(
        lambda database: users.create(database, username, password, Role(role))
    )
    _done(wishes, f"added {added.username}, {added.role}", password if generate else None)


@user.command("list")
@json_option
@pass_wishes
def list_users(wishes: Wishes) -> None:
    """List users."""
    found = server_parts.use_store(server_parts.users().list_all)
    if wishes.json:
        output.print_json(msgspec.json.encode([_shown(each) for each in found]))
        return
    output.print_table(
        ("ID", "NAME", "ROLE", "ACTIVE", "CREATED"),
        [(each.id, each.username, each.role, each.active, each.created_at) for each in found],
    )


@user.command("passwd")
@click.argument("username")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--generate", is_flag=True, help="Make a password and show it once.")
@json_option
@pass_wishes
def change_password(wishes: Wishes, username: str, password_stdin: bool, generate: bool) -> None:
    """Change a user's password."""
    users = server_parts.users()
    password = _password(password_stdin, generate)
    server_parts.use_store(lambda database: users.set_password(database, username, password))
    _done(wishes, f"changed the password of {username}", password if generate else None)


@user.command("role")
@click.argument("username")
@click.argument("role", type=_ROLES)
@json_option
@pass_wishes
def change_role(wishes: Wishes, username: str, role: str) -> None:
    """Change what a user may do."""
    users = server_parts.users()
    server_parts.use_store(lambda database: users.set_role(database, username, Role(role)))
    _done(wishes, f"{username} is {role} now")


@user.command("disable")
@click.argument("username")
@json_option
@pass_wishes
def disable_user(wishes: Wishes, username: str) -> None:
    """Lock a user out; tokens already given out end too."""
    _set_active(wishes, username, active=False)


@user.command("enable")
@click.argument("username")
@json_option
@pass_wishes
def enable_user(wishes: Wishes, username: str) -> None:
    """Let a user in again."""
    _set_active(wishes, username, active=True)


def _set_active(wishes: Wishes, username: str, *, active: bool) -> None:
    users = server_parts.users()
    server_parts.use_store(lambda database: users.set_active(database, username, active=active))
    _done(wishes, f"{username} is {'enabled' if active else 'disabled'} now")


def _password(from_stdin: bool, generate: bool) -> str:
    if from_stdin and generate:
        raise click.UsageError("--password-stdin and --generate exclude each other")
    return passwords.make() if generate else passwords.ask(from_stdin=from_stdin, confirm=True)


def _done(wishes: Wishes, line: str, made: str | None = None) -> None:
    if wishes.json:
        output.print_json(msgspec.json.encode({"message": line, "password": made}))
        return
    click.echo(output.visible(line))
    if made is not None:
        click.echo(f"password, shown this once: {made}")


def _shown(each: User) -> dict[str, object]:
    return {
        "id": each.id,
        "username": each.username,
        "role": each.role.value,
        "active": each.active,
        "createdAt": rfc3339(each.created_at),
    }
