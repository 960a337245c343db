"""One run at a time writes an output; the second is told who writes there, and a dead one blocks nobody."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napari_milcnn.errors import OutputError
from napari_milcnn.output_lock import locked, locked_folder

HOLD = """
import sys, time
from pathlib import Path
from napari_milcnn.output_lock import locked, locked_folder
with (locked if sys.argv[1] == "file" else locked_folder)(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""
BOTH = pytest.mark.parametrize("kind", ["file", "folder"])
LOCKS = {"file": locked, "folder": locked_folder}


@contextmanager
def held_by_another(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a lock in another process."""
    call = [sys.executable, "-c", HOLD, kind, str(path)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@BOTH
def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path, kind: str) -> None:
    """The message says who holds it, since when, and what to do; kill -9 frees it at once."""
    path = tmp_path / "new" / "M.zip"
    with held_by_another(kind, path) as process:
        expected = (
            rf"M\.zip is being written by -c {kind} \(process {process.pid} on .*\) since 20.*; wait until it ends"
        )
        for _ in range(2):  # whoever is refused does not wipe out who holds it
            with pytest.raises(OutputError, match=expected), LOCKS[kind](path):
                pytest.fail("the block must not run")
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        process.wait()
        with LOCKS[kind](path):
            pass
    assert list(tmp_path.rglob(".*")) == []


@BOTH
def test_a_second_lock_in_one_process_is_refused(tmp_path: Path, kind: str) -> None:
    """Two docks of one napari are two runs."""
    with LOCKS[kind](tmp_path / "x"):
        with pytest.raises(OutputError, match=r"is being written by .*process \d+"), LOCKS[kind](tmp_path / "x"):
            pytest.fail("the block must not run")
        with LOCKS[kind](tmp_path / "y"):
            pass
    with LOCKS[kind](tmp_path / "x"):
        pass


def test_a_folder_that_got_no_results_is_not_left_behind(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "out") as lock:
        lock.check()
        assert (tmp_path / "out").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; expected a folder"), locked_folder(tmp_path / "file"):
        pytest.fail("the block must not run")


def test_a_folder_that_vanishes_is_noticed(tmp_path: Path) -> None:
    """Deleted, or deleted and made anew by someone else."""
    with locked_folder(tmp_path / "out") as lock:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(OutputError, match="was deleted or moved while it was written"):
            lock.check()
        (tmp_path / "out").mkdir()
        with pytest.raises(OutputError, match="was deleted or moved while it was written"):
            lock.check()


@BOTH
def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("napari_milcnn.output_lock.FileLock.acquire", refuse)
    with pytest.raises(OutputError, match="x cannot be written: Read-only file system; choose"):
        with LOCKS[kind](tmp_path / "x"):
            pytest.fail("the block must not run")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which no file can be made, as in Linux")
def test_a_folder_in_which_no_file_can_be_made_is_not_one_in_use() -> None:
    with pytest.raises(OutputError, match=r"cannot be written: No such file"), locked(Path("/proc/m.zip")):
        pass


@BOTH
def test_a_disk_without_locks_is_written_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("napari_milcnn.output_lock.FileLock.acquire", refuse)
    with LOCKS[kind](tmp_path / "x") as lock:
        lock.check()
    assert "a disk without locks: a second run into it would not be noticed" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_child_that_outlives_its_parent_holds_nothing(tmp_path: Path) -> None:
    """As workers that load images do for a while after a training was killed."""
    code = HOLD.replace("    time.sleep(600)", "    import os\n    os.fork() or time.sleep(20)\n    os._exit(0)")
    with subprocess.Popen([sys.executable, "-c", code, "file", str(tmp_path / "x")], stdout=subprocess.PIPE) as process:
        process.wait()
        with locked(tmp_path / "x"):
            pass
