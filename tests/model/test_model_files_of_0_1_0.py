"""Model files that version 0.1.0 wrote: they load, with the digest that recorded runs name, and classify as they did.

`data/models_0_1_0` holds them, with the scores that version 0.1.0 gave for the sample images (planes, classes).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import napari_milcnn as mil

FOLDER = Path(__file__).parents[1] / "data" / "models_0_1_0"
SCORES = json.loads((FOLDER / "scores.json").read_text())
DIGESTS = {
    "nuclei": "718b06197ee3f0eb8dc0e8c2d0897df27f9016f12820f683eb67523e4f15ed3d",
    "yeast-sim": "da9e607197f473ef477d1f7131ace04de71ab5a694ccec709b3477fb96be1fed",
}
CHANNELS = {"nuclei": ("DNA", "RFP"), "yeast-sim": None}
"""Names given to the channels of the sample images, where a model does not know their own."""


@pytest.mark.parametrize("name", DIGESTS)
def test_digest_and_metadata(name):
    """Both are those of the file as it was written, whatever model of that name is shipped today."""
    model = mil.load_model(FOLDER / f"{name}.zip")
    assert model.digest == DIGESTS[name]
    facts = json.loads(model.card.model_dump_json())
    shown = (len(facts["classes"]), facts["channels"], facts["temperature"], len(facts["training"].get("curve", [])))
    assert (
        shown
        == {
            "nuclei": (8, ["DNA"], 0.22403500068330762, 0),
            "yeast-sim": (8, ["GFP", "RFP"], 0.6683992465259734, 24),
        }[name]
    )
    assert facts["training"]["options"]["learning_rate"] == 0.002
    assert ("turns" in facts["training"]["options"]) == (name == "yeast-sim")


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("image", SCORES["nuclei"])
def test_scores(name, image):
    """The sample images score as they did, up to rounding on other processors."""
    model = mil.load_model(FOLDER / f"{name}.zip")
    opened = mil.open_image(mil.sample_folder() / image, channels=CHANNELS[name])
    scores = mil.classify(model, opened, device="cpu", precision="float32").scores
    np.testing.assert_allclose(scores, SCORES[name][image], rtol=1e-4, atol=1e-6)


def test_a_model_saved_anew_is_the_same_model(tmp_path):
    """The file then names the network by the module where it is now; the digest covers neither."""
    again = mil.load_model(FOLDER / "yeast-sim.zip").save(tmp_path / "again.zip")
    assert mil.load_model(again).digest == DIGESTS["yeast-sim"]
