"""Files made to hurt, from earlier runs of `make fuzz` and from bug reports, and the harness that tries them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_parts import Case
from fuzz_worker import Worker

from fuzz import try_case

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))


@pytest.fixture(scope="module")
def bare() -> Iterator[Worker]:
    """Start a process that imports nothing of the package."""
    worker = Worker(preload=False)
    yield worker
    worker.close()


def test_every_case_of_the_corpus_is_read_or_refused(tmp_path: Path) -> None:
    """Within the limits of memory and time, and nothing else happens."""
    assert CORPUS
    worker = Worker()
    found = {path.name: try_case(worker, Case.from_json(path.read_text()), tmp_path / "case") for path in CORPUS}
    worker.close()
    assert {name: outcome for name, outcome in found.items() if not outcome.is_good} == {}


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        ("foreign", "foreign"),
        ("memory", "memory"),
        ("code", "code"),
        ("write", "code"),
        ("crash", "crash"),
        ("", "fine"),
    ],
)
def test_the_harness_notices(bare: Worker, tmp_path: Path, act: str, kind: str) -> None:
    """A case that does what no file may do."""
    assert try_case(bare, Case("misbehave", {"act": act.encode()}), tmp_path / "case").kind == kind


def test_the_harness_ends_what_does_not_end(bare: Worker, tmp_path: Path) -> None:
    """A case that never ends, and after it one that does."""
    (tmp_path / "hang").mkdir()
    Case("misbehave", {"act": b"hang"}).write(tmp_path / "hang")
    assert bare.run("misbehave", tmp_path / "hang", patience=1).kind == "hang"
    assert try_case(bare, Case("misbehave", {"act": b""}), tmp_path / "case").kind == "fine"
