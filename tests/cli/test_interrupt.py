"""Ctrl-C during a job of the command line."""

import os
import signal

import pytest

from napari_milcnn.cli.interrupt import interrupt_between_steps
from napari_milcnn.cli.progress import shown
from napari_milcnn.progress import Progress

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C is heard, even where the tests run in the background, which ignores it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


class PressedInDestructor:
    """An object in whose destructor Ctrl-C falls, where Python drops the exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def _steps(log, press_in=1):
    try:
        for number in range(3):
            if number == press_in:
                made = PressedInDestructor()
                del made
            log.append(number)
            yield Progress(number, 3)
    finally:
        log.append("closed")


def test_interrupt_in_a_destructor_is_not_lost(capfd):
    """The step that was interrupted is finished, the job is closed, and the next step never begins."""
    log = []
    with pytest.raises(KeyboardInterrupt):
        list(shown(_steps(log), "work"))
    assert log == [0, 1, "closed"]
    assert "press Ctrl-C again to stop at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_interrupt_takes_effect_at_once(capfd):
    """A step that does not end can be left."""
    with interrupt_between_steps():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "press Ctrl-C again" in capfd.readouterr().err


def test_ignored_interrupt_stays_ignored():
    """In the background, as after `nohup`, nothing changes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupt_between_steps() as stop_if_interrupted:
        signal.raise_signal(signal.SIGINT)
        stop_if_interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
