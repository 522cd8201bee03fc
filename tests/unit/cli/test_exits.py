"""Exit codes and error lines: what a script and a person learn when a command does not succeed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgeplane.cli import nodes, root
from edgeplane.cli.exits import Exit, stop_for
from edgeplane.environ import SettingError
from edgeplane.model import errors
from unit.cli.fake_api import NODE, TASK


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, 1001, 3),
        (401, 1002, 3),
        (401, 1003, 3),
        (403, 1004, 3),
        (400, 2001, 2),
        (400, 2002, 2),
        (405, 2003, 2),
        (404, 3001, 4),
        (409, 3002, 5),
        (409, 3003, 5),
        (429, 3004, 8),
        (500, 5001, 8),
        (503, 5002, 8),
        (502, 5003, 8),
        (400, 9999, 1),
    ],
)
def test_each_code_of_the_api_has_its_exit_code(logged_in, edgeplane, status, code, exit_code):
    """The exit code follows the contract's code; the message is one line, and JSON if asked for."""
    logged_in.refuse("GET", "/api/v1/agent-tasks/12", status, code, "so\nit is")
    plain = edgeplane("task", "show", "12")
    assert plain.code == exit_code
    assert plain.out == ""
    assert plain.err.startswith("edgeplane: so\\nit is")
    assert plain.err.count("\n") == 1
    asked = edgeplane("task", "show", "12", "--json")
    assert asked.code == exit_code
    envelope = json.loads(asked.out)
    assert (envelope["code"], envelope["data"]) == (code, None)
    assert asked.err == plain.err


def test_retry_after_and_request_id_are_passed_on(logged_in, edgeplane):
    """A person learns when to come back, and what to quote."""
    headers = {"Retry-After": "7", "X-Request-Id": "q-1"}
    logged_in.refuse("GET", "/api/v1/nodes", 429, 3004, "too many", headers)
    err = edgeplane("node", "list").err
    assert err == "edgeplane: too many (try again in 7 s) (request q-1)\n"


def test_no_answer_is_unreachable(nobody, edgeplane, monkeypatch):
    """Nobody there: exit code 7, the address and the reason; with --json an envelope too."""
    monkeypatch.setenv("EDGEPLANE_TOKEN", "t")
    outcome = edgeplane("--json", "--url", nobody, "node", "list")
    assert outcome.code == 7
    assert outcome.err == f"edgeplane: cannot reach {nobody}: connection refused\n"
    assert json.loads(outcome.out)["code"] == 5003


def test_what_is_no_control_plane_is_said_to_be_none(logged_in, edgeplane):
    """A page of something else is a server error in one line, never a traceback."""
    logged_in.raw("GET", "/api/v1/nodes", b"<html>welcome</html>")
    outcome = edgeplane("node", "list")
    assert outcome.code == 8
    assert "not as a control plane does" in outcome.err


def test_who_is_not_logged_in_learns_how(api, edgeplane):
    """Without any credentials nothing is asked for: exit code 3 and the command to run."""
    outcome = edgeplane("task", "list", "--url", api.url)
    assert outcome.code == 3
    assert "run edgeplane login" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("task", "create"),
        ("task", "show", "abc"),
        ("task", "show", "0"),
        ("task", "list", "--status", "sleeping"),
        ("task", "create", "--node", "1", "--type", "reboot"),
        ("task", "create", "--node", "1", "--type", "reload", "--max-attempts", "0"),
        ("node", "list", "--page-size", "101"),
        ("node", "update", "1"),
        ("node", "update", "1", "--sub-ip", "::1", "--no-sub-ips"),
        ("node", "delete"),
        ("node", "add", "77", "192.0.2.1"),
        ("node", "update", "edge-1", "--name", "77"),
        ("--url", "nowhere", "node", "list"),
        ("node", "show", "\udcff"),
    ],
)
def test_wrong_usage_is_two(logged_in, edgeplane, arguments):
    """Whatever is wrong with the arguments: exit code 2, one line, and nothing sent."""
    outcome = edgeplane(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("edgeplane: ")
    assert outcome.err.count("\n") == 1
    assert "\\" not in outcome.err.replace("\\udcff", "")
    assert logged_in.requests == []


def test_no_command_shows_the_help(edgeplane):
    """Without a command the help is shown, on standard error, with exit code 2."""
    outcome = edgeplane()
    assert outcome.code == 2
    assert "Usage: edgeplane" in outcome.err


def test_help_documents_every_exit_code(edgeplane):
    """The help names each exit code with its meaning."""
    out = edgeplane("--help").out
    for code in Exit:
        assert f"  {code.value:<4} {code.meaning}\n" in out


def test_a_bug_is_one_line(logged_in, edgeplane, monkeypatch):
    """What nobody expected ends in one line and exit code 70; a traceback only on request."""

    def broken(*_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(nodes, "node_id", broken)
    outcome = edgeplane("node", "show", "1")
    assert outcome.code == 70
    assert outcome.err.startswith("edgeplane: unexpected error: RuntimeError: two\\nlines")
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("EDGEPLANE_DEBUG", "1")
    assert "Traceback" in edgeplane("node", "show", "1").err


def test_an_interrupt_is_quiet(logged_in, edgeplane, monkeypatch):
    """Ctrl-C ends with 130 and no words."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(nodes, "node_id", interrupted)
    outcome = edgeplane("node", "show", "1")
    assert outcome.code == 130
    assert outcome.err.strip() == ""


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (SettingError("X: wrong"), Exit.USAGE),
        (errors.NotFound("x"), Exit.NOT_FOUND),
        (errors.AlreadyExists("x"), Exit.CONFLICT),
        (errors.NotAllowed("x"), Exit.USAGE),
        (errors.DatabaseAway("x"), Exit.SERVER),
        (click.ClickException("x"), Exit.USAGE),
    ],
)
def test_errors_of_the_house_have_their_exit_codes(error, exit_code):
    """The commands that open the store themselves use the same numbers."""
    stop = stop_for(error)
    assert stop is not None
    assert stop.status is exit_code


def test_an_unknown_error_is_nobodys():
    """What is not expected is left to the last resort."""
    assert stop_for(RuntimeError("x")) is None


def test_the_version_is_printed(edgeplane):
    """Three ways to ask for the version."""
    assert edgeplane("version").out == edgeplane("--version").out
    assert "version" in json.loads(edgeplane("version", "--json").out)


def test_python_m_edgeplane_works():
    """``python -m edgeplane`` is the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeplane", "version"], capture_output=True, check=True, timeout=30
    )
    assert done.stdout.startswith(b"edgeplane ")


def test_the_help_loads_no_server_parts():
    """An edge node has none of these installed, and --help does not wait for them."""
    code = (
        "import sys, edgeplane.cli.root as m; m.run(['--help']);"
        "heavy = {'urllib3',"
        " 'sqlalchemy', 'fastapi', 'uvicorn', 'alembic', 'jwt', 'redis', 'pymysql'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=30, check=True)


def test_a_reader_that_leaves_is_no_matter(logged_in):
    """A closed pipe on standard output ends the command without words."""
    logged_in.answer("GET", "/api/v1/nodes/7", NODE)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "edgeplane", "node", "show", "7"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""


@pytest.mark.parametrize("command", [("node", "show", "7", "--json"), ("--help",)])
def test_an_output_that_takes_nothing_is_one_line(logged_in, command):
    """A full disk behind standard output: exit code 1, and no traceback from the interpreter."""
    logged_in.answer("GET", "/api/v1/nodes/7", NODE)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgeplane", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    said = b"edgeplane: standard output cannot be written: No space left on device\n"
    assert done.stderr == said


@pytest.mark.parametrize("moment", ["edgeplane.cli.root", "edgeplane.cli.lazy"])
def test_an_interrupt_while_it_begins_is_quiet(moment):
    """Ctrl-C while modules are imported ends with 130 and no traceback."""
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {moment!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from edgeplane.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_the_token_is_never_printed(logged_in, edgeplane):
    """Neither success nor failure shows the token."""
    logged_in.answer("GET", "/api/v1/agent-tasks/12", TASK)
    logged_in.refuse("GET", "/api/v1/agent-tasks/13", 401, 1002, "invalid token")
    for number in (12, 13):
        outcome = edgeplane("task", "show", number, "--json")
        assert "a-token" not in outcome.out + outcome.err


def test_the_root_summaries_are_those_of_the_commands():
    """The help, which imports no command, says of each what the command says of itself."""
    for name, entry in root.root.entries.items():
        command = root.root.get_command(click.Context(root.root), name)
        assert command is not None
        assert (command.name, command.get_short_help_str(100)) == (name, entry.summary)


def test_every_command_has_json():
    """Whatever is printed for people can be had as JSON."""

    def leaves(group, path=()):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from leaves(command, (*path, name))
            else:
                yield (*path, name), command

    without = {
        path
        for path, command in leaves(root.root)
        if not any(parameter.name == "json" for parameter in command.params)
    }
    assert without == {("up",), ("serve",)}  # what they say is for whoever watches them
