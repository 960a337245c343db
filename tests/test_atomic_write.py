"""Files are whole or not there: the old one survives every failure, and nothing is left beside it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from napari_milcnn.atomic_write import (
    check_writable,
    replacing,
    replacing_files,
    replacing_folder,
    sha256,
    shortened,
    sweep_drafts,
)
from napari_milcnn.errors import MilcnnError, OutputError


def names(folder: Path) -> list[str]:
    """Names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_beside_its_name_and_moved(tmp_path: Path) -> None:
    """Folders are made; until the end the name is free; the draft keeps the suffixes, by which writers choose."""
    path = tmp_path / "new" / "folder" / "maps.ome.tif"
    with replacing(path) as draft:
        assert draft.parent == path.parent
        assert draft.name.endswith(".ome.tif")
        draft.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["maps.ome.tif"]


def test_the_old_file_is_replaced(tmp_path: Path) -> None:
    """And only once the block has ended well."""
    path = tmp_path / "run.json"
    path.write_text("old")
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (ValueError("wrong"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MilcnnError("no"), MilcnnError),
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
    ],
)
@pytest.mark.parametrize("before", ["old", None])
def test_a_failing_block_leaves_the_old_file(
    tmp_path: Path, failure: BaseException, seen: type[BaseException], before: str | None
) -> None:
    """Whatever ends it, Ctrl-C included, half of the draft written; only what the disk says is translated."""
    path = tmp_path / "table.csv"
    if before:
        path.write_text(before)

    def fail() -> None:
        with replacing(path) as draft:
            draft.write_text("hal")
            raise failure

    with pytest.raises(seen) as caught:
        fail()
    assert names(tmp_path) == (["table.csv"] if before else [])
    assert not before or path.read_text() == before
    assert caught.value is failure or caught.value.__cause__ is failure


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    """What could not be written, why, and what to do."""
    path = tmp_path / "m.zip"
    with pytest.raises(OutputError, match="No space left on device; free some space") as caught, replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(path) in str(caught.value)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    """The folder cannot be made; the file stays."""
    (tmp_path / "results").write_text("a file")
    with (
        pytest.raises(OutputError, match=r"results/run\.json cannot be written"),
        replacing(tmp_path / "results/run.json"),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "results").read_text() == "a file"


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    """The draft cannot be moved over a folder, and does not stay."""
    (tmp_path / "m.zip").mkdir()
    with (
        pytest.raises(OutputError, match=r"m\.zip cannot be written: (Is a directory|.*denied)"),
        replacing(tmp_path / "m.zip") as draft,
    ):
        draft.write_text("x")
    assert names(tmp_path) == ["m.zip"]


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of the system is one of ours."""

    def refuse(**options: object) -> tuple[int, str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(OutputError, match="Permission denied"), replacing(tmp_path / "m.zip"):
        pytest.fail("the block must not run")


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    """But the folder that it had to make; a file in place of the folder is said in words."""
    check_writable(tmp_path / "new" / "m.zip")
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"m\.zip cannot be written: .*choose another folder"):
        check_writable(tmp_path / "file" / "m.zip")


def test_a_block_may_remove_its_draft(tmp_path: Path) -> None:
    """Then there is nothing to move: that is said, not passed over."""
    with pytest.raises(OutputError, match="No such file"), replacing(tmp_path / "m.zip") as draft:
        draft.unlink()
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    """A temporary file is private; a result is an ordinary file."""
    path = tmp_path / "run.json"
    old = os.umask(0o027)
    try:
        with replacing(path) as draft:
            draft.write_text("x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_two_drafts_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Each has its own name; the last to end wins."""
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        with replacing(path) as second:
            assert first != second
            second.write_text("second")
        first.write_text("first")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


ADVICE = {
    errno.ENOSPC: "No space left on device; free some space",
    errno.EDQUOT: "quota exceeded; delete files",
    errno.EACCES: "Permission denied; choose another folder, or ask",
    errno.EROFS: "Read-only file system; choose a folder on a disk that can be written",
    errno.ENAMETOOLONG: "File name too long; choose a shorter name",
    errno.EIO: "the disk or the connection to it fails; check it",
    errno.ENODEV: "No such device; choose another folder, or try again",
}


@pytest.mark.parametrize("number", ADVICE)
def test_each_error_of_the_system_has_its_advice(tmp_path: Path, number: int) -> None:
    """Only a full disk is told to be made emptier."""
    with pytest.raises(OutputError, match=ADVICE[number]) as caught, replacing(tmp_path / "m.zip"):
        raise OSError(number, os.strerror(number))
    assert ("free some space" in str(caught.value)) == (number == errno.ENOSPC)


def test_a_folder_that_is_deleted_meanwhile_is_said(tmp_path: Path) -> None:
    """Another file is named where the error is about that one."""
    path = tmp_path / "out" / "m.zip"
    with pytest.raises(OutputError, match="folder was moved, deleted or disconnected meanwhile"), replacing(path):
        shutil.rmtree(path.parent)
    with pytest.raises(OutputError, match=r"m\.zip cannot be written: /elsewhere/x\.tif: Input/output error"):
        with replacing(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/elsewhere/x.tif")


@pytest.mark.parametrize(
    "name", ["ж" * 110 + ".ome.tif", "字" * 80 + ".ome.tif", "a." * 100 + "csv", "🔬" * 60 + ".png"]
)
def test_names_that_the_file_system_can_just_hold(tmp_path: Path, name: str) -> None:
    """The name of the draft is cut by bytes, between two characters."""
    with replacing(tmp_path / name) as draft:
        draft.write_text("x")
        assert draft.name.endswith(Path(name).suffix)
    assert names(tmp_path) == [name]


def test_texts_are_cut_between_characters() -> None:
    assert [shortened("aжж", most) for most in (5, 4, 3, 1)] == ["aжж", "aж", "aж", "a"]
    assert shortened("\udcff" * 4, 9) == "\udcff" * 4  # a name that is not UTF-8 and fits


def draft_of_a_dead_process(folder: Path, code: str) -> None:
    """Run code in a process that is killed inside the block that writes."""
    program = (
        f"import os; from pathlib import Path; from napari_milcnn.atomic_write import *; p = Path('x.csv')\n{code}"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=False)


def test_drafts_of_dead_processes_are_swept(tmp_path: Path) -> None:
    """Those of living ones, and files of other programs, stay."""
    draft_of_a_dead_process(tmp_path, "with replacing(p): os.kill(os.getpid(), 9)")
    draft_of_a_dead_process(tmp_path, "with replacing_folder(p) as d: (d / 'y').touch(); os.kill(os.getpid(), 9)")
    assert len(names(tmp_path)) == 2
    (tmp_path / ".hidden-abcdefgh.csv").touch()
    with replacing(tmp_path / "a.csv") as draft:
        sweep_drafts(tmp_path)
        assert names(tmp_path) == sorted([draft.name, ".hidden-abcdefgh.csv"])
    sweep_drafts(tmp_path / "missing")


def test_a_folder_whose_replacing_was_killed_gets_its_place_back(tmp_path: Path) -> None:
    """Between the two moves the old folder has another name."""
    with replacing_folder(tmp_path / "x.csv") as draft:
        (draft / "old").touch()
    draft_of_a_dead_process(tmp_path, "import napari_milcnn.atomic_write as a, pathlib; real = pathlib.Path.rename\n"
        "pathlib.Path.rename = lambda self, to: os.kill(os.getpid(), 9) if to == p else real(self, to)\n"
        "with replacing_folder(p): pass")  # fmt: skip
    assert not (tmp_path / "x.csv").exists()
    sweep_drafts(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["x.csv", "old"]


def test_files_that_belong_together_come_together(tmp_path: Path) -> None:
    for name in ("first", "second", "of the run before", "of somebody else"):
        (tmp_path / name).write_text("old")
    with replacing_files(tmp_path, ("first", "second", "of the run before")) as drafts:
        (drafts / "second").write_text("new")
        (drafts / "first").write_text("new")
        assert (tmp_path / "first").read_text() == (tmp_path / "second").read_text() == "old"
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"first": "new", "second": "new", "of somebody else": "old"}


def test_the_first_file_is_there_only_with_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two moves: what is left does not look like a whole set."""
    names = ("first", "second", "third")
    for name in names:
        (tmp_path / name).write_text("old")
    move, moved = Path.replace, []

    def killed_at_the_second(self: Path, target: Path) -> Path:
        moved.append(target.name)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", killed_at_the_second)

    def write_anew() -> None:
        with replacing_files(tmp_path, names) as drafts:
            for name in names:
                (drafts / name).write_text("new")

    with pytest.raises(KeyboardInterrupt):
        write_anew()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"second": "old", "third": "new"}


def test_a_full_disk_leaves_the_set_before_and_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("old")

    def fill_the_disk() -> None:
        with replacing_files(tmp_path, ("first", "second")) as drafts:
            (drafts / "second").write_text("new")
            with replacing(drafts / "first"):
                raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError) as caught:
        fill_the_disk()
    assert str(tmp_path / "first") in str(caught.value)
    assert "draft" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert (tmp_path / "first").read_text() == "old"


def test_sha256_of_the_standard() -> None:
    """The example of FIPS 180, and the empty one."""
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"") == hashlib.sha256().hexdigest()
