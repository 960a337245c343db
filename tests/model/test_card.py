"""What is said of a model: facts of other versions are kept, and the digest that covers them stays the same."""

from __future__ import annotations

import json
import math

from napari_milcnn.model.card import EpochRecord, TrainingRecord

EPOCH = {"epoch": 1, "loss": 3.5, "pooled_loss": 2.0, "last_loss": 1.5, "is_best": True}


def test_a_training_record_is_written_back_as_it_was_read():
    """Facts that were not there are not added, facts that are not known are kept, at the end."""
    old = {"epoch": 3, "options": {"turns": True}, "curve": [{**EPOCH, "mood": "good"}], "colour": [1, None]}
    record = TrainingRecord(**old)
    assert json.dumps(json.loads(record.model_dump_json())) == json.dumps(old)
    assert record.curve[0].learned_b is None
    assert TrainingRecord(**record.model_dump()) == record
    assert TrainingRecord().model_dump_json() == "{}"


def test_a_loss_that_is_no_number_comes_back():
    """JSON has no NaN, so it is written as a word."""
    record = TrainingRecord(curve=(EpochRecord(**{**EPOCH, "loss": math.nan}),))
    assert math.isnan(TrainingRecord.model_validate_json(record.model_dump_json()).curve[0].loss)


def test_what_a_record_says_was_learned():
    assert not TrainingRecord().has_learned_encoder
    assert TrainingRecord(epoch=1).has_learned
    other_classes = TrainingRecord(encoder_of="a digest")
    assert (other_classes.has_learned, other_classes.has_learned_encoder) == (False, True)
