"""What a control plane says and keeps when it starts."""

import re
import subprocess
import sys

from kit.processes import ADMIN_PASSWORD, ControlPlane

SECRETS = ("AGENT_TOKEN", "JWT_SECRET", "ADMIN_PASSWORD")


def start(folder, **env):
    """Start a control plane with these settings, and wait until it serves."""
    plane = ControlPlane(folder, env)
    plane.start()
    plane.wait_for("Server running on")
    return plane


def test_secrets_that_are_not_given_are_made_once_and_kept(tmp_path):
    """Made at first start, mode 0600; the line says where, the password is shown once only."""
    missing = dict.fromkeys(SECRETS, "")
    plane = start(tmp_path, **missing)
    found = re.search(r"First user: admin, password: (\S+) ", plane.output)
    assert found is not None
    login = {"username": "admin", "password": found[1]}
    token = plane.call("POST", "/auth/login", login)["data"]["token"]
    state = tmp_path / "state"
    kept = re.findall(r"(\w+): kept in (\S+)", plane.output)
    assert {name for name, _ in kept} == {"JWT_SECRET", "AGENT_TOKEN"}
    for _, place in kept:
        assert place.startswith(str(state))
    assert state.stat().st_mode & 0o077 == 0
    texts = {}
    for file in state.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
        if file.stat().st_size < 4096:
            texts[file.name] = file.read_text()
    plane.stop()
    before = len(plane.output)
    plane.token = token
    plane.up()
    assert plane.call("GET", "/me")["code"] == 0
    plane.stop()
    assert found[1] not in plane.output[before:]
    for text in texts.values():
        if len(text.strip()) >= 16:
            assert text.strip() not in plane.output


def test_the_seeds_own_settings_start_with_a_warning(tmp_path):
    """Its lines are printed, its secrets work, and nobody can overlook what is said of them."""
    plane = start(tmp_path, JWT_SECRET="your-secret-key", AGENT_TOKEN="test-agent-token")
    login = {"username": "admin", "password": ADMIN_PASSWORD}
    token = plane.call("POST", "/auth/login", login)["data"]["token"]
    assert plane.call("GET", "/me", token=token)["code"] == 0
    plane.stop()
    lines = plane.output.splitlines()
    assert "Starting database migration..." in lines
    done = r"✓ Database migration completed successfully \([1-9]\d* tables\)"
    assert any(re.fullmatch(done, line) for line in lines)
    assert f"Server running on http://127.0.0.1:{plane.port}/" in lines
    for name in ("JWT_SECRET", "AGENT_TOKEN"):
        assert any("WARNING" in line.upper() and name in line for line in lines), plane.output
    for secret in ("your-secret-key", "test-agent-token", ADMIN_PASSWORD, token):
        assert secret not in plane.output
    assert "Warning: The HMAC key" not in plane.output


def test_a_malformed_setting_stops_the_start(tmp_path):
    """One line that names it; not its secret, and no traceback."""
    plane = ControlPlane(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "edgeplane", "serve"],
        env={**plane._env, "MYSQL_DSN": "mysql://root:hunter2hunter2@host/db"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout + done.stderr).strip()
    assert done.returncode != 0
    assert len(said.splitlines()) == 1, said
    assert "MYSQL_DSN" in said
    assert "hunter2" not in said
    assert "Traceback" not in said
