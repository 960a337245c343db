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

import pytest
import torch

from napari_milcnn import new_model, train
from napari_milcnn.errors import OptionsError, OutputError

FAST = {"epochs": 4, "epoch_steps": 1, "batch_size": 4, "patch": 80, "device": "cpu", "precision": "float32"}
SCRIPT = """
import atexit
import os
import sys
from pathlib import Path
import torch
from napari_milcnn import new_model, read_labels, train
torch.set_num_threads(1)
folder, kept = Path(sys.argv[1]), sys.argv[2]
table = read_labels(folder / "labels.csv")
model = new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16), batch_norm=sys.argv[5] == "batch norm")
print("begun", flush=True)

def note_threads():
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    left = [name for name in threads if "gloo" in name]
    (folder / f"{kept} {os.environ.get('RANK', 0)} threads.txt").write_text("".join(left))

atexit.register(note_threads)  # the earlier it is registered, the later it is called
for report in train(model, table, checkpoint=folder / f"{kept}.checkpoint", resume=True, epochs=int(sys.argv[3]),
                    epoch_steps=1, batch_size=4, patch=80, device="cpu", precision="float32",
                    learning_rate=float(sys.argv[4])):
    print(report.epoch, flush=True)
if "RANK" in os.environ:
    (folder / f"{kept} {os.environ['RANK']}.txt").write_text(report.last.digest)
    next(train(model, table, epochs=1, epoch_steps=1, device="cpu"))  # a second training by the same processes
"""


def model_for(table):
    """Make a narrow, quick network."""
    return new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))


def state_of(path):
    """Read the state of a training."""
    return torch.load(path, weights_only=True)


def begin(folder, kept, epochs):
    """Start, or go on with, a training in a process of its own."""
    call = [sys.executable, "-c", SCRIPT, str(folder), kept, str(epochs), "2e-3", "batch norm"]
    return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)


def finish(folder, kept, epochs):
    """Run a training, or what is left of it, to its end."""
    with begin(folder, kept, epochs) as process:
        process.communicate()
        assert process.returncode == 0


def train_in_processes(count, folder, kept, batch_norm):
    """Train three epochs in some processes, at a rate so small that rounding errors stay small."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", str(port)]
    call = [sys.executable, *launcher, str(script), str(folder), kept, "3", "1e-5", batch_norm]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return state_of(folder / f"{kept}.checkpoint")


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
def test_killed_five_times(table, tmp_path):
    """Kill -9 at five random moments, resumed each time: the weights of a run that was not killed, bit by bit."""
    finish(tmp_path, "whole", 30)
    rng, kills = random.Random(0), 0
    for _ in range(5):
        with begin(tmp_path, "killed", 30) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.1, 0.6))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert kills == 5
    finish(tmp_path, "killed", 30)
    whole, killed = (state_of(tmp_path / f"{name}.checkpoint") for name in ("whole", "killed"))
    for part in ("network", "best"):
        assert all(torch.equal(whole[part][name], killed[part][name]) for name in whole[part])
    assert whole["card"] == killed["card"]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["batch norm", "no batch norm"])
def test_two_processes_train_as_one(table, tmp_path, batch_norm):
    """Both processes end with the same weights; without batch norm losses and weights are those of one process.

    With batch norm each process of a CPU normalises by its own share, so the losses are other ones. Adam turns a
    rounding error of a tiny gradient into a whole step, hence the small rate.
    """
    two = train_in_processes(2, tmp_path, "two", batch_norm)
    assert json.loads(two["card"])["training"]["device"] == "cpu, float32 (2 processes)"
    assert (tmp_path / "two 0.txt").read_text() == (tmp_path / "two 1.txt").read_text()
    assert [(tmp_path / f"two {rank} threads.txt").read_text() for rank in (0, 1)] == ["", ""]
    if batch_norm == "batch norm":
        return
    one = train_in_processes(1, tmp_path, "one", batch_norm)
    losses = [[row["loss"] for row in json.loads(state["card"])["training"]["curve"]] for state in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, weights in one["network"].items():
        torch.testing.assert_close(two["network"][name], weights, rtol=1e-3, atol=1e-4)
