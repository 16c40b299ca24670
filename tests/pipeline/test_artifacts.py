"""Files that are written whole or not at all, and what killed writers leave."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifacts import atomic_path, remove_leftovers, scratch_folder
from pipeline.errors import DataError, StorageError

NOBODY = 4_194_305  # above the largest process id that Linux gives


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_scratch_folder_is_removed_afterwards(tmp_path):
    out = tmp_path / "a" / "b" / "out.txt"
    with scratch_folder(out) as folder:
        assert folder.parent == out.parent and names(folder) == []
        (folder / "part").write_text("x")
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize(
    ("error", "kind"), [(DataError("x"), DataError), (OSError(28, "full"), StorageError)]
)
def test_a_failure_leaves_no_folder_that_was_not_there(tmp_path, error, kind):
    out = tmp_path / "a" / "b" / "out.txt"
    with pytest.raises(kind), scratch_folder(out) as folder:
        (folder / "part").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other").write_text("x")
    with pytest.raises(DataError), scratch_folder(tmp_path / "a" / "out.txt"):
        raise DataError("x")
    assert names(tmp_path / "a") == ["other"]


def test_folders_of_dead_processes_are_removed_and_others_stay(tmp_path):
    (tmp_path / f".out.txt.work-{NOBODY}").mkdir()
    (tmp_path / ".out.txt.work-1").mkdir()
    (tmp_path / ".other.txt.work-9").mkdir()
    with scratch_folder(tmp_path / "out.txt"):
        pass
    assert names(tmp_path) == [".other.txt.work-9", ".out.txt.work-1"]


def test_leftovers_of_dead_and_unburied_writers_are_removed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    for process in (NOBODY, child.pid, os.getpid()):
        (tmp_path / f".out.txt.tmp-{process}-ab").write_text("half")
    remove_leftovers(tmp_path / "out.txt")
    assert len(names(tmp_path)) == 2
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for
    remove_leftovers(tmp_path / "out.txt")
    assert names(tmp_path) == [f".out.txt.tmp-{os.getpid()}-ab"]
    child.wait()


def test_a_file_is_published_whole_and_read_only(tmp_path):
    path = tmp_path / "a" / "out.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x" and path.stat().st_mode & 0o777 == 0o444
    with pytest.raises(ValueError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "x" and names(path.parent) == ["out.txt"]
