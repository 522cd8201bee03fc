"""The hold on a state folder."""

import os

import pytest

from edgeplane.agent.exclusive import StateFolderError, hold


def test_a_folder_is_held_once_whatever_becomes_of_the_files_in_it(tmp_path):
    """The line names the holder as long as that is written; freed, it can be held again."""
    held = hold(tmp_path)
    words = (
        f"^{tmp_path}: in use by another agent \\(process {{}}\\); set EDGEPLANE_AGENT_STATE_DIR"
    )
    with pytest.raises(StateFolderError, match=words.format(os.getpid())):
        hold(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StateFolderError, match=words.format("unknown")):
        hold(tmp_path)
    os.close(held)
    os.close(hold(tmp_path))


def test_a_folder_that_cannot_be_held_is_told_in_one_line(tmp_path):
    """It is not there, or nothing can be written in it."""
    with pytest.raises(StateFolderError, match=f"^{tmp_path}/none: cannot be opened: No such file"):
        hold(tmp_path / "none")
    (tmp_path / "agent.pid").mkdir()
    with pytest.raises(StateFolderError, match=f"^{tmp_path}: cannot be locked: Is a directory"):
        hold(tmp_path)


def test_a_symlink_in_the_folder_is_not_followed(tmp_path):
    """Nothing is made at its target."""
    (tmp_path / "agent.pid").symlink_to(tmp_path / "target")
    with pytest.raises(StateFolderError, match="cannot be locked"):
        hold(tmp_path)
    assert not (tmp_path / "target").exists()
