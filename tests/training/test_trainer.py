"""Learning from image-level labels: the loss, the generator, what it learns."""

from __future__ import annotations

import copy
import math
import threading
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import tifffile
import torch

from napari_milcnn import calibrate, classify, load_model, new_model, read_labels, train
from napari_milcnn.errors import LabelsError, OptionsError
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.model.card import TrainingRecord
from napari_milcnn.network.mil_network import NetworkOutput
from napari_milcnn.options import PoolingName, TrainOptions
from napari_milcnn.training.augment import VARYING_OPTIONS
from napari_milcnn.training.distributed import Processes
from napari_milcnn.training.losses import balance_of, image_losses, image_weights
from napari_milcnn.training.patch_dataset import PatchReader, TrainingBatches

FAST = {"epochs": 2, "epoch_steps": 1, "batch_size": 4, "patch": 0, "device": "cpu", "precision": "float32"}


def model_for(table, **network):
    """Make a narrow, quick network."""
    return new_model(table.classes, ["c"], widths=(8, 8, 8, 16, 16, 16), **network)


def test_losses_by_hand():
    """P = (.5, .5) costs 2 ln 2 whatever the target; equal scores of two classes cost ln 2."""
    output = NetworkOutput(torch.zeros(1, 2, 1, 1), torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2))
    pooled, last = image_losses(output, torch.tensor([[1.0, 0.0]]), single_label=True)
    assert float(pooled) == pytest.approx(2 * math.log(2))
    assert float(last) == pytest.approx(math.log(2))
    assert float(image_losses(output, torch.tensor([[1.0, 1.0]]), False)[1]) == pytest.approx(2 * math.log(2))


def test_a_right_negative_costs_nothing():
    """P is taken as a probability: P = 0 for an absent class costs 0, not ln 2."""
    output = NetworkOutput(torch.zeros(1, 2, 1, 1), torch.tensor([[1.0, 0.0]]), torch.tensor([[50.0, 0.0]]))
    pooled, last = image_losses(output, torch.tensor([[1.0, 0.0]]), single_label=True)
    assert float(pooled) == 0
    assert float(last) == pytest.approx(0, abs=1e-6)


def test_training_learns_spots(table):
    """A few epochs tell spots from none on images never trained on, and the reports say so.

    The acquisition is not varied: to see through that takes more steps than a test has.
    """
    options = FAST | {"epochs": 20, "learning_rate": 5e-3, "vary_share": 0}
    reports = list(train(model_for(table, b=0.3), table, **options))
    assert [report.epoch for report in reports] == list(range(1, 21))
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[-1].loss == pytest.approx(reports[-1].pooled_loss + reports[-1].last_loss)
    best = reports[-1].best
    right = [
        classify(best, image.file, device="cpu").top[0] in image.labels for image in table.part("validation").images
    ]
    assert np.mean(right) == best.card.metrics["validation accuracy"] == 1.0


def test_normalisation_is_measured_on_the_training_images_only(table):
    """The card's mean is that of the twelve training images."""
    (report,) = train(model_for(table, normalise="training"), table, **FAST | {"epochs": 1})
    images = np.stack([tifffile.imread(image.file) for image in table.part("train").images]).astype(float)
    assert report.best.card.mean[0] == pytest.approx(images.mean())
    assert report.best.card.std[0] == pytest.approx(images.std())


@pytest.mark.parametrize("scale", [0, 0.8])
def test_input_of_each_image_and_scale_are_kept_on_the_card(table, scale):
    """Nothing is measured over the set then; squares of 9 px are too small to be shown smaller."""
    model = model_for(table, normalise="image", scale=scale)
    (report,) = train(model, table, **FAST | {"epochs": 1, "patch": 70})
    card = report.best.card
    assert (card.normalise, card.scale, card.mean, card.std) == ("image", scale or 1.0, (0.0,), (1.0,))


def test_the_model_given_is_not_changed(table):
    """Weights and card stay as they were."""
    model = model_for(table)
    digest = model.digest
    list(train(model, table, **FAST))
    assert model.digest == digest


def test_same_seed_same_curve(table):
    """Twice the same seed gives the same weights; another seed others."""
    digests = [list(train(model_for(table), table, **FAST, seed=seed))[-1].best.digest for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_global_random_state_is_left_alone(table):
    """Training does not reseed torch for the rest of the program."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(train(model_for(table), table, **FAST))
    assert torch.rand(1) == expected


def test_other_threads_do_not_change_what_is_dropped(table, tmp_path):
    """With dropout, alone and beside a thread that loads, makes and runs models and draws random numbers."""
    model = model_for(table, dropout=0.3, dropout_last=0.5)
    saved = model.with_card(mean=(100.0,), std=(5.0,)).save(tmp_path / "m.zip")
    *_, alone = train(model, table, **FAST)
    rounds, done = [], threading.Event()

    def disturb():
        while not done.is_set():
            classify(load_model(saved), table.images[0].file, device="cpu")
            new_model(["x"], ["c"], widths=(2, 2, 2, 2, 2, 2))
            torch.manual_seed(torch.randint(9, (1,)).item())
            rounds.append(1)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        *_, beside = train(model, table, **FAST)
    finally:
        done.set()
        thread.join()
    assert len(rounds) > 3
    assert [row.loss for row in beside.last.card.training.curve] == [row.loss for row in alone.last.card.training.curve]
    assert beside.last.digest == alone.last.digest


def test_stop_at_a_batch_keeps_what_was_reported(table):
    """Three batches an epoch: stopping in the fifth gives one report and a model that can be used."""
    calls = []

    def on_batch(done, total):
        calls.append((done, total))
        return len(calls) < 5

    reports = list(train(model_for(table), table, on_batch=on_batch, **FAST | {"epochs": 9}))
    assert calls == [(1, 3), (2, 3), (3, 3), (1, 3), (2, 3)]
    assert [report.epoch for report in reports] == [1]
    assert classify(reports[0].best, table.images[0].file, device="cpu").top[0] in table.classes


@pytest.mark.parametrize("last", [3, 16, 20])
def test_stop_while_images_are_read(table, last):
    """Sixteen images are opened, then twelve measured: stopped in either, nothing is trained and nothing fails."""
    calls = []
    reports = list(
        train(model_for(table), table, on_image=lambda *done: calls.append(done) or len(calls) < last, **FAST)
    )
    assert reports == []
    assert len(calls) == last


def test_no_validation_is_said_not_made_up(table):
    """Without validation images the report has None and the latest model is the best."""
    reports = list(train(model_for(table), table.part("train"), **FAST, validation=0))
    assert [report.validation for report in reports] == [None, None]
    assert all(report.is_best for report in reports)
    assert "validation accuracy" not in reports[-1].best.card.metrics


def test_fine_tuning_keeps_the_normalisation(table, tmp_path):
    """A model that was trained before keeps the mean it was trained with, through save and load."""
    (report,) = train(model_for(table, normalise="training"), table, **FAST | {"epochs": 1})
    saved = load_model(report.best.save(tmp_path / "m.zip"))
    (again,) = train(saved, table.part("train"), **FAST | {"epochs": 1, "validation": 0})
    assert again.best.card.mean == report.best.card.mean


def test_several_labels_an_image(table, tmp_path):
    """A table with an image of two labels trains sigmoids, and scores need not sum to one."""
    text = (tmp_path / "labels.csv").read_text().replace("1.tif,spots", "1.tif,spots|none")
    (tmp_path / "labels.csv").write_text(text)
    several = read_labels(tmp_path / "labels.csv")
    (report,) = train(model_for(several), several, **FAST | {"epochs": 1})
    assert not report.best.card.single_label
    assert 0 <= report.validation.accuracy <= 1


def test_mistakes_are_said_before_training(table):
    """Unknown label, a class without images, a patch under the receptive field, images of different size."""
    with pytest.raises(LabelsError, match="has the label spots, which the model does not know; its classes: none"):
        next(train(new_model(["none"], ["c"]), table))
    with pytest.raises(LabelsError, match="there is one class, none, and every image shows it"):
        next(train(new_model(["none"], ["c"]), LabelTable(tuple(i for i in table.images if i.labels == ("none",)))))
    with pytest.raises(LabelsError, match="no training image shows ghost"):
        next(train(new_model([*table.classes, "ghost"], ["c"]), table))
    with pytest.raises(OptionsError, match="option 'patch' is 50; expected 0 or at least the receptive field, 67 px"):
        next(train(model_for(table), table, patch=50))
    tifffile.imwrite(table.images[0].file, np.eye(120, dtype=np.uint16))
    with pytest.raises(OptionsError, match="differ in size"):
        next(train(model_for(table), table, **FAST))


def test_oblong_images_taken_whole(table):
    """Images of 96 x 120 px train whole: only the four turns that keep their shape are drawn."""
    rng = np.random.default_rng(0)
    for image in table.images:
        tifffile.imwrite(image.file, rng.normal(100, 5, (96, 120)).astype(np.uint16))
    (report,) = train(model_for(table), table, **FAST | {"epochs": 1})
    assert np.isfinite(report.loss)


def test_no_batch_is_left_with_one_image(table):
    """Twelve images in batches of eleven are two batches of six, so that batch norm can work on single instances."""
    sizes = []
    (report,) = train(
        model_for(table), table, on_batch=lambda done, total: sizes.append(total) or True,
        **FAST | {"epochs": 1, "batch_size": 11, "patch": 67},
    )  # fmt: skip
    assert sizes == [2, 2]
    assert np.isfinite(report.loss)
    with pytest.raises(OptionsError, match="too small for batch norm; make batch_size or patch larger"):
        next(train(model_for(table), table, **FAST | {"batch_size": 1, "patch": 67}))


def test_a_small_table_is_gone_through_several_times(table):
    """Twelve images in three batches, seven at least: three passes, each image three times, one validation."""
    calls = []
    (report,) = train(
        model_for(table), table, on_batch=lambda *done: calls.append(done) or True,
        **FAST | {"epochs": 1, "epoch_steps": 7, "vary_share": 0},
    )  # fmt: skip
    assert calls[-1] == (9, 9)
    assert len(report.last.card.training.curve) == 1
    batches = TrainingBatches(PatchReader(model_for(table), table.part("train")), TrainOptions(**FAST | {
        "epoch_steps": 7}), Processes())  # fmt: skip
    assert np.bincount(batches.order(np.random.default_rng(0))).tolist() == [3] * 12


@pytest.mark.parametrize("patch", [0, 80])
def test_patches_have_one_shape_at_every_magnification(table, patch):
    """Whole images too, cut or reflected to their own shape."""
    options = TrainOptions(**FAST | {"patch": patch, "vary_share": 1, "vary_size": 2})
    model = model_for(table).with_card(mean=(100.0,), std=(5.0,))
    batches = TrainingBatches(PatchReader(model, table.part("train")), options, Processes())
    batch = batches.read(np.arange(12), range(12), 1)
    assert batch.images.shape == (12, 1, patch or 96, patch or 96)
    assert batch.images.dtype == np.float32
    again = batches.read(np.arange(12), range(12), 1)
    np.testing.assert_array_equal(batch.images, again.images)


def test_an_image_is_decoded_once(table, monkeypatch):
    """Over measuring and three passes, as long as the cache holds it."""
    read = []
    plain = PatchReader._read
    monkeypatch.setattr(PatchReader, "_read", lambda self, *place: read.append(place[0]) or plain(self, *place))
    next(train(model_for(table), table, **FAST | {"epochs": 1, "epoch_steps": 7}))
    assert sorted(read) == list(range(12))


def test_start_is_measured_on_the_training_images(table):
    """Half the share of the images that is bright, from .02 on, is where b starts, unless it is given."""
    start = {"epochs": 1, "learning_rate": 1e-9, "validation": 0}
    for number, image in enumerate(table.images):
        corner = np.full((96, 96), 100, np.uint16)
        corner[:10, :10] = 900
        corner[90, 90] = number
        tifffile.imwrite(image.file, corner)
    (sparse,) = train(model_for(table), table, **FAST | start)
    assert sparse.learned_b == pytest.approx([0.02, 0.02], abs=1e-3)
    (given,) = train(model_for(table, b=0.3), table, **FAST | start)
    assert given.learned_b == pytest.approx([0.3, 0.3])
    for number, image in enumerate(table.images):
        halves = np.full((96, 96), 100, np.uint16)
        halves[:, 48:] = 900
        halves[0, 0] = number
        tifffile.imwrite(image.file, halves)
    (dense,) = train(model_for(table), table, **FAST | start)
    assert dense.learned_b == pytest.approx([0.25, 0.25], abs=1e-3)


@pytest.mark.parametrize("pooling", get_args(PoolingName))
def test_the_measured_start_speaks_for_every_pooling(pooling):
    """A map with a tenth of its instances positive reads y = 2, an empty one y = -2."""
    network = new_model(["a", "b"], ["c"], pooling=pooling).network
    network.start_at(0.1, 400)
    full = torch.where(torch.arange(400) < 40, 20.0, -20.0)
    maps = torch.stack([full, torch.full((400,), -20.0)])[None, :, None, :]
    np.testing.assert_allclose(network.read_maps(maps).scores.detach(), [[2, -2]], atol=0.06)


def test_new_classes_keep_the_encoder(table):
    """The encoder and the normalisation stay, the layers behind it are new, and the card forgets old claims."""
    (report,) = train(model_for(table, normalise="training"), table, **FAST | {"epochs": 1})
    parent = report.best.with_card(reference="none")
    other = parent.with_classes(["x", "y", "z"])
    for mine, old in zip(other.network.encoder.parameters(), report.best.network.encoder.parameters(), strict=True):
        assert torch.equal(mine, old)
    assert other.network.head.weight.shape == (3, 3)
    assert (other.card.mean, other.card.classes) == (report.best.card.mean, ("x", "y", "z"))
    assert (other.card.metrics, other.card.reference) == ({}, None)
    assert other.card.training == TrainingRecord(encoder_of=parent.digest)


def test_a_frozen_encoder_does_not_move(table):
    """Rate 0: neither weights nor batch statistics change, and the last layer learns."""
    (report,) = train(model_for(table), table, **FAST | {"epochs": 1})
    (tuned,) = train(report.best, table, **FAST | {"epochs": 1, "encoder_rate": 0})
    before, after = (one.network.state_dict() for one in (report.best, tuned.last))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder"))
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_rare_classes_weigh_more():
    """Three images of one class and one of another: each class weighs the same in all, mean 1."""
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(image_weights(targets), [2 / 3, 2 / 3, 2 / 3, 2])


def test_classes_are_balanced_where_they_are_uneven():
    """Three images of each of two classes, or three and two, are left alone; four and two are not."""
    even, nearly, uneven = (np.repeat(np.eye(2), counts, axis=0) for counts in ((3, 3), (3, 2), (4, 2)))
    assert [balance_of(targets) for targets in (even, nearly, uneven)] == ["none", "none", "sampling"]


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_balancing_an_unbalanced_table(table, balance):
    """With two of eleven images of one class, both ways change what is learned, and stay finite."""
    few = replace(table, images=tuple(i for n, i in enumerate(table.images) if n % 2 == 0 or n in (1, 3)))
    plain, balanced = (list(train(model_for(few), few, **FAST | {"balance": how}))[-1] for how in ("none", balance))
    assert np.isfinite(balanced.loss)
    assert balanced.last.digest != plain.last.digest


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_schedules(table, schedule):
    """Each runs to its end."""
    reports = list(train(model_for(table), table, **FAST | {"schedule": schedule}))
    assert len(reports) == 2


def test_patience_stops_early(table):
    """With a rate too small to change anything, two epochs after the first are enough."""
    options = FAST | {"epochs": 9, "patience": 2, "learning_rate": 1e-12}
    reports = list(train(model_for(table), table, **options))
    assert 3 <= len(reports) < 9
    assert [row.epoch for row in reports[-1].last.card.training.curve] == list(range(1, len(reports) + 1))


def test_calibrating_moves_the_last_layer_only(table):
    """A model robbed of a class by a bias of -9 gets its accuracy back; maps and P stay as they were."""
    reports = list(train(model_for(table, b=0.3), table, **FAST | {"epochs": 10, "learning_rate": 5e-3}))
    model = reports[-1].best
    robbed = replace(model, network=copy.deepcopy(model.network))
    with torch.no_grad():
        robbed.network.head.bias[1] -= 9
    mended = calibrate(robbed, table, device="cpu")
    spots = next(image for image in table.part("validation").images if image.labels == ("spots",))
    assert classify(robbed, spots.file, device="cpu").top == ("none",)
    assert classify(mended, spots.file, device="cpu").top == ("spots",)
    assert model.card.metrics
    assert not mended.card.metrics  # they were measured on other scores
    for name, weights in mended.network.state_dict().items():
        assert torch.equal(weights, robbed.network.state_dict()[name]) == (name != "head.bias")
    with pytest.raises(LabelsError, match="no image shows spots; calibration needs images of each class"):
        calibrate(model, LabelTable(tuple(i for i in table.images if i.labels == ("none",))))


def test_fine_tuning_drops_the_parents_claims(table):
    """Figures and thresholds of the model it started from do not stay on the card; its digest does."""
    (report,) = train(model_for(table), table, **FAST | {"epochs": 1})
    parent = report.best.with_card(thresholds={"object": {"spots": 0.5}})
    (again,) = train(parent, table.part("train"), **FAST | {"epochs": 1, "validation": 0})
    assert again.best.card.metrics == {}
    assert again.best.card.thresholds == {}
    assert again.best.card.training.started_from == parent.digest
    several = LabelTable(tuple(replace(image, labels=table.classes) for image in table.images))
    with pytest.raises(LabelsError, match="trained for one label per image"):
        next(train(parent, several))


@pytest.mark.parametrize("pooling", get_args(PoolingName))
def test_every_pooling_can_start_learning(pooling):
    """With 400 instances and random weights the loss reaches the first convolution through every pool."""
    network = new_model(["a", "b"], ["c"], pooling=pooling).network.train()
    images = torch.randn(2, 1, 380, 380, generator=torch.Generator().manual_seed(0))
    sum(image_losses(network(images), torch.eye(2), single_label=True)).mean().backward()
    assert float(network.encoder[0].weight.grad.abs().max()) > 1e-6


def test_planes_of_one_file_are_learned_as_files_are(table, tmp_path):
    """The sixteen images as time points of one stack: the same weights, and the same balance between the classes."""
    stack = np.stack([tifffile.imread(image.file) for image in table.images])
    tifffile.imwrite(tmp_path / "all.ome.tif", stack, ome=True, metadata={"axes": "TYX"})
    rows = [f"all.ome.tif,T{i},{image.labels[0]},{image.group},{image.split}" for i, image in enumerate(table.images)]
    (tmp_path / "planes.csv").write_text("\n".join(["file,plane,label,group,split", *rows]))
    planes = read_labels(tmp_path / "planes.csv")
    models = [list(train(model_for(one), one, **FAST | {"epochs": 1}))[-1].last for one in (table, planes)]
    for mine, theirs in zip(*(model.network.state_dict().values() for model in models), strict=True):
        assert torch.equal(mine, theirs)
    assert calibrate(models[0], table, device="cpu").digest == calibrate(models[0], planes, device="cpu").digest


def test_a_checkpoint_of_other_planes_is_refused(table, tmp_path):
    """The planes are part of what the table is."""
    images = [replace(image, file=tmp_path / "all.ome.tif", plane=f"T{i}") for i, image in enumerate(table.images)]
    pixels = np.random.default_rng(0).integers(0, 99, (17, 96, 96)).astype(np.uint16)
    tifffile.imwrite(images[0].file, pixels, ome=True, metadata={"axes": "TYX"})
    model, saved = model_for(table), tmp_path / "m.checkpoint"
    first = LabelTable(tuple(images))
    list(train(model, first, checkpoint=saved, **FAST | {"epochs": 1}))
    other = LabelTable((*images[:-1], replace(images[-1], plane="T16")))
    with pytest.raises(OptionsError, match=r"differs in the table \(was"):
        next(train(model, other, checkpoint=saved, resume=True, **FAST | {"epochs": 1}))


def test_at_the_end_the_model_knows_what_its_training_images_look_like(table):
    """Half of them are noise, so noise is no reason against a class; a brighter image is named as such."""
    first, last = train(model_for(table, b=0.3, normalise="training"), table, **FAST)
    assert first.best.card.training.look is None
    look = last.best.card.training.look
    assert (look.images, look.held, last.best.card.training.structureless) == (12, 4, 6)
    assert look.object_sizes is not None
    assert list(look.object_sizes) == sorted(look.object_sizes)
    image = tifffile.imread(table.images[1].file)
    same, brighter = (classify(last.best, image + more, device="cpu", precision="float32") for more in (0, 200))
    assert same.unlike[0] <= 1
    assert brighter.unlike[0] > 1
    assert "too bright" in brighter.unlike_reasons[0]
    assert classify(last.best, table.images[0].file, device="cpu").top[0] in table.classes


def test_a_change_that_a_training_did_not_know_is_not_part_of_that_knowledge(table):
    """A record of before saturation, with all other changes off: varied images are what they were."""
    plain = model_for(table, b=0.3)
    recorded = dict.fromkeys(VARYING_OPTIONS, 0) | {"seed": 0, "vary_size": 1, "vary_share": 1}
    del recorded["vary_saturation"]
    older = plain.with_card(training=plain.card.training.model_copy(update={"options": recorded}))
    looks = [calibrate(model, table, device="cpu").card.training.look for model in (plain, older)]
    np.testing.assert_allclose(looks[1].statistics.middle, looks[0].statistics.middle, rtol=1e-4)


def test_calibrating_gives_an_old_model_that_knowledge(table):
    known = calibrate(model_for(table, b=0.3), table, device="cpu").card.training.look
    assert (known.images, known.held) == (16, 0)
