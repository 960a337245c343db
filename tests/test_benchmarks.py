"""The benchmarks' pure parts: what they compose, how they divide it, what they compute from their rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile


def test_finished_runs_are_not_done_twice(tmp_path):
    """Of three wanted runs one has rows, which leaves two; other settings are refused."""
    from benchmarks.runs import Finished

    finished = Finished(tmp_path, {"epochs": (3, 4)})
    wanted = [{"pooling": name, "seed": 0} for name in ("max", "isr", "lse")]
    assert finished.open_runs(wanted) == wanted
    finished.add(wanted[1], [{"k": 1, "errors": 5}, {"k": 2, "errors": 3}])
    assert Finished(tmp_path, {"epochs": (3, 4)}).open_runs(wanted) == [wanted[0], wanted[2]]
    assert list(finished.rows()["errors"]) == [5, 3]
    with pytest.raises(SystemExit, match=r"holds runs of other settings \(epochs\)"):
        Finished(tmp_path, {"epochs": (3, 5)})


def test_the_latest_block_of_a_title_is_kept_with_its_command(tmp_path, monkeypatch, capsys):
    """What is printed takes the place of the earlier block of its title, which moves to HISTORY.md; others stay."""
    from benchmarks import record

    results, history = tmp_path / "RESULTS.md", tmp_path / "HISTORY.md"
    first, other = "\n## Some, 2026-01-02\n\nfirst\n", "\n## Some, wider, 2026-01-02\n\nother\n"
    results.write_text("# Results\n" + first + other)
    history.write_text("before\n")
    monkeypatch.setattr(record, "RESULTS", results)
    monkeypatch.setattr(record, "HISTORY", history)
    monkeypatch.setattr(sys, "argv", [str(record.ROOT / "benchmarks" / "speed" / "some.py"), "--data", "a b"])
    record.report("Some", record.table(["name", "error"], [["max", 0.25]]), keep=True)
    printed = capsys.readouterr().out
    assert results.read_text() == "# Results\n" + printed + other
    assert history.read_text() == "before\n" + first
    assert "`python -m benchmarks.speed.some --data 'a b'`" in printed
    assert printed.endswith("| name | error |\n| --- | --- |\n| max | 0.250 |\n")
    record.report("Another", ["line"], keep=True)
    assert results.read_text() == "# Results\n" + printed + other + capsys.readouterr().out


def test_k_of_a_hundred_digits_are_of_the_class():
    """Digits drawn as one bright pixel: 100 in all on 280 px, three of them of the class, each near its place."""
    from benchmarks.accuracy.cluttered_mnist import cluttered

    zeros, others = np.zeros((5, 28, 28), np.uint8), np.zeros((2, 28, 28), np.uint8)
    zeros[:, 14, 14], others[:, 14, 14] = 50, 200
    image = cluttered(zeros, others, 3, np.random.default_rng(0))
    assert image.shape == (280, 280)
    assert (image == 50).sum() == 97
    assert (image == 200).sum() == 3
    offsets = np.argwhere(image) % 28 - 14
    assert np.abs(offsets).max() == 3


def test_digits_of_the_parts_are_disjoint(tmp_path):
    """Digit values say where they come from: the first three quarters, the last quarter, the validation file."""
    from benchmarks.accuracy.cluttered_mnist import Plan, make_images

    numbers = np.tile(np.arange(10), 40)
    shade = np.where(np.arange(400) < 300, 100, 150).astype(np.uint8)
    digits = np.broadcast_to(shade[:, None, None], (400, 28, 28))
    np.savez(tmp_path / "digits.npz", x_train=digits, y_train=numbers, x_validation=digits[:40] + 100,
             y_validation=numbers[:40])  # fmt: skip
    make_images(tmp_path / "digits.npz", tmp_path, Plan(train=1, test=1, counts=(1, 5), train_counts=(5,)))
    labels, test = pd.read_csv(tmp_path / "labels.csv"), pd.read_csv(tmp_path / "test.csv")
    assert dict(labels["split"].value_counts()) == {"train": 9, "validation": 9}
    assert len(test) == 18
    for part, rows, value in (("train", labels, 100), ("validation", labels, 150), ("test", test, 200)):
        first = rows[rows["split"] == part]["file"].iloc[0]
        assert set(np.unique(tifffile.imread(tmp_path / first))) <= {0, value}


def test_spread_over_the_seeds():
    """Two seeds with 1 and 3 of 10 wrong: 0.2 on average, from 0.1 to 0.3."""
    from benchmarks.accuracy.cluttered_mnist import Plan, lines, spread

    rows = pd.DataFrame({"pooling": "max", "seed": [0, 0, 1, 1], "k": [1, 2, 1, 2], "images": 5,
                         "errors": [1, 0, 2, 1]})  # fmt: skip
    assert spread(rows, ["pooling"]).loc["max"].tolist() == pytest.approx([0.2, 0.1, 0.3])
    assert lines(rows, Plan(counts=(1, 2)))[-1] == "| max | 0.30 | 0.10 | 0.200 | 0.100 to 0.300 |"


@pytest.fixture
def plate():
    """Five stimulated wells, seven basal and one of neither, two fields each."""
    wells = [(f"S{i}", "stimulated", 10.0 * (i + 1)) for i in range(5)]
    wells += [(f"B{i}", "basal", 0.1 * i) for i in range(7)] + [("M0", "mid", 3.0)]
    return pd.DataFrame([{"file": f"{well}_{i}.tif", "label": label, "group": well, "dose": dose}
                         for well, label, dose in wells for i in range(2)])  # fmt: skip


def test_no_fold_trains_on_a_well_that_it_scores(plate):
    """Each fold leaves one stimulated and one or two basal wells out; the well between is scored by all."""
    from benchmarks.accuracy.bbbc016 import left_out_in, part

    plate["fold"] = plate["group"].map(left_out_in(plate)).fillna(-1).astype(int)
    for fold in range(5):
        trained, scored = part(plate, fold)
        assert not set(trained["group"]) & set(scored["group"])
        assert "mid" not in set(trained["label"])
        assert (scored.groupby("label")["group"].nunique()["stimulated"], "M0" in set(scored["group"])) == (1, True)
    assert sum((plate["fold"] == fold)[plate["label"] == "basal"].any() for fold in range(5)) == 5


def test_scores_of_fields_and_wells(plate):
    """Two of five stimulated wells have fields at .2 and .4, which is wrong: (3/5 + 1) / 2, and a mean of .3."""
    from benchmarks.accuracy.bbbc016 import balanced_accuracy, dose_response, fields, wells_of

    plate["score"] = np.where(plate["label"] == "stimulated", 0.9, 0.1)
    plate.loc[plate["group"].isin(["S0", "S1"]), "score"] = [0.2, 0.4, 0.2, 0.4]
    assert balanced_accuracy(plate) == pytest.approx((0.6 + 1) / 2)
    wells = wells_of(fields(pd.concat([plate, plate])))
    assert len(wells) == 13
    assert wells[wells["group"] == "S0"]["score"].item() == pytest.approx(0.3)
    two = pd.DataFrame({"dose": [3.0, 3.0, 1.0], "score": [0.2, 0.4, 0.5]})
    assert dose_response(two).loc[1].tolist() == pytest.approx([3, 0.3, 0.1, 2])


def test_a_hill_curve_of_wells_is_told():
    """Scores laid on a curve with EC50 3 and slope 2, two wells each, give these back; a flat line is said."""
    from benchmarks.accuracy.bbbc016 import curve_cells, fitted
    from napari_milcnn.screens.statistics.doses import hill

    dose = np.repeat([0, 0.03, 0.3, 1, 3, 10, 30, 100], 2)
    wells = pd.DataFrame({"dose": dose, "score": hill(dose, 0.1, 0.9, np.log10(3), 2.0), "share": 0.1})
    ec50, slope = curve_cells(fitted(wells))
    assert ec50.startswith("3 (")
    assert slope == "2.0"
    assert curve_cells(fitted(wells, "share")) == ["no response: a flat line fits as well", ""]


def test_hits_are_counted_by_what_is_true():
    """One active treatment is found in its class, one missed; one inactive one is a hit; unclear ones are out."""
    from benchmarks.screens.hits import figures, treatments_of

    truth = treatments_of(pd.DataFrame({
        "treatment": ["a", "a", "b", "b", "c", "c"], "dose": [1.0, 2.0] * 3, "control": np.nan, "target": "x",
        "share": [0.5, 0.6, 0.3, 0.1, 0.05, 0.0], "most": [0.6, 0.6, np.nan, np.nan, 0.1, 0.1],
    }))  # fmt: skip
    rows = [("a", 1.0, "x", True), ("a", 1.0, "y", True), ("a", 2.0, "x", False), ("a", 2.0, "y", False),
            ("b", 1.0, "x", False), ("b", 1.0, "y", True), ("c", 1.0, "x", True)]  # fmt: skip
    found = pd.DataFrame(rows, columns=["treatment", "dose", "class", "hit"])
    assert figures(found, truth) == [2, 0.5, 0.5, 1, 0.5]


def test_proteins_are_dealt_out_whole():
    """Of five proteins of one label two train, one chooses, two are reported; those with two labels are dealt apart."""
    from benchmarks.accuracy.yeast import dealt

    rows = pd.DataFrame({"group": [*"abcde", *"abcde", "f", "g"], "label": [*["ER"] * 10, "ER|nucleus", "ER|vacuole"]})
    found = dealt(rows)
    assert [found[group] for group in "abcde"] == ["train", "test", "train", "validation", "test"]
    assert [found[group] for group in "fg"] == ["train", "test"]


def test_a_table_keeps_its_own_division(tmp_path):
    """Test rows stay; a split without them ends with a sentence; without one, proteins are dealt out."""
    from benchmarks.accuracy.yeast import divided

    rows = pd.DataFrame({"file": ["a.tif", "b.tif"], "label": ["ER", "ER"], "group": ["a", "b"]})
    (tmp_path / "out").mkdir()
    for split, expected in ((["test", "train"],) * 2, (None, ["train", "test"])):
        rows.assign(**({} if split is None else {"split": split})).to_csv(tmp_path / "t.csv", index=False)
        written = pd.read_csv(divided(tmp_path / "t.csv", tmp_path / "out"))
        assert written["split"].tolist() == expected
        assert written["file"].tolist() == [str(tmp_path / name) for name in rows["file"]]
    rows.assign(split=["train", "validation"]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(SystemExit, match="split without test rows"):
        divided(tmp_path / "t.csv", tmp_path / "out")


def test_proteins_are_judged_by_their_medians():
    """Three fields of p, one of which is wrong: 2 of 3 fields and the protein right; q's second label is missed."""
    from benchmarks.accuracy.yeast import agreement, by_protein, lines, precisions, single_accuracy

    rows = pd.DataFrame({
        "seed": 0,
        "file": [*"123", "4"],
        "label": ["ER"] * 3 + ["ER|nucleus"],
        "group": [*"ppp", "q"],
        "ER": [0.9, 0.8, 0.2, 0.7],
        "nucleus": [0.1, 0.1, 0.6, 0.3],
    })  # fmt: skip
    proteins = by_protein(rows)
    assert proteins[["ER", "nucleus"]].to_numpy().tolist() == [[0.8, 0.1], [0.7, 0.3]]
    assert single_accuracy(rows) == pytest.approx(2 / 3)
    assert single_accuracy(proteins) == 1.0
    assert agreement(rows) == (0.75, 0.5)
    assert agreement(proteins) == (1.0, 0.5)
    assert precisions(rows).to_dict() == {"ER": 1.0, "nucleus": 0.5}
    assert lines(rows)[-1] == "| nucleus | 1.000 |"


def collection(folder: Path) -> tuple[Path, Path, Path]:
    """Write a miniature of BBBC021: two mechanisms of two compounds, one of one, DMSO; four wells of two sites each.

    The first well of the last compound lacks its actin files.
    """
    moa = {"a": "one", "b": "one", "c": "two", "d": "two", "e": "three", "DMSO": "DMSO"}
    rows, rng = [], np.random.default_rng(0)
    (folder / "Week1_7").mkdir(parents=True)
    for well, compound in enumerate(np.repeat([*moa], 4)):
        for site in (1, 2):
            row = {"Image_Metadata_Plate_DAPI": "Week1_7", "Image_Metadata_Well_DAPI": f"W{well:02d}",
                   "Image_Metadata_Compound": compound, "Image_Metadata_Concentration": 0.1,
                   "Replicate": 1}  # fmt: skip
            for stain in ("DAPI", "Tubulin", "Actin"):
                name = f"s{site}_{well}_{stain}.tif"
                row |= {f"Image_FileName_{stain}": name, f"Image_PathName_{stain}": "Week1/Week1_7"}
                if (well, stain) != (16, "Actin"):
                    tifffile.imwrite(folder / "Week1_7" / name, rng.integers(0, 900, (144, 160), np.uint16))
            rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    known = [{"compound": name, "concentration": "0.100", "moa": value} for name, value in moa.items()]
    pd.DataFrame(known).to_csv(folder / "moa.csv", index=False)
    return folder / "images.csv", folder / "moa.csv", folder


def test_what_a_collection_lacks_is_counted(tmp_path):
    """Five compounds of eight sites, two of them without actin: 38 of 40; e alone has its mechanism."""
    from benchmarks.accuracy.bbbc021 import few, read_sites, runs_of, with_files

    images, moa, data = collection(tmp_path / "data")
    sites, said = with_files(read_sites(images, moa), data)
    assert said == ["38 of 40 images with a mechanism are in data: 5 of 5 treatments, 3 of 3 mechanisms.",
                    "Missing, by plate: Week1_7 (2)."]  # fmt: skip
    assert runs_of(sites, "paper") == ["nothing"]
    assert runs_of(sites, "compound") == ["a", "b", "c", "d"]
    assert few(sites)["compound"].value_counts().to_dict() == {"a": 2, "b": 2, "c": 2, "d": 2}
    with pytest.raises(SystemExit, match=r"no mechanism has two compounds, so none can be left out \(a, c, e\)"):
        runs_of(sites[sites["compound"].isin(["a", "c", "e"])], "compound")
    with pytest.raises(SystemExit, match=r"(?s)0 of 40 images .*expected folders such as Week1/Week1_7"):
        with_files(read_sites(images, moa), tmp_path)
    pd.DataFrame({"compound": ["a"]}).to_csv(moa, index=False)
    with pytest.raises(SystemExit, match=r"moa\.csv lacks the column concentration, moa"):
        read_sites(images, moa)


def test_division_of_a_collection():
    """Of 40 images of each treatment 6 are learned from, 2 or 3 of those 12 choose; a compound left out is the test."""
    from benchmarks.accuracy.bbbc021 import divided

    sites = pd.DataFrame({"compound": np.repeat(["a", "b"], 40), "concentration": 0.1, "moa": "one"})
    paper = divided(sites, "nothing", 0.15, 0)
    assert paper.value_counts().to_dict() == {"test": 68, "train": 10, "validation": 2}
    assert (paper[:40] == "test").sum() == (paper[40:] == "test").sum() == 34
    left = divided(sites, "a", 0.15, 0)
    assert set(left[:40]) == {"test"}
    assert left[40:].value_counts().to_dict() == {"": 34, "train": 6}


def test_a_compound_left_out_is_scored(tmp_path):
    """One epoch of a narrow network on composed images: scores of each mechanism for the compound's eight images."""
    from benchmarks.accuracy.bbbc021 import Plan, compose, composed, one_run, read_sites, with_files

    images, moa, data = collection(tmp_path / "data")
    sites, _ = with_files(read_sites(images, moa), data)
    compose(sites, tmp_path / "images")
    image = tifffile.imread(composed(tmp_path / "images", "Week1_7_W00_s1_0_DAPI"))
    np.testing.assert_array_equal(image[2], tifffile.imread(data / "Week1_7" / "s1_0_Actin.tif"))
    plan = Plan(share=0.5, widths=(2, 2, 2, 4, 4, 4), epochs=1, patch=140)
    rows = pd.DataFrame(one_run("a", "noisy_and", 10.0, 2.5, 0, sites, tmp_path / "images", plan, "cpu"))
    assert rows["compound"].tolist() == ["a"] * 8
    np.testing.assert_allclose(rows[["score one", "score two", "score three"]].sum(axis=1), 1, rtol=1e-5)


def test_a_treatment_has_the_mechanism_of_its_median():
    """Two of three images right, and the median with them; the other treatment is wrong: 2 of 4 images, 1 of 2."""
    from benchmarks.accuracy.bbbc021 import lines

    rows = pd.DataFrame({"compound": "a", "moa": "one", "concentration": [1.0, 1.0, 1.0, 3.0],
                         "score one": [0.9, 0.6, 0.2, 0.3], "score two": [0.1, 0.4, 0.8, 0.7]})  # fmt: skip
    assert lines(rows)[2:] == ["| all | 4 | 0.500 | 2 | 0.500 |", "| one | 4 | 0.500 | 2 | 0.500 |"]


def test_labels_are_counted_to_the_goal():
    """Of two seeds one reaches .9 at 20 labels in place of 30, the other never does: a gain of .1 and of 0."""
    from benchmarks.accuracy.active_learning import compared, lines, reached

    rows = pd.DataFrame([
        {"seed": seed, "arm": arm, "labels": n, "accuracy": accuracy, "fewest": 1}
        for seed, arm, curve in ((0, "what next", (0.5, 0.9, 0.95)), (0, "random", (0.5, 0.65, 0.9)),
                                 (1, "what next", (0.4, 0.5, 0.6)), (1, "random", (0.4, 0.5, 0.6)))
        for n, accuracy in zip((10, 20, 30), curve, strict=True)
    ])  # fmt: skip
    seed = rows[rows["seed"] == 0]
    assert [reached(seed[seed["arm"] == arm]) for arm in ("what next", "random")] == [20, 30]
    assert lines(rows)[2:4] == ["| what next, labels to 0.9 | 20 | > 30 |", "| random, labels to 0.9 | 30 | > 30 |"]
    means = pd.DataFrame({0: [0.8, 0.7], 1: [0.5, 0.5]}, ["what next", "random"])
    assert compared(means).endswith("+0.050 (-0.585 to +0.685, 2 seeds).")


def test_labels_are_given_by_rounds(tmp_path, monkeypatch):
    """Two strains of one class, one of the other: a label each, one more a round; the rarest class is counted."""
    from benchmarks.accuracy.active_learning import ALIKE, ARMS, TEST_SEED, Plan, begin, draw, once, one_run, yeast

    monkeypatch.setitem(ALIKE, "yeast", 1)

    widths = (2, 2, 2, 4, 4, 4)
    plan = Plan({"nucleus": 2, "cytoplasm": 1}, {"ER": 1, "vacuole": 1}, side=80, test=1, start=1, labels=1, rounds=1,
                visits=4, start_visits=4, widths=widths)  # fmt: skip
    for folder, seed in (("images0", 0), (f"images{TEST_SEED}", TEST_SEED), ("others", 2)):
        pools = {"others": plan.others}.get(folder, plan.pool)
        once(lambda out, seed, pools=pools: yeast(replace(plan, pool=pools), None, out, seed), tmp_path / folder, seed)
    assert len(pd.read_csv(tmp_path / "images0" / "labels.csv")) == 3
    begin(tmp_path, plan)
    rows = [{"seed": 0, "arm": arm, **row} for arm in ARMS for row in one_run(0, arm, tmp_path, plan)]
    assert [(row["labels"], row["fewest"]) for row in rows] == [(2, 1), (3, 1)] * 2
    assert rows[0]["accuracy"] == rows[2]["accuracy"]  # both arms start alike
    draw(pd.DataFrame(rows), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_speeds_are_medians_of_the_ratios_in_each_turn(tmp_path):
    """A turn in which the computer was busy decides nothing; the plot has one panel a table."""
    from benchmarks.speed import inference

    seconds = {"naive": [4.0, 40.0, 4.0], "ours": [2.0, 20.0, 1.0]}
    assert inference.times_first(seconds) == {"naive": 1.0, "ours": 2.0}
    assert inference.ratios(seconds)[-1] == "| ours | 2000 | 2.00 | 0.50 |"
    inference.draw({"network": seconds, "end to end": seconds}, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 5000
    asked: list[str] = []
    found = inference.in_turn({name: lambda name=name: asked.append(name) for name in "ab"}, 2)
    assert asked == list("ababab")
    assert [len(own) for own in found.values()] == [2, 2]
    failed: list[str] = []
    with inference.noted("an engine", failed):
        raise ImportError("no module\nof that name")
    assert failed == ["an engine: left out, ImportError: no module"]
