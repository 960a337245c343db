"""A training that is killed and resumed, or shared by two processes, is the training it would have been."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest
import torch

from conftest import PATIENCE
from napari_milcnn import new_model, read_labels, train
from napari_milcnn.errors import OptionsError, OutputError

FAST = {"epochs": 4, "epoch_steps": 1, "batch_size": 4, "patch": 80, "device": "cpu", "precision": "float32"}
SHARED_BY_TWO = """
import atexit
import os
import sys
from pathlib import Path
import torch
from napari_milcnn import new_model, read_labels, train
torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
table = read_labels(folder / "labels.csv")

def note_threads():
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    left = [name for name in threads if "gloo" in name]
    (folder / f"threads {rank}.txt").write_text("".join(left))

atexit.register(note_threads)  # the earlier it is registered, the later it is called
for kept in ("batch norm", "no batch norm"):  # the same processes train twice
    model = new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16), batch_norm=kept == "batch norm")
    *_, report = train(model, table, checkpoint=folder / f"{kept}.checkpoint", epochs=3, epoch_steps=1, batch_size=4,
                       patch=80, device="cpu", precision="float32", learning_rate=1e-5)
    (folder / f"{kept} {rank}.txt").write_text(report.last.digest)
"""


def model_for(table):
    """Make a narrow, quick network."""
    return new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))


def state_of(path):
    """Read the state of a training."""
    return torch.load(path, weights_only=True)


@pytest.fixture
def server():
    """Return what starts processes; one server imports once what they need, an optimiser torch._dynamo."""
    found = get_context("forkserver")
    found.set_forkserver_preload(["napari_milcnn.training.trainer", "torch._dynamo"])
    return found


def go_on(folder, kept, epochs_done):
    """Train, or what is left of a training, in the process that calls this."""
    torch.set_num_threads(1)
    table = read_labels(folder / "labels.csv")
    options = FAST | {"epochs": 20}
    for _ in train(model_for(table), table, checkpoint=folder / f"{kept}.checkpoint", resume=True, **options):
        epochs_done.release()


def begin(server, folder, kept):
    """Start, or go on with, a training in a process of its own; return the process and a semaphore of its epochs."""
    epochs_done = server.Semaphore(0)
    process = server.Process(target=go_on, args=(folder, kept, epochs_done))
    process.start()
    return process, epochs_done


def finish(server, folder, kept):
    """Run a training, or what is left of it, to its end."""
    process, _ = begin(server, folder, kept)
    process.join()
    assert process.exitcode == 0


def train_in_two_processes(folder):
    """Train three epochs in two processes, at a rate so small that rounding errors stay small."""
    script = folder / "script.py"
    script.write_text(SHARED_BY_TWO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, *launcher, str(script), str(folder)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE / 1000)
    assert done.returncode == 0, done.stderr


def test_resuming_gives_the_same_model(table, tmp_path):
    """Left after the second of four epochs and taken up again: digest, curve and best are those of one run."""
    whole = list(train(model_for(table), table, **FAST))
    kept = tmp_path / "kept.checkpoint"
    first = train(model_for(table), table, checkpoint=kept, **FAST)
    for _ in range(3):
        next(first)  # the state of the second epoch is written when the third report is asked for
    rest = list(train(model_for(table), table, checkpoint=kept, resume=True, **FAST))
    assert [report.epoch for report in rest] == [3, 4]
    assert rest[-1].last.digest == whole[-1].last.digest
    assert rest[-1].best.digest == whole[-1].best.digest
    assert list(train(model_for(table), table, checkpoint=kept, resume=True, **FAST)) == []


def test_a_checkpoint_of_another_training_is_refused(table, tmp_path):
    """The message names the option that differs; a file that is no checkpoint is said to be none."""
    kept = tmp_path / "kept.checkpoint"
    list(train(model_for(table), table, checkpoint=kept, **FAST | {"epochs": 1}))
    with pytest.raises(OptionsError, match=r"another training, which differs in option epochs \(was 1, is 4\)"):
        next(train(model_for(table), table, checkpoint=kept, resume=True, **FAST))
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(OptionsError, match="is not a checkpoint of a training"):
        next(train(model_for(table), table, checkpoint=kept, resume=True, **FAST))
    whole = {"format": 2, "run": {}, "network": {}, "averaged": {}, "optimiser": {}, "schedule": {}, "card": "{}",
             "best": {}, "best_card": "{}"}  # fmt: skip
    for change, match in (
        ({"format": torch.zeros(2)}, "it has no format number"), ({"format": 7}, "is a checkpoint of format 7"),
        ({"run": {"a": torch.zeros(2)}}, "its run is missing or damaged"), ({"best": {"a": 1}}, "its best is missing"),
        ({"card": None}, "its card is missing"), ({"run": {3: 4}}, "its run is missing"),
    ):  # fmt: skip
        torch.save({**whole, **change}, kept)
        with pytest.raises(OptionsError, match=match):
            next(train(model_for(table), table, checkpoint=kept, resume=True, **FAST))
    with pytest.raises(OptionsError, match="resume needs the checkpoint"):
        next(train(model_for(table), table, resume=True, **FAST))


def test_too_little_memory_is_no_fault_of_the_checkpoint(table, tmp_path, monkeypatch):
    """Nobody is told to start from scratch because memory ran out while a training was taken up again."""
    kept = tmp_path / "kept.checkpoint"
    list(train(model_for(table), table, checkpoint=kept, **FAST | {"epochs": 1}))

    def runs_out(*_arguments):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("napari_milcnn.training.trainer._Trainer.restore", runs_out)
    with pytest.raises(torch.OutOfMemoryError):
        next(train(model_for(table), table, checkpoint=kept, resume=True, **FAST | {"epochs": 1}))


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
def test_a_disk_that_is_full_is_said_in_words(table, tmp_path):
    """The system's reason and the advice; nothing is left beside the checkpoint of the epoch before."""
    import resource

    kept = tmp_path / "kept.checkpoint"
    steps = train(model_for(table), table, checkpoint=kept, **FAST)
    next(steps), next(steps)
    before, limit = kept.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"kept\.checkpoint cannot be written: File too large; .*on another disk"):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert kept.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_with_former_option_names_goes_on(table, tmp_path):
    """As an early version wrote it: among the facts of the run, and on the cards in it."""
    options = {**FAST, "epochs": 2, "vary_intensity": 0.1}
    *_, whole = train(model_for(table), table, **options)
    kept = tmp_path / "kept.checkpoint"
    first = train(model_for(table), table, checkpoint=kept, **options)
    next(first), next(first)
    state = state_of(kept)
    former = {"flip_rotate": "turns", "vary_intensity": "gain", "num_workers": "readers", "max_minutes": "minutes"}
    for new, old in former.items():
        state["run"] = {name.replace(f"option {new}", f"option {old}"): value for name, value in state["run"].items()}
        state |= {name: state[name].replace(f'"{new}"', f'"{old}"') for name in ("card", "best_card")}
    assert "option turns" in state["run"]
    assert '"gain":0.1' in state["card"]
    torch.save(state, kept)
    (last,) = train(model_for(table), table, checkpoint=kept, resume=True, **options)
    assert last.last.digest == whole.last.digest


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.slow
def test_killed_three_times(table, tmp_path, server):
    """Kill -9 at three random moments, resumed each time: the weights of a run that was not killed, bit by bit."""
    finish(server, tmp_path, "whole")
    rng = random.Random(0)
    for _ in range(3):
        process, epochs_done = begin(server, tmp_path, "killed")
        for _ in range(rng.randint(1, 4)):
            assert epochs_done.acquire(timeout=PATIENCE / 1000)
        time.sleep(rng.uniform(0, 0.05))  # in the midst of an epoch, or while its state is written
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    finish(server, tmp_path, "killed")
    whole, killed = (state_of(tmp_path / f"{name}.checkpoint") for name in ("whole", "killed"))
    for part in ("network", "best"):
        assert all(torch.equal(whole[part][name], killed[part][name]) for name in whole[part])
    assert whole["card"] == killed["card"]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.slow
def test_two_processes_train_as_one(table, tmp_path):
    """Both processes end with the same weights; without batch norm losses and weights are those of one process.

    With batch norm each process of a CPU normalises by its own share, so the losses are other ones. Adam turns a
    rounding error of a tiny gradient into a whole step, hence the small rate.
    """
    train_in_two_processes(tmp_path)
    for kept in ("batch norm", "no batch norm"):
        two = state_of(tmp_path / f"{kept}.checkpoint")
        assert json.loads(two["card"])["training"]["device"] == "cpu, float32 (2 processes)"
        assert (tmp_path / f"{kept} 0.txt").read_text() == (tmp_path / f"{kept} 1.txt").read_text()
    assert [(tmp_path / f"threads {rank}.txt").read_text() for rank in (0, 1)] == ["", ""]
    plain = new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16), batch_norm=False)
    *_, one = train(plain, table, **FAST | {"epochs": 3, "learning_rate": 1e-5})
    curve = json.loads(two["card"])["training"]["curve"]
    assert [row["loss"] for row in curve] == pytest.approx([row.loss for row in one.last.card.training.curve], rel=1e-5)
    for name, weights in one.last.network.state_dict().items():
        torch.testing.assert_close(two["network"][name], weights, rtol=1e-3, atol=1e-4)
