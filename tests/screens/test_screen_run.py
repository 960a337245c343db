"""A whole screen: one table, whatever form its images have; resumed, refused, and cut into shards."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from screen_plates import (
    CHANNELS,
    LAYOUT,
    WELLS,
    plate_pixels,
    write_image_table,
    write_layout,
    write_named,
    write_series,
    write_zarr_plate,
)
from typer.testing import CliRunner

from conftest import lively_model
from napari_milcnn.cli.app import app
from napari_milcnn.errors import ImageError, LabelsError, OptionsError, OutputError, ResultsError, ResumeError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.model.package_read import load_model
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.replay import replay
from napari_milcnn.screens.parts import wells_of_steps
from napari_milcnn.screens.read import open_results
from napari_milcnn.screens.run import screen
from napari_milcnn.screens.summary import summarise

NAMES = "plate_{well}_s{site}_w{channel}.tif"
PIXELS = plate_pixels(72)
READING = ImageReading(channels=CHANNELS)
CPU = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model(saved_model):
    return saved_model


@pytest.fixture
def source(tmp_path):
    return write_named(tmp_path / "plate", PIXELS, NAMES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("finished")
    run(model, write_named(folder / "plate", PIXELS, NAMES), folder / "out")
    return folder / "out"


def run(model, source, out, **more):
    return wells_of_steps(screen(model, source, out, **{"reading": READING, **CPU, **more}))


def before(wells) -> list[bool]:
    """Say of each well, in the order of the plate, whether an earlier run had done it."""
    return [one.before for one in sorted(wells, key=lambda one: one.well)]


def numbers(out) -> pd.DataFrame:
    table = pd.read_parquet(out / "predictions.parquet")
    kept = ["plate", "well", "site", "top", *(name for name in table if name.startswith(("score", "P ", "cells")))]
    return table[kept]


@pytest.mark.slow
def test_one_plate_in_every_form_gives_the_same_table(tmp_path, model, source):
    layout = write_layout(tmp_path / "layout.csv")
    run(model, source, tmp_path / "named", layout=layout)
    wanted = numbers(tmp_path / "named")
    assert len(wanted) == len(PIXELS)
    sources = {version: write_zarr_plate(tmp_path / version / "plate.ome.zarr", PIXELS, version)
               for version in ("0.4", "0.5", "0.6")}  # fmt: skip
    sources["series"] = write_series(tmp_path / "plate.ome.tif", PIXELS)
    sources["table"] = write_image_table(tmp_path / "images.csv", source, NAMES)
    for kind, one in sources.items():
        run(model, one, tmp_path / f"out {kind}", layout=layout, reading=ImageReading())
        pd.testing.assert_frame_equal(numbers(tmp_path / f"out {kind}"), wanted)
    cells = pd.read_csv(tmp_path / "named" / "cells.csv", keep_default_na=False)
    assert {"plate", "well", "site", "treatment", "dose", "control", "class", "area_px"} <= set(cells)
    assert len(cells) == wanted["cells"].sum()


def test_a_screen_goes_on_where_it_was_left(tmp_path, model, source):
    out = tmp_path / "out"
    steps = screen(model, source, out, reading=READING, **CPU)
    first = next(step.result for step in steps if step.result is not None)
    steps.close()
    assert first.well == WELLS[0]
    assert not (out / "predictions.csv").exists()
    part = out / "parts" / "plate" / WELLS[0] / "part.json"
    written = part.stat().st_mtime_ns
    with pytest.raises(ResumeError, match="go on with it with resume"):
        run(model, source, out)
    wells = run(model, source, out, resume=True)
    assert [(one.well, one.before) for one in wells] == [(well, well == WELLS[0]) for well in WELLS]
    assert part.stat().st_mtime_ns == written
    run(model, source, tmp_path / "whole")
    pd.testing.assert_frame_equal(pd.read_csv(out / "predictions.csv"),
                                  pd.read_csv(tmp_path / "whole" / "predictions.csv"))  # fmt: skip
    assert json.loads((out / "run.json").read_text())["finished"]


def test_a_bad_image_costs_its_row_and_is_tried_again_when_its_file_changes(tmp_path, model, source):
    bad = source / NAMES.format(well="A02", site=1, channel=2)
    good, out = bad.read_bytes(), tmp_path / "out"
    bad.write_bytes(b"no image")
    wells = run(model, source, out)
    assert [len(one.failures) for one in wells] == [0, 1, 0, 0]
    table = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    assert list(table["well"][table["error"] != ""]) == ["A02"]
    assert (table["error"] == "").sum() == len(PIXELS) - 1
    assert all(one.before for one in run(model, source, out, resume=True))
    assert before(run(model, source, out, resume=True, retry_failed=True)) == [True, False, True, True]
    bad.write_bytes(good)
    assert before(run(model, source, out, resume=True)) == [True, False, True, True]
    assert (pd.read_csv(out / "predictions.csv", keep_default_na=False)["error"] == "").all()


def test_changed_images_and_options_are_refused_or_done_again(tmp_path, model, source):
    out = tmp_path / "out"
    run(model, source, out)
    with pytest.raises(ResumeError, match=r"differs in masks min_size|differs in .*present"):
        run(model, source, out, resume=True, mask_options={"present": 0.1})
    other = lively_model(widths=(6, 8, 8, 12, 12, 20))
    with pytest.raises(ResumeError, match="differs in model"):
        run(other, source, out, resume=True)
    changed = source / NAMES.format(well="B01", site=2, channel=1)
    content = changed.read_bytes()
    changed.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(ResumeError, match=r"1 well has other images now .* plate B01; .*--redo-changed"):
        run(model, source, out, resume=True)
    assert before(run(model, source, out, resume=True, redo_changed=True)) == [True, True, False, True]
    changed.touch()  # another time, the same content
    assert all(one.before for one in run(model, source, out, resume=True))
    wells = run(model, source, out, resume=True, redo_changed=True, mask_options={"present": 0.1})
    assert not any(one.before for one in wells)
    with pytest.raises(OptionsError, match="give resume, too"):
        run(model, source, tmp_path / "new", redo_changed=True)
    with pytest.raises(OptionsError, match="'plates' is set, but a screen has the plates of its images"):
        run(model, source, tmp_path / "new", reading=ImageReading(plates=tmp_path))


def test_one_channel_that_is_replaced_by_an_older_file_is_noticed(tmp_path, model, source):
    """It has the same size, and a time before that of the other channel."""
    out, changed = tmp_path / "out", source / NAMES.format(well="B01", site=2, channel=1)
    for file in source.rglob("*.tif"):
        os.utime(file, ns=(2 * 10**18, 2 * 10**18))
    os.utime(changed, ns=(10**18, 10**18))
    run(model, source, out)
    content = changed.read_bytes()
    changed.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    os.utime(changed, ns=(15 * 10**17, 15 * 10**17))
    with pytest.raises(ResumeError, match="1 well has other images now"):
        run(model, source, out, resume=True)


def test_a_part_that_was_half_removed_is_classified_again(tmp_path, model, source):
    out = tmp_path / "out"
    run(model, source, out)
    next((out / "parts").rglob("predictions.parquet")).unlink()
    assert sorted(before(run(model, source, out, resume=True))) == [False, True, True, True]
    assert len(numbers(out)) == len(PIXELS)


def test_a_shard_does_not_finish_a_screen_over_parts_of_other_options(tmp_path, model, source):
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        run(model, source, out, shard=shard)
    table = (out / "predictions.csv").read_bytes()
    run(model, source, out, shard="1/2", redo_changed=True, batch_size=1, mask_options={"present": 0.1})
    assert (out / "predictions.csv").read_bytes() == table
    assert not json.loads((out / "run.json").read_text())["finished"]


def test_tables_are_never_made_of_parts_of_two_ways(tmp_path, model, source):
    out = tmp_path / "out"
    for shard in ("1/2", "2/2"):
        run(model, source, out, shard=shard)
    run(model, source, out, shard="1/2", redo_changed=True, mask_options={"present": 0.1})
    assert set(summarise(out).predictions["well"]) == {"A01", "A02"}


def cut(path):
    path.write_bytes(path.read_bytes()[:99])


@pytest.mark.parametrize(
    ("file", "damage", "error", "said"),
    [
        ("parts/plate/A01/predictions.parquet", cut, ResultsError, "is damaged.* remove the folder in which it lies"),
        ("parts/plate/A01/well.parquet", cut, ResultsError, "is damaged.* remove the folder in which it lies"),
        ("parts/plate/A01/cells.parquet", lambda path: pd.DataFrame({"x": [1]}).to_parquet(path), ResultsError,
         "no column 'plate'"),
        ("fields.parquet", cut, ResultsError, "is damaged.* go on with resume"),
        ("run.json", cut, OutputError, "is not the record of a screen"),
        ("run.json", lambda path: path.write_text('{"kind": "screen"}'), OutputError, "is not the record of a screen"),
    ],
)  # fmt: skip
def test_a_damaged_screen_is_refused_in_words(tmp_path, finished, file, damage, error, said):
    out = shutil.copytree(finished, tmp_path / "out")
    damage(out / file)
    with pytest.raises(error, match=said):
        summarise(out)


def test_columns_named_as_ours_after_a_join_are_kept(tmp_path, model, source):
    (tmp_path / "layout.csv").write_text("well,treatment,treatment of layout\nA01,x,1\n")
    run(model, source, tmp_path / "out", layout=tmp_path / "layout.csv")
    assert list(pd.read_csv(tmp_path / "out" / "wells.csv")["treatment of layout"].dropna()) == [1]


def test_masks_go_to_one_place_in_a_screen(tmp_path, model, source):
    run(model, source, tmp_path / "out")
    with pytest.raises(ResumeError, match=r"the place of masks .beside before, nowhere now"):
        run(model, source, tmp_path / "out", resume=True, masks="nowhere")


def test_shards_share_a_folder_and_the_last_one_writes_the_tables(tmp_path, model, source):
    out = tmp_path / "out"
    done = run(model, source, out, shard="1/3")
    assert not (out / "predictions.csv").exists()
    assert len(summarise(out).predictions) == sum(one.fields for one in done)
    done += run(model, source, out, shard="3/3") + run(model, source, out, shard="2/3")
    assert sorted(one.well for one in done) == list(WELLS)
    run(model, source, tmp_path / "whole")
    pd.testing.assert_frame_equal(numbers(out), numbers(tmp_path / "whole"))
    assert all(one.before for one in run(model, source, out, shard="2/3"))
    with pytest.raises(OptionsError, match="expected i/n"):
        run(model, source, out, shard="4/3")


def test_a_folder_of_other_results_and_a_second_run_are_refused(tmp_path, model, source):
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text('{"format": 2}')
    with pytest.raises(OutputError, match="other results"):
        run(model, source, other, resume=True)
    steps = screen(model, source, tmp_path / "out", reading=READING, **CPU)
    next(steps)
    with pytest.raises(OutputError, match="is being written by"):
        run(model, source, tmp_path / "out", resume=True)
    steps.close()
    shard = screen(model, source, tmp_path / "out", reading=READING, shard="1/2", **CPU)
    next(shard)
    with pytest.raises(OutputError, match="is being written by shard 1 of 2"):
        run(model, source, tmp_path / "out", resume=True)


def test_results_that_vanish_while_a_screen_runs_are_missed(tmp_path, model, source):
    steps = screen(model, source, tmp_path / "out", reading=READING, **CPU)
    first = next(step.result for step in steps if step.result is not None)
    shutil.rmtree(tmp_path / "out" / "parts" / "plate" / first.well)
    with pytest.raises(OutputError, match=r"results of 1 wells, such as plate A01, are not in .* any more.*resume"):
        wells_of_steps(steps)
    assert sorted(before(run(model, source, tmp_path / "out", resume=True))) == [False, True, True, True]


@pytest.mark.parametrize("name", ["漢" * 90, "a\0b"])
def test_an_output_that_cannot_be_made_is_refused(tmp_path, model, source, name):
    with pytest.raises(OutputError, match=r"cannot be written: .*; choose"):
        run(model, source, tmp_path / name)


@pytest.mark.parametrize("name", ["漢" * 90, "a\0b", "~nobody-of-this-name/x"])
def test_a_source_that_cannot_be_there_is_refused(tmp_path, model, source, name):
    with pytest.raises(ImageError, match="there is no such file or folder"):
        run(model, name, tmp_path / "out")
    with pytest.raises(LabelsError, match=r"cannot be read|does not exist"):
        run(model, source, tmp_path / "out", layout=name)
    with pytest.raises(ResultsError, match="does not exist"):
        open_results(name)


def test_a_plate_is_scaled_by_its_negative_controls(tmp_path, source):
    path = tmp_path / "m.zip"
    lively_model(normalise="group").save(path)
    model, layout = load_model(path), write_layout(tmp_path / "layout.csv")
    run(model, source, tmp_path / "all")
    run(model, source, tmp_path / "controls", layout=layout)
    scale = json.loads((tmp_path / "controls" / "parts" / "plate" / ".scale.json").read_text())["scale"]
    assert (scale["controls"], scale["images"]) == (True, 2)
    every, controls = (numbers(tmp_path / name)["score a"] for name in ("all", "controls"))
    assert not np.allclose(every, controls)
    well = next(name for name, facts in LAYOUT.items() if facts[2] == "negative")
    changed = source / NAMES.format(well=well, site=1, channel=1)
    content = changed.read_bytes()
    changed.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    wells = run(model, source, tmp_path / "controls", layout=layout, resume=True, redo_changed=True)
    assert not any(one.before for one in wells)  # the scale of all wells of the plate is another


def test_other_commands_keep_off_the_folder_of_a_screen(tmp_path, model, source):
    out = tmp_path / "out"
    run(model, source, out)
    image = source / NAMES.format(well="A01", site=1, channel=1)
    with pytest.raises(OutputError, match="it is that of a screen"):
        list(classify_files(model, [image], out, **CPU))
    with pytest.raises(OptionsError, match="the record of a screen, which is not replayed"):
        list(replay(out / "run.json", tmp_path / "again"))


def test_a_disk_that_is_full_stops_the_run_cleanly(tmp_path, model, source, monkeypatch):
    out, wrote = tmp_path / "out", []
    usual = pd.DataFrame.to_parquet

    def full(table, path, **more):
        if "parts" in str(path):
            wrote.append(path)
            if len(wrote) > 5:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        usual(table, path, **more)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OutputError, match=r"No space left on device; free some space"):
        run(model, source, out)
    monkeypatch.undo()
    assert not [path for path in (out / "parts" / "plate").iterdir() if "draft" in path.name or "lock" in path.name]
    wells = run(model, source, out, resume=True)
    assert before(wells) == [True, False, False, False]
    run(model, source, tmp_path / "whole")
    pd.testing.assert_frame_equal(numbers(out), numbers(tmp_path / "whole"))


def test_the_commands_of_the_snakemake_rule_run_as_printed(tmp_path, model, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source.rename(tmp_path / "plates")
    shutil.copy(model.path, tmp_path / "mine.zip")
    text = (Path(__file__).parents[2] / "docs" / "screens.md").read_text(encoding="utf-8")
    shard, tables = re.findall(r'shell: "napari-milcnn (.*?)(?: \|\|.*)?"\n', text)
    options = ["--device", "cpu", "--channels", ",".join(CHANNELS)]
    for number in ("1", "2"):
        words = shlex.split(shard.replace("{wildcards.i}", number).replace("{SHARDS}", "2"))
        assert CliRunner().invoke(app, [*words, *options]).exit_code == 0
    (tmp_path / "results" / "predictions.csv").unlink()
    assert CliRunner().invoke(app, shlex.split(tables)).exit_code == 0
    table = pd.read_csv(tmp_path / "results" / "predictions.csv")
    assert len(table) == len(PIXELS)
    assert all(Path(file).is_absolute() for file in table["file"])  # workers of a cluster run in other folders


def test_wells_and_what_they_say_are_written(model, source, tmp_path):
    """One negative control is too few for z: this is said; with other options the tables are made again."""
    out = tmp_path / "out"
    run(model, source, out, layout=write_layout(tmp_path / "layout.csv"))
    wells, plates = (pd.read_parquet(out / f"{name}.parquet") for name in ("wells", "plates"))
    assert list(wells["well"]) == list(WELLS)
    assert list(wells["fields"]) == [2] * 4
    assert list(wells["control"]) == ["negative", "", "", "empty"]
    assert set(plates["note"]) == {"1 negative control; expected at least 4"}
    name = next(name.removeprefix("score ") for name in wells if name.startswith("score "))
    fields = pd.read_parquet(out / "predictions.parquet").groupby("well")[f"score {name}"]
    assert list(wells[f"score {name}"]) == pytest.approx(list(fields.median()))
    assert wells[f"z {name}"].isna().all()
    assert not wells[f"hit {name}"].any()
    assert not (out / "hits.csv").exists()
    assert "expected at least 4" in (out / "report.html").read_text()
    listed, fields = pd.read_csv(out / "fields.csv", dtype=str), pd.read_parquet(out / "fields.parquet")
    assert list(listed) == list(fields)
    assert list(listed["file"]) == list(fields["file"])
    assert len(listed) == len(PIXELS)
    summarise(out, well_score="bag")
    with pytest.raises(OptionsError, match="false_discovery_rate"):
        summarise(out, false_discovery_rate=2)
