"""Random actions on all docks; the benchmark does more of them, in two viewers, which vispy may not survive."""

import pytest

from napari_milcnn.model.shipped import sample_folder
from napari_milcnn.plugin.current_model import current

pytest.importorskip("napari")
from benchmarks.speed.monkey import Monkey
from napari_milcnn.model.package_read import load_model


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_random_actions_raise_nothing_and_lose_nothing(make_napari_viewer, tmp_path, seed):
    current.set(load_model(sample_folder() / "models" / "yeast-sim.zip"))
    monkey = Monkey([make_napari_viewer()], tmp_path, seed)
    try:
        monkey.go(40)
    finally:
        current.clear()
    assert monkey.faults == []
    assert monkey.lost == []
