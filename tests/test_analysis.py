"""One image, plane after plane: parts, chosen planes, what is left after a stop, and the files of one image."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_milcnn as mil
from conftest import noise
from napari_milcnn.core.analysis import analyse
from napari_milcnn.core.classify import Classifier, joined
from napari_milcnn.core.errors import ImageError
from napari_milcnn.core.evidence import EvidenceMaker
from napari_milcnn.core.export import export_image
from napari_milcnn.core.options import MaskOptions
from napari_milcnn.core.screen import screen


@pytest.fixture
def stack():
    """Five time points of noise, T C Y X."""
    return mil.open_image(noise(5, 2, 96, 120), axes="TCYX", channels=["GFP", "RFP"], pixel_size=0.5)


def test_each_plane_is_told_once_and_the_parts_are_the_whole(compact, stack):
    steps = list(Classifier(compact, batch_size=2).steps(stack))
    parts = [step.part for step in steps if step.part is not None]
    assert [len(part.planes) for part in parts] == [2, 2, 1]
    whole = steps[-1].prediction
    assert [step.prediction for step in steps[:-1]] == [None] * (len(steps) - 1)
    assert whole.planes == stack.planes
    np.testing.assert_array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
    np.testing.assert_array_equal(joined(parts[::-1]).class_maps, whole.class_maps)


def test_chosen_planes_are_those_of_the_whole_run(compact, stack):
    whole, some = mil.classify(compact, stack), mil.classify(compact, stack, planes=[3, 1])
    assert some.planes == (stack.planes[1], stack.planes[3])
    np.testing.assert_allclose(some.scores, whole.scores[[1, 3]], atol=1e-6)
    evidence = mil.evidence(compact, stack, prediction=some)
    np.testing.assert_allclose(evidence.maps, mil.evidence(compact, stack).maps[[1, 3]], atol=1e-6)


@pytest.mark.parametrize("planes", [[], [5], [-1]])
def test_planes_that_are_not_there_are_refused(compact, stack, planes):
    with pytest.raises(ImageError, match="the 5 planes of image count from 0"):
        mil.classify(compact, stack, planes=planes)


def test_a_stopped_analysis_keeps_what_it_told(compact, stack):
    maker, found = EvidenceMaker(compact, batch_size=1), {}
    for step in analyse(maker, stack, mask_options=MaskOptions(present=0)):
        if step.result is not None:
            found[step.result.plane] = step.result
        if step.share >= 0.4:
            break
    assert sorted(found) == [0, 1]
    whole = mil.segment(mil.evidence(compact, stack), present=0)
    for plane, result in found.items():
        np.testing.assert_array_equal(result.masks.labels, whole.labels[plane])


def test_exported_files_equal_those_of_a_screen(compact, stack, tmp_path):
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, np.asarray(stack.data), metadata={"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}})
    list(screen(compact, [path], tmp_path / "screen", mask_options={"present": 0}))
    with mil.open_image(path) as image:
        results = [step.result for step in analyse(EvidenceMaker(compact), image, mask_options=MaskOptions(present=0))]
        done = [result for result in results if result is not None]
        prediction = joined([result.prediction for result in done])
        masks = {result.plane: result.masks for result in done}
        written = list(export_image(tmp_path / "export", "image", image, compact, prediction, masks))
    assert [one.name for one in written] == [
        "image_labels.ome.tif", "image_maps.ome.tif", "predictions.csv", "objects.csv", "image_overview.png",
    ]  # fmt: skip
    for name in ("image_labels.ome.tif", "image_maps.ome.tif"):
        np.testing.assert_array_equal(*(tifffile.imread(tmp_path / folder / name) for folder in ("screen", "export")))
    for name in ("predictions.csv", "objects.csv"):
        pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / folder / name) for folder in ("screen", "export")))


def test_planes_not_looked_at_are_exported_empty(compact, stack, tmp_path):
    maker = EvidenceMaker(compact)
    (step,) = [s for s in analyse(maker, stack, [2], mask_options=MaskOptions(present=0)) if s.result is not None]
    masks = {2: step.result.masks}
    labels, maps, *_ = export_image(tmp_path, "part", stack, compact, step.result.prediction, masks)
    written = tifffile.imread(labels)
    assert written.shape[0] == 5
    assert not written[[0, 1, 3, 4]].any()
    np.testing.assert_array_equal(written[2, 0], step.result.masks.labels)
    assert np.isnan(tifffile.imread(maps)).any((1, 2, 3)).tolist() == [True, True, False, True, True]
