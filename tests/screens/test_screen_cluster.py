"""A screen on several processes: of this computer, and on workers of a real dask scheduler, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import dask
import pandas as pd
import psutil
import pytest
from distributed import KilledWorker
from distributed.comm import CommClosedError
from screen_plates import CHANNELS, plate_pixels, write_named

from conftest import lively_model
from napari_milcnn.errors import ComputeError, OptionsError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.model.package_read import load_model
from napari_milcnn.options import ScreenOptions
from napari_milcnn.screens import cluster
from napari_milcnn.screens.cluster import device_of
from napari_milcnn.screens.parts import FieldOfWell, ScreenJob, WellDone, WellTask, wells_of_steps
from napari_milcnn.screens.run import screen

NAMES = "plate_{well}_s{site}_w{channel}.tif"
CPU = {"device": "cpu", "precision": "float32", "reading": ImageReading(channels=CHANNELS)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Write a plate and a model into a folder."""
    write_named(tmp_path / "plate", plate_pixels(72), NAMES)
    lively_model().save(tmp_path / "m.zip")
    return tmp_path


def run(folder: Path, out: str, **more: object) -> list[WellDone]:
    options = {**CPU, **more}
    return wells_of_steps(screen(load_model(folder / "m.zip"), folder / "plate", folder / out, **options))


def check_equal_to_one_process(folder: Path, out: str) -> None:
    run(folder, "alone")
    both = [pd.read_csv(folder / name / "predictions.csv") for name in ("alone", out)]
    pd.testing.assert_frame_equal(*both)


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    call = [sys.executable, "-m", *words]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def scheduler_address(path: Path) -> str:
    for _ in range(600):
        if path.exists() and path.read_text():
            return str(json.loads(path.read_text())["address"])
        time.sleep(0.1)
    raise AssertionError("the scheduler does not begin")


@pytest.mark.slow
def test_workers_of_a_scheduler_give_the_table_of_one_process(folder):
    about = folder / "scheduler.json"
    local = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(about))
    worker = ("distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory",
              str(folder))  # fmt: skip
    said: list[str] = []
    with started("distributed.cli.dask_scheduler", "--port", "0", *local):
        address = scheduler_address(about)
        with started(*worker, address), started(*worker, address):
            done = run(folder, "out", scheduler=address, on_warning=said.append)
    assert len(done) == 4
    assert f"on {address}" in said[-1]
    check_equal_to_one_process(folder, "out")


def test_a_scheduler_that_does_not_answer_is_named(folder, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECTING", "100ms")
    with pytest.raises(ComputeError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .* dask scheduler"):
        run(folder, "out", scheduler="tcp://127.0.0.1:9")


@pytest.mark.slow
def test_a_killed_client_leaves_wells_that_are_not_done_again(folder):
    out = folder / "out"
    words = ("screen", str(folder / "plate"), "-m", str(folder / "m.zip"), "--out", str(out), "--workers", "2",
             "--device", "cpu", "--precision", "float32", "--channels", ",".join(CHANNELS))  # fmt: skip
    with started("napari_milcnn", *words) as process:
        while process.poll() is None and not list(out.glob("parts/plate/*/part.json")):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    written = {path: path.stat().st_mtime_ns for path in out.glob("parts/plate/*/part.json")}
    assert written
    done = run(folder, "out", resume=True)
    assert sum(one.before for one in done) >= len(written)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    check_equal_to_one_process(folder, "out")


def test_several_workers_without_dask_say_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OptionsError, match=r"pip install 'napari-milcnn\[cluster\]'"):
        run(folder, "out", workers=2)


def test_processes_of_one_computer_take_its_gpus_in_turn():
    assert [device_of("auto", name, 2) for name in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert device_of("cuda", 1, 2) == "cuda:1"
    assert (device_of("auto", 1, 1), device_of("cpu", 1, 2), device_of("cuda:3", 1, 4)) == ("auto", "cpu", "cuda:3")
    assert device_of("auto", "tcp://node", 2) == "auto"


class FakeClient:
    """A cluster on which one well kills every worker that it meets."""

    status, scheduler = "running", None

    def __init__(self, deadly: str) -> None:
        self.deadly, self.tasks = deadly, []

    def nthreads(self) -> dict[str, int]:
        """Say that there is one worker."""
        return {"worker": 1}

    def submit(self, function, job, task, version, pure):
        """Do a task, or die of it."""
        self.tasks.append([well.well for well in task])
        future: Future[list[WellDone]] = Future()
        if self.deadly == "scheduler":
            future.set_exception(CommClosedError("in <TCP (closed)>: Connection reset by peer"))
        elif self.deadly in self.tasks[-1]:
            future.set_exception(KilledWorker("task", None, 3))
        else:
            future.set_result([WellDone("p", well.well, len(well.fields)) for well in task])
        return future


def test_a_scheduler_that_dies_is_said(folder):
    wells = [WellTask("p", "A01", (FieldOfWell("1", "", "", str(folder / "a.tif"), "", "a"),))]
    job = ScreenJob(folder / "out", folder / "m.zip", "", "way", ImageReading())
    with pytest.raises(ComputeError, match=r"the scheduler .* is gone; all wells that are done are kept: .*--resume"):
        list(cluster._HandedOut(FakeClient("scheduler"), job, [wells]).results())


def test_a_well_that_kills_workers_fails_alone(folder):
    names = ("A01", "A02", "B01")
    wells = [WellTask("p", name, (FieldOfWell("1", "", "", str(folder / name), "", name),)) for name in names]
    job = ScreenJob(folder / "out", folder / "m.zip", "", "way", ImageReading())
    client = FakeClient("A02")
    done = list(cluster._HandedOut(client, job, [wells]).results())
    assert client.tasks == [list(names), ["A01"], ["A02"], ["B01"]]
    assert [(one.well, len(one.failures)) for one in done] == [("A01", 0), ("A02", 1), ("B01", 0)]
    assert "workers were killed 4 times" in done[1].failures[0]
    rows = pd.read_parquet(job.part(wells[1]) / "predictions.parquet")
    assert list(rows["error"]) == list(done[1].failures)


@pytest.mark.slow
def test_workers_of_this_computer_listen_to_this_computer_alone() -> None:
    """Whoever reaches a port of a dask scheduler can run programs; the dashboard is on another port.

    Neither do they spend their time on dask's profiler: what is set here reaches the processes.
    """
    with cluster._client(ScreenOptions(workers=2)) as client:
        assert set(client.run(dask.config.get, "distributed.worker.profile.enabled").values()) == {False}
        me = psutil.Process()
        open_ports = [one for process in (me, *me.children(recursive=True)) for one in process.net_connections("inet")]
    assert {one.laddr.ip for one in open_ports if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
