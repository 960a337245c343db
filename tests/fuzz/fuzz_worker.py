"""A process that opens files made to hurt, one after another, within limits of memory and time.

`Worker` starts it and speaks with it, one line of JSON a case. What may come of a case:

- fine: it was read. refused: a `MilcnnError` says why.
- foreign: any other exception. memory: more than `MEMORY` was needed, also where that was turned into a refusal.
- hang: more than `SECONDS` of processor time, or none in `PATIENCE` and no end. crash: the process ended.
- code: the file made the process start a program, write, delete, or use the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

MEMORY = 2 << 30
SECONDS = 20
PATIENCE = 120
GOOD = ("fine", "refused")
_LARGEST_PLANE = 1 << 24
_SOURCES = Path(__file__).parents[2] / "src"
"""What is tried is this checkout, whatever is installed."""
_FORBIDDEN = frozenset({
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "os.mkdir",
    "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.kill", "shutil.rmtree",
    "socket.connect", "socket.getaddrinfo", "urllib.Request", "ctypes.dlopen",
})  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Outcome(NamedTuple):
    """What came of a case: one of the words above, and a sentence or the end of a traceback."""

    kind: str
    text: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the case was read or refused with a reason."""
        return self.kind in GOOD


class Worker:
    """The process, started anew after a crash or a hang. `preload` imports the package before memory is counted."""

    def __init__(self, preload: bool = True) -> None:
        self._preload = preload
        self._process: subprocess.Popen[str] | None = None

    def run(self, target: str, folder: Path, patience: float = PATIENCE) -> Outcome:
        """Open the case in a folder."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([target, str(folder)]) + "\n")
        process.stdin.flush()
        worked = -1.0
        while not select.select([process.stdout], [], [], patience)[0]:
            before, worked = worked, sum(psutil.Process(process.pid).cpu_times()[:2])
            if worked <= before:  # else the computer is busy
                self.close()
                return Outcome("hang", f"no answer, and nothing done in {patience:g} s")
        line = process.stdout.readline()
        if line:
            found = Outcome(*json.loads(line))
            if found.kind == "memory":  # what such a case leaves in memory would be held against the next ones
                self.close()
            return found
        status = process.wait()
        self.close()
        if status == -signal.SIGPROF:
            return Outcome("hang", f"more than {SECONDS} s of processor time")
        return Outcome("crash", f"the process ended with {status}")

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__)), *(["preload"] if self._preload else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_SOURCES)}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                                stderr=subprocess.DEVNULL)  # fmt: skip


def main(preload: bool) -> None:
    """Open the cases that standard input names."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = _Watch()
    if preload:
        import napari_milcnn.labels.labelling
        import napari_milcnn.results.replay
        import napari_milcnn.screens.opened_wells  # noqa: F401

        _open_model(None)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    for line in sys.stdin:
        target, folder = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        outcome = watch.outcome(TARGETS[target], Path(folder))
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


class _Watch:
    """Notes what a case does to the machine; Python tells it of each such act before it happens."""

    def __init__(self) -> None:
        self._acts: list[str] | None = None
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._acts is None:
            return
        writes = event == "open" and len(arguments) > 2 and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if event in _FORBIDDEN or (writes and arguments[0] not in ("/dev/null", os.devnull)):
            self._acts.append(f"{event} {arguments!r:.200}")

    def outcome(self, target: Callable[[Path], None], folder: Path) -> Outcome:
        """Open one case and say what came of it."""
        from napari_milcnn.errors import MilcnnError

        self._acts = acts = []
        try:
            target(folder)
            found = Outcome("fine")
        except MilcnnError as error:
            short = any(isinstance(one, MemoryError) for one in _causes(error))
            found = Outcome("memory" if short else "refused", str(error))
        except MemoryError:
            found = Outcome("memory", traceback.format_exc()[-1500:])
        except BaseException:  # noqa: BLE001 -- what this is here to find, SystemExit included
            found = Outcome("foreign", traceback.format_exc()[-2500:])
        finally:
            self._acts = None
        return Outcome("code", "; ".join(acts)) if acts else found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# What is done with a case. A file has the name that the target expects.


def _read_planes(image: Any) -> None:
    height, width = image.plane_shape
    small = height * width * len(image.channels) <= _LARGEST_PLANE
    for plane in {0, len(image.planes) - 1}:
        image.plane(plane) if small else image.plane(plane, (0,), (0, min(height, 256), 0, min(width, 256)))


def _open_image(folder: Path) -> None:
    import napari_milcnn as mil

    fields = sorted(folder.glob("image.zarr/A/1/0"))
    for path in fields or sorted(folder.glob("image*")):
        with mil.open_image(path) as image:
            _read_planes(image)


def _open_own_labels(folder: Path) -> None:
    import numpy as np

    from napari_milcnn.images.open import open_image
    from napari_milcnn.inference.cells import read_label_image

    for path in sorted(folder.glob("image*")):
        with open_image(path) as labels:
            side = [min(length, 4096) for length in labels.plane_shape]
        read_label_image(path, open_image(np.zeros(side, np.uint8)))


def _open_labels(folder: Path) -> None:
    import napari_milcnn as mil

    table = mil.read_labels(folder / "labels.csv")
    str((table.classes, table.counts(), table.single_label, table.split_warnings()))


def _open_labelling(folder: Path) -> None:
    from napari_milcnn.labels.labelling import open_labelling

    open_labelling([folder / "labels.csv"])


def _open_results(folder: Path) -> None:
    from napari_milcnn.results.layout import with_layout
    from napari_milcnn.results.read import read_results

    found = read_results(folder)
    str((found.images, found.wells, found.labelled, found.targets(), found.missing, found.names_of(0)))
    for row in range(min(3, len(found.table))):
        str((found.plane_of(row), found.rows_of_image(row)))
    if (folder / "layout.csv").exists():
        str(with_layout(found, folder / "layout.csv").images)


def _open_screen_source(folder: Path) -> None:
    from napari_milcnn.errors import MilcnnError
    from napari_milcnn.screens.sources.open import open_screen

    for source, layout in (
        ("screen", None),
        ("screen", "layout.csv"),
        ("screen", "layout.parquet"),
        ("images.csv", None),
    ):
        try:
            found = open_screen(folder / source, layout=None if layout is None else folder / layout)
        except MilcnnError:
            continue
        str((found.summary, found.missing))


def _open_screen(folder: Path) -> None:
    from napari_milcnn.screens.opened_wells import wells_of_results
    from napari_milcnn.screens.read import read_screen

    found = read_screen(folder)
    str((found.images, found.wells, found.labelled, found.absent, found.growth, wells_of_results(found)))
    for row in range(min(2, len(found.table))):
        str((found.names_of(row), found.objects_of(row), found.plane_of(row), found.rows_of_image(row)))


def _open_record(folder: Path) -> None:
    from napari_milcnn.results.replay import recorded_model

    recorded_model(folder / "run.json")


def _open_training(folder: Path) -> None:
    from napari_milcnn.training.record import stopped_training

    stopped_training(folder)


def _open_checkpoint(folder: Path) -> None:
    from napari_milcnn.training.checkpoint import load_checkpoint

    load_checkpoint(folder / "m.checkpoint", {"labels": "a" * 64, "option epochs": 3})


def _open_model(folder: Path | None) -> None:
    """Load a model and classify noise; None loads a shipped model, so that all that is needed is imported."""
    import numpy as np

    import napari_milcnn as mil

    model = mil.load_model("yeast-sim" if folder is None else folder / "m.zip")
    pixels = np.random.default_rng(0).normal(100, 10, (len(model.channels), 140, 140)).astype(np.float32)
    mil.classify(model, mil.open_image(pixels, axes="CYX", channels=model.channels), device="cpu")


def _misbehave(folder: Path) -> None:
    """Do what the harness is there to notice."""
    act = (folder / "act").read_text()
    if act == "hang":
        threading.Event().wait()
    elif act == "memory":
        bytes(3 << 30)
    elif act == "crash":
        os.abort()
    elif act == "code":
        os.system("true")
    elif act == "write":
        (folder / "new").write_text("x")
    elif act == "foreign":
        raise KeyError(act)


TARGETS: dict[str, Callable[[Path], None]] = {
    "image": _open_image, "own labels": _open_own_labels, "labels": _open_labels, "labelling": _open_labelling,
    "results": _open_results, "record": _open_record, "training": _open_training, "checkpoint": _open_checkpoint,
    "model": _open_model, "screen source": _open_screen_source, "screen": _open_screen, "misbehave": _misbehave,
}  # fmt: skip

if __name__ == "__main__":
    main("preload" in sys.argv)
