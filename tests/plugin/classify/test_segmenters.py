"""Cellpose and StarDist in the Classify dock, with stand-ins of the same signatures; neither need be installed.

The signatures are those of `cellpose.models` in the wheels of Cellpose 3.1.1.2 and 4.2.1.1, of `StarDist2D` in that of
StarDist 0.9.2, and of `csbdeep.utils.normalize` in that of csbdeep 0.8.2.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
from skimage.measure import label as components

import napari_milcnn as mil
from conftest import PATIENCE
from napari_milcnn.plugin.classify import segmenters
from napari_milcnn.plugin.current_model import current
from qt_actions import open_dock

pytest.importorskip("napari")
SAMPLES = mil.sample_folder()
TIMELAPSE = SAMPLES / "yeast-timelapse.ome.tif"
FIELD = SAMPLES / "training" / "images" / "nucleus-01_1.ome.tif"


def bright(plane: np.ndarray) -> np.ndarray:
    """Give the bright parts of a plane numbers."""
    return components(plane > np.percentile(plane, 95)).astype(np.uint16)


class Cellpose:
    """Cellpose 3: the model that estimates the diameter; eval returns masks, flows, styles, diams."""

    def __init__(self, gpu=False, model_type="cyto3", nchan=2, device=None, backbone="default"):
        assert (gpu, model_type) == (True, "cyto3")

    def eval(self, x, batch_size=8, channels=[0, 0], channel_axis=None, invert=False, normalize=True,  # noqa: B006
             diameter=30.0, do_3D=False, **kwargs):  # fmt: skip
        """Segment."""
        assert (x.ndim, channels, diameter, kwargs) == (2, [0, 0], None, {})
        return bright(x), [], np.zeros(256), 30.0


class CellposeModel:
    """Cellpose 4: eval returns masks, flows, styles; arguments of version 3 give a warning."""

    def __init__(self, gpu=False, pretrained_model="cpsam_v2", model_type=None, diam_mean=None, device=None, nchan=None,
                 use_bfloat16=True):  # fmt: skip
        assert model_type is None

    def eval(self, x, batch_size=8, resample=True, channels=None, channel_axis=None, z_axis=None, normalize=True,
             rescale=None, diameter=None, flow_threshold=0.4, cellprob_threshold=0.0, do_3D=False):  # fmt: skip
        """Segment."""
        assert (x.ndim, channels) == (2, None)
        return bright(x), [], np.zeros(256)


class StarDist2D:
    """StarDist: predict_instances returns the labels, int32, and details of the polygons."""

    @classmethod
    def from_pretrained(cls, name_or_alias=None):
        """Load a model."""
        return cls() if name_or_alias == "2D_versatile_fluo" else None

    def predict_instances(self, img, axes=None, normalizer=None, sparse=True, prob_thresh=None, nms_thresh=None,
                          scale=None, n_tiles=None, show_tile_progress=True):  # fmt: skip
        """Segment."""
        assert (axes, n_tiles, img.dtype) == ("YX", (1, 1), np.float32)
        return bright(img).astype(np.int32), {"points": np.zeros((0, 2))}


def normalize(x, pmin=3, pmax=99.8, axis=None, clip=False, eps=1e-20, dtype=np.float32):
    """Scale by two percentiles, as `csbdeep.utils.normalize`."""
    low, high = np.percentile(x, (pmin, pmax))
    return ((x - low) / (high - low + eps)).astype(dtype)


def install(monkeypatch, name: str, **content) -> None:
    """Put a module and the packages that hold it where imports find them."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        module = ModuleType(path)
        module.__spec__, module.__path__ = ModuleSpec(path, None), []
        monkeypatch.setitem(sys.modules, path, module)
    vars(sys.modules[name]).update(content)


@pytest.fixture
def programs(monkeypatch):
    """Install Cellpose 4 and StarDist."""
    install(monkeypatch, "cellpose.models", CellposeModel=CellposeModel)
    install(monkeypatch, "stardist.models", StarDist2D=StarDist2D)
    install(monkeypatch, "csbdeep.utils", normalize=normalize)


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, qtbot):
    """Return the dock with the shipped yeast model; no programs are installed unless `programs` comes first."""
    current.set(mil.load_model("yeast-sim"))
    _, dock = open_dock(viewer, "Classify")
    yield dock
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)
    current.clear()


def offered(dock) -> list[str]:
    return [dock.adds_box.cells.itemText(i) for i in range(dock.adds_box.cells.count())]


def pick(dock, qtbot, text: str, *, wait: bool = True) -> None:
    """Pick an entry as a user does, and wait until the search is over."""
    combo = dock.adds_box.cells
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex())
    if wait:
        qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)


@pytest.fixture
def nothing_installed(monkeypatch):
    """Hide programs that this computer may have."""
    monkeypatch.setattr(segmenters, "find_spec", lambda _name: None)


def test_nothing_is_offered_where_neither_is_installed(nothing_installed, dock):
    assert offered(dock) == ["found by the program", "file…"]


@pytest.mark.parametrize("content", [{"CellposeModel": CellposeModel}, {"Cellpose": Cellpose, "CellposeModel": None}])
def test_cellpose_of_versions_3_and_4(monkeypatch, content):
    install(monkeypatch, "cellpose.models", **content)
    cellpose = segmenters.installed_segmenters()[0]
    plane = np.random.default_rng(0).random((40, 50), np.float32)
    np.testing.assert_array_equal(cellpose.load()(plane), bright(plane))


def test_the_cells_of_every_plane_become_a_layer_that_is_chosen(programs, dock, viewer, qtbot):
    viewer.open(TIMELAPSE)
    assert offered(dock)[-2:] == ["find with Cellpose…", "find with StarDist…"]
    pick(dock, qtbot, "find with Cellpose…")
    layer = viewer.layers["yeast-timelapse cells (Cellpose)"]
    with mil.open_image(TIMELAPSE) as image:
        channel = image.channels.index(current.model.card.foreground.channel)
        planes = np.stack([bright(image.plane(i, (channel,))[0]) for i in range(len(image.planes))])
    np.testing.assert_array_equal(np.asarray(layer.data).squeeze(), planes)
    assert dock.adds_box.cells.currentText() == layer.name
    count = sum(int(plane.max()) for plane in planes)
    assert dock.notices.text() == (
        f"Cellpose found {count} cells in 8 of 8 planes. The layer {layer.name} is chosen as the cells."
    )


@pytest.mark.slow
def test_the_cells_of_one_plane_are_the_objects_of_a_run(programs, dock, viewer, qtbot):
    viewer.open(FIELD)
    dock.image_box.this_plane.setChecked(True)
    pick(dock, qtbot, "find with StarDist…")
    dock.run_button.click()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)
    layer = viewer.layers["nucleus-01_1 cells (StarDist)"]
    assert set(dock.results_box.objects.frame["label"]) == set(np.unique(layer.data)) - {0}


def test_a_failure_is_said_in_the_dock_and_nothing_is_lost(programs, dock, viewer, qtbot, monkeypatch):
    viewer.open(FIELD)
    pick(dock, qtbot, "find with Cellpose…")
    before, layers = dock.adds_box.cells.currentText(), len(viewer.layers)

    def fail(*_arguments, **_options):
        raise RuntimeError("no weights on this computer")

    monkeypatch.setattr(StarDist2D, "predict_instances", fail)
    pick(dock, qtbot, "find with StarDist…")
    assert "StarDist failed (RuntimeError: no weights on this computer)" in dock.notices.text()
    assert "The cells that were chosen before are still chosen." in dock.notices.text()
    monkeypatch.setattr(StarDist2D, "predict_instances", lambda _model, img, **_: (np.zeros(img.shape, np.int32), {}))
    pick(dock, qtbot, "find with StarDist…")
    assert dock.notices.text().startswith("StarDist found no cells in the image.")
    assert (dock.adds_box.cells.currentText(), len(viewer.layers)) == (before, layers)


def test_a_search_that_is_stopped_keeps_its_planes_and_chooses_nothing(programs, dock, viewer, qtbot, monkeypatch):
    viewer.open(TIMELAPSE)
    searched = []

    def stop_at_the_third(_model, x, **_options):
        searched.append(x)
        if len(searched) == 3:
            dock.session.job.stop()
        return bright(x), [], None

    monkeypatch.setattr(CellposeModel, "eval", stop_at_the_third)
    pick(dock, qtbot, "find with Cellpose…")
    assert dock.notices.text().startswith("Stopped. The layer yeast-timelapse cells (Cellpose) has the cells of ")
    assert len(searched) == 3
    assert dock.adds_box.cells.currentText() == "found by the program"
