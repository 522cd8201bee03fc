"""``edgeplane login``: a token, kept for the commands that follow."""

import os

import click
import msgspec

from edgeplane.cli import output, passwords, sessions
from edgeplane.cli.options import Wishes, api_options, pass_wishes
from edgeplane.cli.sessions import Session
from edgeplane.model.clock import utc_now


@click.command()
@click.option(
    "--username",
    default="admin",
    envvar="EDGEPLANE_USERNAME",
    show_default=True,
    show_envvar=True,
    help="Who logs in.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@api_options
@pass_wishes
def login(wishes: Wishes, username: str, password_stdin: bool) -> None:
    """Keep a token for the commands that follow.

    The session is kept, mode 0600, in EDGEPLANE_CONFIG_DIR or ~/.config/edgeplane.
    """
    given = None if password_stdin else os.environ.get("EDGEPLANE_PASSWORD")
    source = "EDGEPLANE_PASSWORD" if given else "the password given"
    client = sessions.open_client(wishes, credential=f"user {username}, {source}")
    password = given or passwords.ask(from_stdin=password_stdin, confirm=False)
    answer = client.login(username, password)
    path = sessions.config_file()
    session = Session(url=client.base_url, username=username, token=answer.token, since=utc_now())
    sessions.save(path, session)
    if wishes.json:
        shown = {"url": session.url, "user": answer.user, "expireAt": answer.expire_at}
        output.print_json(msgspec.json.encode(shown))
        return
    until = output.visible(answer.expire_at)
    output.tell(f"logged in at {session.url} as {answer.user.username} until {until}")
    output.tell(f"session kept in {path}")
