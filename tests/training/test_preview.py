"""Pictures of where a model looks."""

from __future__ import annotations

import numpy as np
import tifffile

from conftest import blob, delta_model
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.labels.table import read_labels
from napari_milcnn.training.preview import choose_images, preview_images


def test_the_class_colour_lies_where_the_map_is_high(tmp_path):
    """A bright blob in the upper left of an image: there the picture turns to the class's colour."""
    image = (3 * blob((400, 600), (100, 100), 20)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image)
    (tmp_path / "labels.csv").write_text("file,label\na.tif,c0\n")
    table = read_labels(tmp_path / "labels.csv")
    model = delta_model()
    [seen] = preview_images(model, table, table.images, "cpu")
    assert (seen.label, seen.top, seen.rgb.shape, seen.rgb.dtype) == ("c0", "c0", (100, 150, 3), np.uint8)
    colour = np.array([int(class_colours(model.classes)["c0"][i : i + 2], 16) for i in (1, 3, 5)])
    near, far = (np.abs(seen.rgb[at].astype(int) - colour).sum() for at in ((25, 25), (80, 130)))
    assert near < far


def test_images_of_each_class_are_chosen_in_turn(table):
    chosen = choose_images(table, 3)
    assert [image.labels[0] for image in chosen] == ["none", "spots", "none"]
    assert {image.split for image in chosen} == {"validation"}
