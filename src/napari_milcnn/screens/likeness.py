"""Which wells are alike: a map of all wells, wells like one, and wells that no class explains.

All of it reads the standardised features of `features.parquet` (`screens.features`), along their main directions.

A well in which a share of the cells shows a class lies on the way from the negative controls to that class: to the
median of its positive controls, where the layout names some, else of half of the wells taken for it. Where many wells
are, that is the half whose directions agree best: what most of them show is the class. Of fewer it is the half that
shows it most clearly, by P, since wells of a new phenotype, which are taken for some class, are mostly in the other
half. Positive controls of anything else are a way, too. A few wells are enough: a class is known, however rare it is in
a screen. Wells that look as positive controls do say nothing of another class that the network takes them for: one that
confuses the two would else lose the way to the other.

What is left of a well beside the nearest way is what no class explains. It is measured against how much that varies
over wells that classes do explain (the covariance of four in five of them, shrunk after Ledoit and Wolf). One well may
stick out by an artefact of its own, but wells of a new phenotype stick out together; so `like nothing known` is how
much of what is left of a well it shares with another, the mean over the three others with which it shares most. Single
wells of known classes reach as far as a new phenotype does, and clusters of them less often: clusters are listed first,
by the mean of their wells.

What it cannot find: a phenotype in a single well, and one that is taken for a class, as clearly as wells of the class
itself, of which there are hardly any: the way to that class is then the way to the phenotype. Positive controls of that
class may help, and a few of every class may harm. Where the network confuses two classes that have none, wells of one
of them lead the list. Wells of few cells differ so much from each other that a new phenotype is hardly more unlike than
they (`benchmarks/screens/left_out.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from napari_milcnn.errors import OptionsError, ResultsError
from napari_milcnn.results.write import write_table
from napari_milcnn.schema import CONTROL, PLATE, WELL, bag_pooled_column, bag_score_column, is_bag_score
from napari_milcnn.screens.features import feature_names
from napari_milcnn.screens.outputs.quality import text_column

LIKENESS_TABLE: Final = "likeness.csv"
LIKENESS: Final = "likeness"
"""Column with the cosine of the angle between the features of two wells: 1 for one direction, 0 for none shared."""
UNEXPLAINED: Final = "like nothing known"
"""Column with how far a well is from what classes explain, in standard deviations, where other wells are so, too."""
CLUSTER: Final = "cluster"
"""Column with the number of the group of wells that are alike in what no class explains, from 1; 0 for no group."""
MAP_COLUMNS: Final = ("map x", "map y")
MapWay = Literal["pca", "tsne"]
_FEWEST_DIRECTIONS, _MOST_DIRECTIONS, _WELLS_A_DIRECTION = 20, 40, 8
_LIKE_CONTROLS = 0.25
"""A well looks as positive controls do, if this share of them agree less with their own median than it does."""
_FAR = 20.0
"""Standard deviations beyond which a feature says no more."""
_FEWEST_WELLS = 3
"""Fewest wells that can be compared, and fewest that are a cluster."""
_NEIGHBOURS = 3
_STRONGEST = 1.5
"""A well may show a class so many times as strongly as the typical well of the class."""
_WELLS_AT_ONCE = 256
"""Wells that are compared with all others at a time."""
_MOST_CLUSTERED = 4000
"""Most wells, those with the largest values, that are clustered."""
_FITS, _USUAL = 3, 0.8
"""Rounds in which the covariance is measured on this share of the wells, those that are explained best."""
_MANY_WELLS = 20
"""Wells taken for a class from which on most of them are wells of that class."""
_STARTS, _SEARCH_STEPS = 40, 6
_LEAST_COSINE = 0.5
"""Least cosine between what is left of wells of one cluster."""


def principal_components(table: pd.DataFrame) -> np.ndarray:
    """Return the main directions of the features of wells, float64 (wells, directions), in order of their variance.

    They are 20; of more than 160 wells one for every 8, and no more than 40.

    Raises
    ------
    ResultsError
        If there are fewer than three wells.
    """
    names = feature_names(table)
    if len(table) < _FEWEST_WELLS or not names:
        raise ResultsError(f"{len(table)} wells with {len(names)} features are too few to compare; expected at least "
                           f"{_FEWEST_WELLS} wells of a table of features")  # fmt: skip
    values = np.clip(table[names].to_numpy(float), -_FAR, _FAR)
    count = int(np.clip(len(table) // _WELLS_A_DIRECTION, _FEWEST_DIRECTIONS, _MOST_DIRECTIONS))
    with np.errstate(invalid="ignore"):  # of wells that are all alike, the shares of the variance, which nobody reads
        return np.asarray(PCA(min(count, len(table) - 1, len(names)), svd_solver="full").fit_transform(values))


def map_of_wells(table: pd.DataFrame, way: MapWay = "pca", *, seed: int = 0) -> pd.DataFrame:
    """Lay wells out in a plane, so that wells that are alike lie near each other.

    Parameters
    ----------
    table : DataFrame
        features.parquet.
    way : str
        pca: the two main directions; tsne: t-SNE (van der Maaten and Hinton 2008) of the main directions, in which
        only neighbours mean something, not distances.
    seed : int
        Random seed of t-SNE.

    Returns
    -------
    DataFrame
        The table without its features, and the columns `map x` and `map y`.

    Raises
    ------
    OptionsError
        If there is no such way.
    ResultsError
        As `principal_components`.
    """
    if way not in ("pca", "tsne"):
        raise OptionsError(f"there is no map {way!r}; expected pca or tsne")
    points = principal_components(table)
    if way == "tsne":
        from sklearn.manifold import TSNE

        points = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), random_state=seed).fit_transform(points)
    points = np.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    return _without_features(table).join(pd.DataFrame(points, table.index, MAP_COLUMNS))


def wells_like(table: pd.DataFrame, plate: str, well: str, count: int = 20) -> pd.DataFrame:
    """Find the wells that are most like one well.

    Parameters
    ----------
    table : DataFrame
        features.parquet.
    plate, well : str
        The well.
    count : int
        Most wells to list.

    Returns
    -------
    DataFrame
        The table without its features, and the column `likeness`; the well itself is left out.

    Raises
    ------
    OptionsError
        If the count is below 1.
    ResultsError
        If the well is not in the table, or as `principal_components`.
    """
    if count < 1:
        raise OptionsError(f"count is {count}; expected at least 1")
    found = np.flatnonzero(((table[PLATE] == plate) & (table[WELL] == well)).to_numpy())
    if not len(found):
        raise ResultsError(f"well {well} of plate {plate!r} is not in the table of features; choose one that is")
    names = feature_names(table)
    principal_components(table)  # says that there are too few wells
    units = _unit_vectors(np.clip(table[names].to_numpy(float), -_FAR, _FAR))
    likeness = units @ units[found[0]]
    order = np.argsort(-likeness, kind="stable")
    order = order[order != found[0]][:count]
    found_wells: pd.DataFrame = _without_features(table).iloc[order]
    return found_wells.assign(**{LIKENESS: likeness[order]}).reset_index(drop=True)


def unexplained_wells(table: pd.DataFrame) -> pd.DataFrame:
    """List wells by how little the classes of the model explain them: clusters of such wells first.

    Parameters
    ----------
    table : DataFrame
        features.parquet, with the columns of the layout. Without negative controls, the wells of the commonest class
        stand for them.

    Returns
    -------
    DataFrame
        The table without its features, and the columns `like nothing known` and `cluster`: the wells of cluster 1
        first, then those of the others and those of none, and of each the most unlike well first.

    Raises
    ------
    ResultsError
        As `principal_components`.
    """
    classes = [str(name).removeprefix(bag_score_column("")) for name in table if is_bag_score(name)]
    top = table[[bag_score_column(name) for name in classes]].to_numpy(float).argmax(1)
    clear = table[[bag_pooled_column(name) for name in classes]].to_numpy(float)[np.arange(len(table)), top]
    negative, positive = ((text_column(table, CONTROL) == kind).to_numpy(bool) for kind in ("negative", "positive"))
    points = principal_components(table)
    points -= np.median(points[negative if negative.any() else top == np.bincount(top).argmax()], 0)
    known = _points_of_controls(table[positive], points[positive])
    rest = _unexplained(points, _ways(points, top, clear, classes, known))
    values = _shared(rest)
    clusters = _clusters(rest, values)
    order = np.lexsort((-values, clusters, clusters == 0))
    listed = _without_features(table).assign(**{UNEXPLAINED: values, CLUSTER: clusters})
    return listed.iloc[order].reset_index(drop=True)


def _without_features(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=feature_names(table))


def _unit_vectors(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _points_of_controls(controls: pd.DataFrame, points: np.ndarray) -> dict[str, np.ndarray]:
    """Return the positive controls (wells, directions) of each label, or of each treatment where they have no label."""
    labels = text_column(controls, "label")
    names = labels.where(labels != "", "treatment " + text_column(controls, "treatment")).to_numpy(str)
    return {str(name): points[names == name] for name in np.unique(names)}


def _ways(
    points: np.ndarray, top: np.ndarray, clear: np.ndarray, classes: Sequence[str], known: Mapping[str, np.ndarray]
) -> np.ndarray:  # fmt: skip
    """Return the ends of the ways from the negative controls to whatever is known, (ways, directions).

    Parameters
    ----------
    points : ndarray
        Features of the wells, less those of the negative controls, (wells, directions).
    top : ndarray
        Number of the class that each well is taken for, (wells,).
    clear : ndarray
        How clearly each well shows that class, (wells,).
    classes : sequence of str
        The classes.
    known : mapping
        Class, or other name -> points of its positive controls, (wells, directions).
    """
    ends = [np.median(own, 0) for own in known.values()]
    units, is_free = _unit_vectors(points), np.ones(len(points), bool)
    for end, own in zip(ends, known.values(), strict=True):
        is_free &= units @ end < np.quantile(_unit_vectors(own) @ end, _LIKE_CONTROLS)
    for number in np.unique(top[is_free]):
        if classes[number] not in known:
            own = np.flatnonzero(is_free & (top == number))
            half = -(-len(own) // 2)
            clearest = own[np.argsort(-clear[own], kind="stable")]
            if _MANY_WELLS <= len(own) < len(top) / 2:  # what half of all wells show has no way of its own
                clearest = clearest[_most_alike(units[clearest], half)]
            ends.append(np.median(points[clearest[:half]], 0))
    return np.array(ends)


def _most_alike(units: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of so many unit vectors (wells, directions) that agree best, by least trimmed squares.

    The search starts at `_STARTS` of the vectors, the first ones included.
    """
    found, best = np.arange(count), -np.inf
    for start in range(0, len(units), -(-len(units) // _STARTS)):
        middle = units[start]
        for _ in range(_SEARCH_STEPS):
            chosen = np.argsort(-(units @ middle), kind="stable")[:count]
            middle = _unit_vectors(units[chosen].sum(0, keepdims=True))[0]
        agreement = float((units[chosen] @ middle).mean())
        if agreement > best:
            found, best = chosen, agreement
    return found


def _unexplained(x: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Return what is left of each well (wells, directions) beside the nearest of some ways, whitened."""
    rest = _beside_ways(x, ways, np.eye(x.shape[1]))
    for _ in range(_FITS):
        size = np.linalg.norm(rest, axis=1)
        usual = size <= np.quantile(size, _USUAL)
        plain = _beside_ways(x, ways, np.eye(x.shape[1]))[usual]
        variances, axes = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(plain).covariance_)
        rest = _beside_ways(x, ways, axes / np.sqrt(np.maximum(variances, 1e-12)))
    return rest


def _beside_ways(x: np.ndarray, ways: np.ndarray, whiten: np.ndarray) -> np.ndarray:
    """Return what is left of wells beside the nearest of some ways, whitened, (wells, directions)."""
    x = x @ whiten
    rest = x.copy()
    for way in ways @ whiten:
        share = np.clip(x @ way / max(float(way @ way), 1e-12), 0, _STRONGEST)
        beside = x - share[:, None] * way
        nearer = np.linalg.norm(beside, axis=1) < np.linalg.norm(rest, axis=1)
        rest[nearer] = beside[nearer]
    return np.asarray(rest)


def _shared(rest: np.ndarray) -> np.ndarray:
    """Return how much of the rest of each well (wells, directions) it shares with others, (wells,).

    Of two wells that is the smaller length times the cosine; the three others that share most count.
    """
    units, size = _unit_vectors(rest), np.linalg.norm(rest, axis=1) / np.sqrt(rest.shape[1])
    values = np.empty(len(rest))
    for start in range(0, len(rest), _WELLS_AT_ONCE):
        block = slice(start, start + _WELLS_AT_ONCE)
        shared = units[block] @ units.T * np.minimum(size[block, None], size)
        shared[np.arange(len(shared)), np.arange(start, start + len(shared))] = -np.inf
        most = min(_NEIGHBOURS, shared.shape[1] - 1)
        values[block] = np.partition(shared, -most, axis=1)[:, -most:].mean(1)
    return np.maximum(values, 0)


def _clusters(rest: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give groups of wells whose large values point in one direction numbers, (wells,), from the largest mean on."""
    from sklearn.cluster import AgglomerativeClustering

    limit = np.median(values) + 3 * 1.4826 * np.median(np.abs(values - np.median(values)))
    chosen = np.flatnonzero(values > limit)
    chosen = chosen[np.argsort(-values[chosen], kind="stable")[:_MOST_CLUSTERED]]
    numbers = np.zeros(len(values), int)
    if len(chosen) < _FEWEST_WELLS:
        return numbers
    grouping = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=1 - _LEAST_COSINE)
    own = grouping.fit_predict(rest[chosen])
    groups = [chosen[own == one] for one in np.unique(own)]
    large = sorted((one for one in groups if len(one) >= _FEWEST_WELLS), key=lambda one: -values[one].mean())
    for number, wells in enumerate(large, start=1):
        numbers[wells] = number
    return numbers


def write_likeness(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Write likeness.csv: the wells that no class explains first, and the place of each on the map of main directions.

    Nothing is written for fewer than three wells.

    Parameters
    ----------
    folder : Path
        The folder of a screen.
    table : DataFrame
        features.parquet.

    Returns
    -------
    DataFrame
        What was written; no row for fewer than three wells.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if len(table) < _FEWEST_WELLS:
        return pd.DataFrame()
    listed = unexplained_wells(table).merge(map_of_wells(table)[[PLATE, WELL, *MAP_COLUMNS]], on=[PLATE, WELL])
    write_table(folder / LIKENESS_TABLE, listed)
    return listed
