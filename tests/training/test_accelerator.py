"""Training and answers on an accelerator: the same as on the CPU, but for rounding. Skipped where there is none.

In float32 a GPU may round the factors of its products to ten bits (TF32), which the steps of a training amplify.
"""

from __future__ import annotations

import numpy as np
import pytest

from conftest import lively_model, noise
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.devices import choose_device
from napari_milcnn.inference.evidence import evidence
from napari_milcnn.inference.predict import classify
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.trained_model import new_model
from napari_milcnn.options import PoolingName
from napari_milcnn.training.trainer import train

ACCELERATOR = choose_device().device.type
needs_one = pytest.mark.skipif(ACCELERATOR == "cpu", reason="this computer has no accelerator")


@pytest.mark.parametrize("pooling", ["noisy_and", "max"])
def test_a_network_starts_on_the_device_it_is_on(pooling: PoolingName) -> None:
    """On torch's device without memory, which refuses, as any accelerator does, to be mixed with the CPU."""
    network = new_model(["a", "b"], ["c"], pooling=pooling, widths=(4, 4, 4, 4, 4, 4)).network.to("meta")
    network.start_at(0.3, 100)
    assert {part.device.type for part in network.state_dict().values()} == {"meta"}


@needs_one
def test_training_on_an_accelerator_goes_as_on_the_cpu(table: LabelTable, tmp_path) -> None:
    """Two epochs, the second of them resumed, in float32."""
    losses = {}
    for device in ("cpu", ACCELERATOR):
        file, model = tmp_path / f"{device}.checkpoint", new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16))
        options = {"patch": 96, "epoch_steps": 4, "seed": 1, "precision": "float32", "device": device}
        running = train(model, table, epochs=2, checkpoint=file, **options)
        first = next(running)
        next(running)
        running.close()
        *_, last = train(model, table, epochs=2, checkpoint=file, resume=True, **options)
        losses[device] = (first.loss, last.loss)
        assert last.best.card.training.look is not None
    assert losses[ACCELERATOR][0] == pytest.approx(losses["cpu"][0], rel=5e-3)
    assert losses[ACCELERATOR][1] == pytest.approx(losses["cpu"][1], rel=5e-2)


@needs_one
@pytest.mark.parametrize("kind", ["jacobian", "class_map"])
def test_answers_of_an_accelerator_are_those_of_the_cpu(kind: str) -> None:
    """Scores, P, and evidence, in float32."""
    model, image = lively_model(), open_image(noise(2, 200, 260), axes="CYX")
    found = [classify(model, image, device=one, precision="float32") for one in ("cpu", ACCELERATOR)]
    np.testing.assert_allclose(found[1].scores, found[0].scores, atol=1e-2)
    np.testing.assert_allclose(found[1].probabilities, found[0].probabilities, atol=1e-2)
    maps = [
        evidence(model, image, ["a"], kind=kind, device=one, precision="float32").maps for one in ("cpu", ACCELERATOR)
    ]
    np.testing.assert_allclose(maps[1], maps[0], atol=5e-2 * float(np.abs(maps[0]).max()))
