"""The simulated executor: which file appears, when, and where it cannot lead."""

import errno
import os
import stat

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeplane.agent.executors.base import NotNow, Permit, Unclear
from edgeplane.agent.executors.layout import laid_out_size
from edgeplane.agent.executors.simulated import SimulatedExecutor
from edgeplane.wire import ExecuteRequest


def _request(request_id="r1", kind="apply_config", payload=b'{"b":1,"a":[]}'):
    return ExecuteRequest(request_id, kind, msgspec.Raw(payload))


@pytest.fixture
def folder(tmp_path):
    """Where the files go."""
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def executor(folder, tmp_path):
    """Make an executor that writes there."""
    (tmp_path / "state").mkdir()
    made = SimulatedExecutor(folder, owner=tmp_path / "state")
    yield made
    made.close()


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "message", "content"),
    [
        (
            "apply_config",
            "cmdb_apply_config_r1.json",
            "Config applied and saved to {file}",
            '{\n  "vhost": "example.com",\n  "upstream": [\n    "192.168.1.1:80"\n  ]\n}',
        ),
        (
            "reload",
            "cmdb_reload_r1.txt",
            "Reload completed and logged to {file}",
            "Reload task executed at r1\n",
        ),
        (
            "purge_cache",
            "cmdb_purge_cache_r1.json",
            "Cache purged and saved to {file}",
            '{\n  "vhost": "example.com",\n  "upstream": [\n    "192.168.1.1:80"\n  ]\n}',
        ),
    ],
)
def test_each_kind_has_its_file_its_message_and_nothing_else(
    executor, folder, kind, name, message, content
):
    """The layout is the documented one, and only the owner may read it."""
    payload = b'{"vhost": "example.com", "upstream": ["192.168.1.1:80"]}'
    outcome = executor.execute(_request(kind=kind, payload=payload), Permit())
    assert (outcome.status, outcome.message) == ("success", message.format(file=folder / name))
    assert (folder / name).read_text() == content
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert _names(folder) == [name]


def test_numbers_and_the_order_of_keys_stay_as_sent(executor, folder):
    """A number beyond every machine word is written digit for digit."""
    executor.execute(_request(payload=b'{"z":1180591620717411303424,"a":1.50,"m":-0}'), Permit())
    written = (folder / "cmdb_apply_config_r1.json").read_text()
    assert written == '{\n  "z": 1180591620717411303424,\n  "a": 1.50,\n  "m": -0\n}'


def test_a_payload_that_grows_too_large_laid_out_is_a_failure(executor, folder):
    """A megabyte nested deep would take sixty; nothing is written of it."""
    deep = b'{"a":' * 63 + b"[" + b"1," * 500_000 + b"1]" + b"}" * 63
    outcome = executor.execute(_request(payload=deep), Permit())
    assert outcome.status == "failed"
    assert outcome.message == "payload: too large laid out; at most 8388608 bytes are allowed"
    assert executor.recover(_request(payload=deep)) is None
    assert _names(folder) == []
    flat = b'{"a":[' + b"1," * 500_000 + b"1]}"
    assert executor.execute(_request(payload=flat), Permit()).status == "success"


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(
        st.none() | st.integers() | st.text('ab"\\[]{},: \n\u00e9'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text('k"[,', max_size=2), inner),
    )
)
def test_the_size_of_a_layout_is_known_before_it_is_made(value):
    """To the byte."""
    compact = msgspec.json.encode(value)
    assert laid_out_size(compact) == len(msgspec.json.format(compact, indent=2))


@pytest.mark.parametrize("request_id", ["..", ".", "-", "x" * 64, "..."])
def test_every_allowed_id_stays_in_the_folder(executor, folder, request_id):
    """Dots and the longest id make a plain name."""
    assert executor.execute(_request(request_id), Permit()).status == "success"
    assert _names(folder) == [f"cmdb_apply_config_{request_id}.json"]


def test_a_symlink_under_the_files_name_is_replaced_not_followed(executor, folder, tmp_path):
    """Its target keeps its content."""
    target = tmp_path / "target"
    target.write_text("precious")
    final = folder / "cmdb_apply_config_r1.json"
    final.symlink_to(target)
    assert executor.recover(_request()) is None
    assert executor.execute(_request(), Permit()).status == "success"
    assert target.read_text() == "precious"
    assert not final.is_symlink()


def test_a_folder_that_becomes_a_symlink_does_not_lead_away(executor, folder, tmp_path):
    """The folder was opened once; what its path means later changes nothing."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(elsewhere)
    executor.execute(_request(), Permit())
    assert _names(elsewhere) == []
    assert _names(moved) == ["cmdb_apply_config_r1.json"]


def test_a_name_that_is_taken_by_a_folder_is_a_failure_that_leaves_nothing(executor, folder):
    """The message says which file and why."""
    final = folder / "cmdb_apply_config_r1.json"
    final.mkdir()
    outcome = executor.execute(_request(), Permit())
    assert outcome.status == "failed"
    assert outcome.message == f"failed to write file: {final}: Is a directory"
    assert _names(folder) == [final.name]


def test_a_folder_that_takes_no_files_is_a_failure(executor, folder):
    """Here the folder has been removed, which binds even the superuser."""
    folder.rmdir()
    outcome = executor.execute(_request(), Permit())
    assert outcome.status == "failed"
    assert outcome.message.startswith(f"failed to write file: {folder}/cmdb_apply_config_r1.json: ")


def test_without_its_permit_nothing_appears(executor, folder):
    """A run that was given up leaves neither file nor draft."""
    permit = Permit()
    assert permit.revoke()
    assert executor.execute(_request(), permit).status == "failed"
    assert _names(folder) == []


def test_a_permit_is_taken_or_revoked_never_both():
    """Whoever comes first decides."""
    taken, revoked = Permit(), Permit()
    assert taken.take()
    assert not taken.revoke()
    assert revoked.revoke()
    assert not revoked.take()


def test_recover_finds_a_completed_effect_without_touching_it(executor, folder):
    """The outcome is the same, the file untouched."""
    said = executor.execute(_request(), Permit())
    before = (folder / "cmdb_apply_config_r1.json").stat()
    assert executor.recover(_request()) == said
    after = (folder / "cmdb_apply_config_r1.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_recover_knows_nothing_of_a_missing_or_different_file(executor, folder):
    """Only the very content counts as the effect."""
    assert executor.recover(_request()) is None
    for other in ("{}", '{\n  "b": 2,\n  "a": []\n}'):
        (folder / "cmdb_apply_config_r1.json").write_text(other)
        assert executor.recover(_request()) is None
    (folder / "cmdb_apply_config_r1.json").unlink()
    os.mkfifo(folder / "cmdb_apply_config_r1.json")
    assert executor.recover(_request()) is None


def test_a_strangers_file_is_not_our_effect(executor, folder, monkeypatch):
    """Whatever it holds, and whether or not it lets itself be opened."""
    executor.execute(_request(), Permit())
    (folder / "cmdb_apply_config_r1.json").chmod(0)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert executor.recover(_request()) is None


@pytest.mark.parametrize("call", ["listdir", "stat", "open", "fsync"])
def test_a_recovery_that_cannot_look_says_so(executor, monkeypatch, call):
    """An error of the disk is never taken for an effect that was not made."""
    executor.execute(_request(), Permit())
    monkeypatch.setattr(os, call, _broken(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        executor.recover(_request())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_what_is_short_before_the_effect_is_no_failure(executor, folder, monkeypatch, call, number):
    """It may be there later; nothing is left behind."""
    with monkeypatch.context() as patched:
        patched.setattr(os, call, _broken(number))
        with pytest.raises(NotNow, match=f"failed to write file: .*: {os.strerror(number)}"):
            executor.execute(_request(), Permit())
    assert _names(folder) == []
    assert executor.recover(_request()) is None


def test_an_effect_that_may_not_be_on_disk_is_unclear(executor, folder, monkeypatch):
    """The file is there: that is no failure. The recovery finds it, once the disk obeys."""
    sync = os.fsync

    def folder_fails(descriptor):
        return (_broken(errno.EIO) if descriptor == executor._handle else sync)(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", folder_fails)
        with pytest.raises(Unclear, match="cmdb_apply_config_r1.json: may not be on disk"):
            executor.execute(_request(), Permit())
    assert _names(folder) == ["cmdb_apply_config_r1.json"]
    assert executor.recover(_request()).status == "success"


def _broken(number):
    def call(*args, **named):
        raise OSError(number, os.strerror(number))

    return call


def test_drafts_are_removed_by_the_agent_that_left_them_and_no_other(executor, folder, tmp_path):
    """At its start all of its own, at a recovery those of that request."""
    prefix = executor._drafts
    for name in (f"{prefix}r1~aa", f"{prefix}r1_b~aa", ".cmdb_draft_other~r1~aa"):
        (folder / name).write_text("draft")
    executor.recover(_request())
    assert _names(folder) == sorted([f"{prefix}r1_b~aa", ".cmdb_draft_other~r1~aa"])
    (tmp_path / "another").mkdir()
    SimulatedExecutor(folder, owner=tmp_path / "another").close()
    assert f"{prefix}r1_b~aa" in _names(folder)
    # A state folder is the same one under every path.
    (tmp_path / "state").rename(tmp_path / "moved")
    SimulatedExecutor(folder, owner=tmp_path / "moved").close()
    assert _names(folder) == [".cmdb_draft_other~r1~aa"]
