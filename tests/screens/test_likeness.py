"""Which wells are alike, and which are like nothing that is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.errors import OptionsError, ResultsError
from napari_milcnn.screens import likeness
from napari_milcnn.screens.likeness import (
    map_of_wells,
    principal_components,
    unexplained_wells,
    wells_like,
    write_likeness,
)

CLASSES = ("none", "a", "b")


def wells(new: int = 6, controls: bool = True) -> pd.DataFrame:
    """Make 120 wells: 60 controls, 30 of class a and b each, of all strengths, and some of a phenotype taken for b."""
    rng = np.random.default_rng(1)
    ways = rng.normal(0, 1, (3, 40)) * 3
    kinds = np.repeat([0, 1, 2, 3], [60, 30, 30, new])
    strength = rng.uniform(0.4, 1, len(kinds))
    values = rng.normal(0, 1, (len(kinds), 40))
    for kind in (1, 2, 3):
        values[kinds == kind] += strength[kinds == kind, None] * ways[kind - 1]
    top = np.where(kinds == 3, 2, kinds)
    table = pd.DataFrame({"plate": "1", "well": [f"w{i}" for i in range(len(kinds))], "kind": kinds})
    if controls:
        table["control"] = np.where((kinds == 0) & (np.arange(len(kinds)) % 2 == 0), "negative", "")
    scores = {f"bag score {name}": (top == number).astype(float) for number, name in enumerate(CLASSES)}
    clear = np.where(kinds == 3, 0.6, 0.9)  # the network is less sure of a phenotype that it has not seen
    scores |= {f"bag P {name}": (top == number) * clear for number, name in enumerate(CLASSES)}
    return table.assign(**scores).join(pd.DataFrame(values, columns=[f"feature_{i:03}" for i in range(40)]))


@pytest.mark.parametrize("controls", [True, False])
def test_wells_of_a_new_phenotype_lead_the_list(controls: bool) -> None:
    """Wells of a phenotype that the model takes for b come first, in one cluster; strong wells of a and b do not."""
    found = unexplained_wells(wells(controls=controls))
    assert found["kind"].head(6).tolist() == [3] * 6
    assert found["cluster"].head(6).tolist() == [1] * 6
    assert (found.loc[found["kind"] != 3, "cluster"] != 1).all()
    assert all(own["like nothing known"].is_monotonic_decreasing for _, own in found.groupby("cluster"))
    assert found["cluster"].replace(0, 99).is_monotonic_increasing
    assert "feature_000" not in found


@pytest.mark.parametrize("count", [1, 2])
def test_strong_positive_controls_do_not_lead_the_list_of_a_small_plate(count):
    """However few they are: the class is known. Neither do those of something that is no class of the model."""
    table = wells()
    is_b, new = (np.flatnonzero(table["kind"] == kind) for kind in (2, 3))
    small = table.drop(index=is_b[count:])
    assert unexplained_wells(small.drop(index=new))["kind"].iloc[0] != 2
    marked = small.assign(label="", treatment="")
    marked.loc[is_b[:count], ["control", "label"]] = "positive", "b"
    before = unexplained_wells(marked)
    assert before["kind"].head(6).tolist() == [3] * 6
    marked.loc[new[:3], ["control", "treatment"]] = "positive", "nocodazole"
    after = unexplained_wells(marked)["like nothing known"]
    assert after.iloc[0] < before["like nothing known"].iloc[5] / 1.5


def test_positive_controls_find_a_phenotype_that_is_taken_for_their_class_as_clearly_as_they_are():
    table = wells().assign(label="")
    table.loc[table["kind"] == 3, "bag P b"] = 0.95
    is_b = np.flatnonzero(table["kind"] == 2)
    small = table.drop(index=is_b[2:])
    assert unexplained_wells(small)["kind"].iloc[0] != 3
    small.loc[is_b[:2], ["control", "label"]] = "positive", "b"
    assert unexplained_wells(small)["kind"].head(6).tolist() == [3] * 6


def test_wells_that_look_as_positive_controls_do_say_nothing_of_a_class_that_they_are_taken_for():
    """The model takes most wells of a for b, of which there are few: the way to b is still that of b."""
    table = wells().assign(label="")
    is_a, is_b = (np.flatnonzero(table["kind"] == kind) for kind in (1, 2))
    table.loc[is_a[:12], ["control", "label"]] = "positive", "a"
    table.loc[is_a[6:], ["bag score a", "bag P a", "bag score b", "bag P b"]] = 0.0, 0.0, 1.0, 0.9
    found = unexplained_wells(table.drop(index=is_b[12:]))
    assert found["kind"].head(6).tolist() == [3] * 6


def test_a_phenotype_like_a_class_is_found_beside_many_wells_of_that_class():
    """Its 12 wells are like the 30 of b, and show b as clearly: what most wells that are taken for b show is b."""
    table = wells(new=12)
    names, new = [f"feature_{i:03}" for i in range(40)], table["kind"] == 3
    typical = table.loc[table["kind"] == 2, names].median()
    table.loc[new, names] = (table.loc[new, names] + typical) / 2
    table["bag P b"] = np.where(table["bag score b"] > 0, np.random.default_rng(3).uniform(0.94, 0.96, len(table)), 0.0)
    assert (unexplained_wells(table)["kind"].head(10) == 3).sum() >= 9


def test_without_a_new_phenotype_nothing_leads_by_far() -> None:
    """Known wells alone: the most unlike of them is far below a planted phenotype."""
    known, planted = unexplained_wells(wells(0)), unexplained_wells(wells())
    assert known["like nothing known"].iloc[0] < planted["like nothing known"].iloc[5] / 1.5


def test_one_strange_well_is_not_a_phenotype() -> None:
    """A well with an artefact of its own, further out than the new phenotype, does not lead the list."""
    table = wells()
    table.loc[0, [f"feature_{i:03}" for i in range(40)]] = np.random.default_rng(9).normal(0, 8, 40)
    assert unexplained_wells(table)["kind"].head(6).tolist() == [3] * 6


def test_wells_like_one_are_of_its_kind() -> None:
    """The wells most like a strong well of a are of a; the well itself is not listed."""
    table = wells()
    found = wells_like(table, "1", "w70", 15)
    assert set(found["kind"]) == {1}
    assert "w70" not in set(found["well"])
    assert found["likeness"].is_monotonic_decreasing
    with pytest.raises(ResultsError, match="well H12 of plate '1' is not in the table"):
        wells_like(table, "1", "H12")
    with pytest.raises(OptionsError, match="count is -5; expected at least 1"):
        wells_like(table, "1", "w70", -5)


@pytest.mark.parametrize("way", ["pca", "tsne"])
def test_a_map_has_a_place_for_each_well(way) -> None:
    """Classes lie apart: the nearest well of most wells of a is of a."""
    table = wells()
    found = map_of_wells(table, way)
    points = found[["map x", "map y"]].to_numpy(float)
    assert np.isfinite(points).all()
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(len(points), np.inf))
    kinds = found["kind"].to_numpy()
    assert (kinds[distance.argmin(1)] == kinds)[kinds == 1].mean() > 0.8


def test_blocks_of_wells_give_the_same_list(monkeypatch) -> None:
    """The list does not depend on how many wells are compared at a time."""
    whole = unexplained_wells(wells())
    monkeypatch.setattr(likeness, "_WELLS_AT_ONCE", 7)
    pd.testing.assert_frame_equal(unexplained_wells(wells()), whole)


def test_the_list_and_the_map_are_written(tmp_path) -> None:
    """A row a well, the new phenotype first, with the place of each; nothing of fewer than three wells."""
    write_likeness(tmp_path, wells().head(2))
    assert not list(tmp_path.iterdir())
    write_likeness(tmp_path, wells())
    found = pd.read_csv(tmp_path / "likeness.csv")
    assert found["kind"].head(6).tolist() == [3] * 6
    assert {"plate", "well", "control", "like nothing known", "cluster", "map x", "map y"} <= set(found)
    assert len(found) == len(wells())


def test_too_few_wells_and_unknown_maps_are_refused() -> None:
    """Two wells cannot be compared."""
    with pytest.raises(ResultsError, match="2 wells with 40 features are too few"):
        principal_components(wells().head(2))
    with pytest.raises(OptionsError, match="there is no map 'round'; expected pca or tsne"):
        map_of_wells(wells(), "round")  # type: ignore[arg-type]
