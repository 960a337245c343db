"""Wells classified by the workers of dask.distributed: processes of this computer, or of a cluster.

Decisions:

- What travels is small: the paths of a well to the worker, and that it is done back. Images, the model and the results
  are read and written by the worker itself, so each of them must see the same folders.
- A worker loads the model once. It classifies one task at a time, with as many threads as dask gave it.
- Only some tasks are handed out at a time, so that the scheduler holds few of them, however large the screen.
- A worker that dies is replaced, and its task done again by another one, except for the wells that are on disk. A well
  that has killed four workers is tried alone; if it kills four more, its fields fail, and the others go on.
- Workers of this computer never pause for memory, as dask would have it: they hold no results that could be written to
  the disk to make room. One that exceeds its limit is ended, and counts as killed.
- On this computer dask does not watch itself as closely as it would: its profiler, which stops a worker 100 times a
  second, its clocks and monitors took a tenth of the time of the workers, and nobody looks at them.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Final

import psutil
import torch

from napari_milcnn.errors import ComputeError, MilcnnError, OptionsError, OutputError
from napari_milcnn.inference.devices import keep_freed_memory, limit_memory
from napari_milcnn.options import ScreenOptions
from napari_milcnn.results.opened import RECORD
from napari_milcnn.results.record import versions
from napari_milcnn.screens.parts import (
    ScreenJob,
    WellDone,
    WellTask,
    classify_wells,
    fail_well,
    tasks_of,
    wells_of_steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future

_MOST_WAITING: Final = 4
"""Tasks that are handed out for each thread of the workers."""
_LEAST_WAITING: Final = 64
_LIKELY_WORKERS: Final = 32
"""Workers for which tasks are cut on a cluster, at least: more may join while the screen is running."""
_LOOK_AROUND: Final = 2.0
"""Seconds after which a wait is interrupted, to see whether there are workers, and to let the caller stop."""
_CONNECTING: Final = "30s"
_OF_LOCAL_WORKERS: Final = {
    **{f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")},
    "distributed.worker.memory.monitor-interval": "500ms", "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s", "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.disk": False,
}  # fmt: skip
"""Configuration of dask for workers of this computer."""


def on_workers(
    job: ScreenJob, wells: Sequence[WellTask], options: ScreenOptions, say: Callable[[str], None]
) -> Iterator[WellDone | str]:
    """Classify wells on the workers that the options name; yields each well that is done, or what is waited for.

    Raises
    ------
    OptionsError
        If dask.distributed is not installed, here or on the workers, or the workers have another version.
    ComputeError
        If the scheduler is gone, or cannot be reached.
    MilcnnError
        As `classify_wells` does.
    """
    with _quiet(), _client(options) as client:
        say(_workers_in_words(client, options))
        threads = sum(client.nthreads().values())
        workers = threads if options.scheduler is None else max(threads, _LIKELY_WORKERS)
        yield from _HandedOut(client, job, tasks_of(wells, workers)).results()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask from logging what the errors here say."""
    before = {name: logging.getLogger(name).level for name in ("distributed", "asyncio")}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _client(options: ScreenOptions) -> Iterator[Client]:
    """Connect to the scheduler, or start workers on this computer, which end with the block."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise OptionsError(
            "several workers need dask.distributed; install it by: pip install 'napari-milcnn[cluster]', or leave out "
            "workers and scheduler"
        ) from error
    with ExitStack() as stack:
        if options.scheduler is None:
            share = psutil.virtual_memory().total // options.workers
            memory = share if options.memory_limit == "auto" else options.memory_limit.replace(" ", "")
            stack.enter_context(dask.config.set(_OF_LOCAL_WORKERS))
            cluster = stack.enter_context(LocalCluster(
                n_workers=options.workers, threads_per_worker=1, processes=True, memory_limit=memory,
                dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
            ))  # fmt: skip
            yield stack.enter_context(Client(cluster))
            return
        try:
            client = stack.enter_context(Client(options.scheduler, timeout=_CONNECTING))
        except (OSError, ValueError) as error:
            raise ComputeError(
                f"no scheduler answers at {options.scheduler} ({type(error).__name__}); start one by: dask scheduler, "
                "and give the address that it prints"
            ) from error
        yield client


def _shows_dashboard() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def _workers_in_words(client: Client, options: ScreenOptions) -> str:
    count = len(client.nthreads())
    link = f"; dashboard: {client.dashboard_link}" if options.scheduler is not None or _shows_dashboard() else ""
    where = options.scheduler or "this computer"
    return f"{count} worker{'s'[: count != 1]} on {where}{'' if count else '; waiting for some'}{link}"


class _HandedOut:
    """Tasks on their way to the workers and back."""

    def __init__(self, client: Client, job: ScreenJob, tasks: Sequence[Sequence[WellTask]]) -> None:
        self.client, self.job = client, job
        self.left = iter(tasks)
        self.running: dict[Future, Sequence[WellTask]] = {}
        self.ended: Queue[Future] = Queue()

    def results(self) -> Iterator[WellDone | str]:
        """Yield each well that is done; if the iteration ends early, tasks that have not begun are taken back."""
        looked, most = -_LOOK_AROUND, _LEAST_WAITING
        try:
            while True:
                if time.monotonic() - looked > _LOOK_AROUND:
                    looked, threads = time.monotonic(), self._threads()
                    most = max(_LEAST_WAITING, _MOST_WAITING * threads)
                    if not threads:
                        yield "waiting for workers"
                self._hand_out(most)
                if not self.running:
                    return
                try:
                    future = self.ended.get(timeout=_LOOK_AROUND)
                except Empty:
                    yield ""
                    continue
                yield from self._result(future)
        finally:
            if self.running and self.client.status == "running":
                self.client.cancel(list(self.running))

    def _threads(self) -> int:
        try:
            return sum(self.client.nthreads().values())
        except (OSError, ValueError, TimeoutError) as error:
            raise _no_scheduler(self.client) from error

    def _hand_out(self, most: int) -> None:
        while len(self.running) < most:
            task = next(self.left, None)
            if task is None:
                return
            self._submit(task)

    def _submit(self, task: Sequence[WellTask]) -> None:
        future = self.client.submit(run_on_worker, self.job, list(task), versions()["napari-milcnn"], pure=False)
        self.running[future] = task
        future.add_done_callback(self.ended.put)

    def _result(self, future: Future) -> Iterator[WellDone]:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError

        task = self.running.pop(future)
        try:
            yield from future.result()
        except KilledWorker as error:
            if len(task) > 1:
                for well in task:
                    self._submit([well])
            else:
                yield fail_well(self.job, task[0], _killed(error))
        except (FutureCancelledError, CommClosedError) as error:
            raise _no_scheduler(self.client) from error
        except MilcnnError:
            raise
        except ImportError as error:
            raise OptionsError(
                f"a worker cannot load what it needs ({error}); install the same napari-milcnn there"
            ) from error


def _no_scheduler(client: Client) -> ComputeError:
    address = client.scheduler.address if client.scheduler is not None else "of this run"
    return ComputeError(
        f"the scheduler {address} is gone; all wells that are done are kept: start it again, and go on with resume "
        "(command line: --resume)"
    )


def _killed(error: Any) -> str:
    return (
        f"workers were killed {error.allowed_failures + 1} times while they classified this well alone, as when memory "
        "runs out; give each worker more memory (option memory_limit), or fewer workers, and try again with "
        "retry_failed (command line: --retry-failed)"
    )


def run_on_worker(job: ScreenJob, wells: Sequence[WellTask], version: str) -> list[WellDone]:
    """Classify wells on the worker on which this runs.

    Raises
    ------
    OptionsError
        If the worker has another version of this program than the one that handed out the task.
    OutputError
        If the worker does not see the folder of the screen.
    MilcnnError
        As `classify_wells` does.
    """
    from distributed import get_worker

    worker = get_worker()
    if versions()["napari-milcnn"] != version:
        raise OptionsError(f"the worker {worker.address} has napari-milcnn {versions()['napari-milcnn']}, and the run "
                           f"was started with {version}; install the same version")  # fmt: skip
    if not (job.out / RECORD).is_file():
        raise OutputError(f"the worker {worker.address} does not see the folder {job.out}; images, model and results "
                          "must lie on a disk that all workers share, under the same path")  # fmt: skip
    _set_up(worker.state.nthreads, worker.memory_manager.memory_limit)
    device = device_of(str(job.evidence.get("device", "auto")), worker.name, torch.cuda.device_count())
    return wells_of_steps(classify_wells(replace(job, evidence={**job.evidence, "device": device}), wells))


@cache
def _set_up(threads: int, memory: int | None) -> None:
    """Prepare this worker, once: its threads, and what memory it may use."""
    keep_freed_memory()
    torch.set_num_threads(max(1, threads))
    limit_memory(memory)


def device_of(device: str, name: object, gpus: int) -> str:
    """Return the device of a worker: processes of one computer, which are numbered, take its GPUs in turn."""
    if device in ("auto", "cuda") and isinstance(name, int) and gpus > 1:
        return f"cuda:{name % gpus}"
    return device
