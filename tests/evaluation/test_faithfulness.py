"""How much of a score hangs on a mask: by hand, and in the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import napari_milcnn as mil
from conftest import blob, delta_model
from napari_milcnn.errors import OptionsError
from napari_milcnn.evaluation.faithfulness import with_faithfulness
from napari_milcnn.evaluation.report import html
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.options import ForegroundOptions

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@pytest.fixture
def spots(tmp_path: Path) -> LabelTable:
    """Three images with one bright spot in the channel of their class, c0."""
    rows = ["file,label"]
    for i, place in enumerate([(70, 80), (90, 60), (75, 100)]):
        image = np.zeros((2, 150, 160), np.float32)
        image[0] = 2 * (blob((150, 160), place, 5) > 0.4)
        names = {"axes": "CYX", "Channel": {"Name": ["c0", "c1"]}}
        tifffile.imwrite(tmp_path / f"{i}.ome.tif", image, metadata=names)
        rows.append(f"{i}.ome.tif,c0")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return mil.read_labels(tmp_path / "labels.csv")


def test_scores_by_hand(spots: LabelTable) -> None:
    """P is .881 with the spot and .002 without: the softmax of 4 P is .971 with it, and one half without."""
    model = delta_model(2, foreground=ForegroundOptions(smooth=0))
    found = mil.faithfulness(model, spots, **CPU)
    assert found.problems == ()
    rows = found.table.set_index(["class", "evidence"])
    objects = rows.loc["c0", "object"]
    assert objects["images"] == 3
    assert objects["area"] == pytest.approx(145 / (150 * 160), rel=0.05)
    assert objects["score"] == pytest.approx(0.971, abs=0.001)
    assert objects["without the mask"] == pytest.approx(0.5, abs=1e-3)
    assert objects["the mask alone"] == pytest.approx(0.971, abs=0.001)
    assert objects["without as much elsewhere"] == pytest.approx(0.971, abs=0.001)
    assert objects["as much elsewhere alone"] == pytest.approx(0.5, abs=1e-3)
    assert rows.loc["all", "object"].equals(objects)
    kinds = {"object", "class_map", "class_map_image"}  # the Jacobian map has single pixels here, which make no mask
    assert set(found.table["evidence"]) == kinds


def test_images_that_fail_are_named(spots: LabelTable) -> None:
    """The others are measured."""
    spots.images[1].file.write_bytes(b"no image")
    found = mil.faithfulness(delta_model(2), spots, **CPU)
    assert len(found.problems) == 1
    assert "1.ome.tif" in found.problems[0]
    assert set(found.table["images"]) == {2}


def test_the_report_has_the_table(spots: LabelTable, tmp_path: Path) -> None:
    """On the page, in metrics.json and in a file of its own; not where it was not asked for."""
    report = mil.evaluate(delta_model(2), spots, draws=0, faithfulness=True, **CPU)
    assert "Does the score hang on the masks?" in html(report)
    (sentence,) = [one for one in report.faithfulness_sentences if one.startswith("Masks from cells")]
    assert sentence == (
        "Masks from cells cover 1% of the image (3 images). Without their pixels 0.47 of a score of 0.97 is lost "
        "(elsewhere 0.00); with them alone 0.97 stays (elsewhere 0.50). The score hangs on these pixels more than on "
        "as many elsewhere."
    )
    assert sentence in html(report)
    report.save(tmp_path / "out")
    assert (
        (tmp_path / "out" / "faithfulness.csv").read_text().startswith("class,evidence,images,area,score,without the")
    )
    assert report.faithfulness is not None
    measured = with_faithfulness(report.model, report.faithfulness).save(tmp_path / "measured.zip")
    card = mil.load_model(measured).card
    found = {(one.class_name, one.evidence): one for one in card.faithfulness}
    assert set(found) == {(name, kind) for name in ("c0", None) for kind in ("object", "class_map", "class_map_image")}
    assert found[None, "object"].mask_alone == pytest.approx(0.971, abs=0.001)
    assert found["c0", "object"].lost_elsewhere == pytest.approx(0, abs=0.001)
    assert report.model.with_classes(["c0", "new"]).card.faithfulness == ()
    plain = mil.evaluate(delta_model(2), spots, draws=0, **CPU)
    assert plain.faithfulness is None
    assert "hang on the masks" not in html(plain)
    with pytest.raises(OptionsError, match="faithfulness is measured for one trained model"):
        mil.evaluate(delta_model(2), spots, folds=2, faithfulness=True, **CPU)
