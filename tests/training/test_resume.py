"""A training that is killed and resumed, or shared by two processes, is the training it would have been."""

from __future__ import annotations

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
from napari_milcnn.errors import OptionsError

FAST = {"epochs": 4, "batch_size": 4, "patch": 80, "device": "cpu", "precision": "float32"}
SCRIPT = """
import sys
import warnings
from pathlib import Path
import torch
from napari_milcnn import new_model, read_labels, train
torch.set_num_threads(1)
folder, kept = Path(sys.argv[1]), sys.argv[2]
table = read_labels(folder / "labels.csv")
model = new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))
print("begun", flush=True)
for report in train(model, table, checkpoint=folder / f"{kept}.checkpoint", resume=True, epochs=int(sys.argv[3]),
                    batch_size=4, patch=80, device="cpu", precision="float32", learning_rate=float(sys.argv[4])):
    print(report.epoch, flush=True)
"""


def model_for(table):
    """Make a narrow, quick network."""
    return new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))


def state_of(path):
    """Read the state of a training."""
    return torch.load(path, weights_only=True)


def begin(folder, kept, epochs, rate=2e-3):
    """Start, or go on with, a training in a process of its own."""
    call = [sys.executable, "-c", SCRIPT, str(folder), kept, str(epochs), str(rate)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)


def finish(folder, kept, epochs, rate=2e-3):
    """Run a training, or what is left of it, to its end."""
    with begin(folder, kept, epochs, rate) as process:
        process.communicate()
        assert process.returncode == 0


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
    with pytest.raises(OptionsError, match="is no checkpoint of a training"):
        next(train(model_for(table), table, checkpoint=kept, resume=True, **FAST))
    with pytest.raises(OptionsError, match="resume needs the checkpoint"):
        next(train(model_for(table), table, resume=True, **FAST))


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
def test_two_processes_train_as_one(table, tmp_path):
    """Batches shared by two processes: the losses of one process to six digits, weights up to rounding.

    The rate is small, since Adam turns a rounding error of a tiny gradient into a whole step.
    """
    finish(tmp_path, "one", 3, 1e-5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port),
            str(script), str(tmp_path), "two", "3", "1e-5"]  # fmt: skip
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    one, two = (state_of(tmp_path / f"{name}.checkpoint") for name in ("one", "two"))
    assert '"device":"cpu, float32 (2 processes)"' in two["card"].replace(", ", ", ")
    for name, weights in one["network"].items():
        torch.testing.assert_close(two["network"][name], weights, rtol=1e-3, atol=1e-4)
