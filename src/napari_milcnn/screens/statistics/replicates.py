"""Whether wells of one treatment look alike, more than they look like negative controls.

Mean average precision (Kalinin et al. 2025, Nat Commun 16:5181, as in their program copairs): each well of a treatment
asks for the others of its treatment; these and the negative controls are ranked by the cosine similarity of their
profiles; the average precision of the ranks says whether replicates come first. The p-value compares the mean over the
wells of a treatment with random ranks, and is adjusted to the false-discovery rate over treatments.

copairs itself is not used: it installs duckdb and statsmodels, and what is needed are the few lines below.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_milcnn.screens.statistics.hits import adjusted

FEWEST_FEATURES = 3
"""Features of a profile from which similarities mean something."""
TREATMENT_KEY, REPLICATES, AGREEMENT, MAP, MAP_P, MAP_Q = (
    "key", "replicates", "replicate correlation", "mAP", "mAP p value", "mAP q value"
)  # fmt: skip
_NULL = 2000
"""Random rankings to which a mean average precision is compared."""


def average_precision(is_match: np.ndarray) -> np.ndarray:
    """Return the average precision of ranked lists.

    Parameters
    ----------
    is_match : ndarray
        Whether the item at each rank is what was asked for, bool (lists, ranks), the most similar first.
    """
    ranks = np.arange(1, is_match.shape[-1] + 1)
    precision = np.cumsum(is_match, axis=-1) / ranks
    found: np.ndarray = (precision * is_match).sum(-1) / is_match.sum(-1)
    return found


def replicate_table(profiles: np.ndarray, keys: np.ndarray, is_control: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """Measure how alike the wells of each treatment are.

    Parameters
    ----------
    profiles : ndarray
        Profile of each well, standardised by the negative controls, float (wells, features). Wells with NaN are left
        out.
    keys : ndarray
        What stands for the treatment of each well, text (wells,); empty for wells that are not tested.
    is_control : ndarray
        Whether each well is a negative control, bool (wells,).
    seed : int
        Random seed of the random ranks.

    Returns
    -------
    DataFrame
        One row per treatment with two wells or more: key, replicates, replicate correlation (mean of the Pearson
        correlations of all pairs of profiles), mAP, mAP p value, mAP q value. Without negative controls the last three
        are gaps. Empty with fewer than three features.
    """
    columns = [TREATMENT_KEY, REPLICATES, AGREEMENT, MAP, MAP_P, MAP_Q]
    usable = np.isfinite(profiles).all(1) & (np.linalg.norm(profiles, axis=1) > 0)
    if profiles.shape[1] < FEWEST_FEATURES:
        return pd.DataFrame(columns=columns)
    unit = profiles[usable] / np.linalg.norm(profiles[usable], axis=1, keepdims=True)
    controls = unit[is_control[usable]]
    rng = np.random.default_rng(seed)
    null: dict[tuple[int, int], np.ndarray] = {}
    rows = []
    for key, wells in pd.Series(keys[usable]).groupby(keys[usable]).indices.items():
        if key and len(wells) > 1:
            own = unit[wells]
            rows.append([key, len(own), _agreement(profiles[usable][wells]), *_precision(own, controls, null, rng)])
    found = pd.DataFrame(rows, columns=columns[:-1])
    p = found[MAP_P].to_numpy(float)
    q, known = np.full(len(p), np.nan), np.isfinite(p)
    q[known] = adjusted(p[known])
    found[MAP_Q] = q
    return found


def _agreement(own: np.ndarray) -> float:
    """Return the mean Pearson correlation of all pairs of profiles (wells, features)."""
    if (own.std(1) == 0).any():
        return float("nan")
    pairs = np.corrcoef(own)[np.triu_indices(len(own), 1)]
    return float(pairs.mean())


def _precision(
    own: np.ndarray, controls: np.ndarray, null: dict[tuple[int, int], np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """Return mAP of a treatment and its p-value; `null` keeps the random rankings of each size."""
    if not len(controls):
        return float("nan"), float("nan")
    found = []
    for i, query in enumerate(own):
        others = np.delete(own, i, axis=0) @ query
        similarity = np.concatenate([controls @ query, others])  # ties: controls first, which flatters nobody
        is_match = np.arange(len(similarity)) >= len(controls)
        found.append(is_match[np.argsort(-similarity, kind="stable")])
    size = len(own) - 1, len(controls)
    if size not in null:
        null[size] = average_precision(rng.permuted(np.tile(np.arange(sum(size)) < size[0], (_NULL, 1)), axis=1))
    mean = float(average_precision(np.array(found)).mean())
    random = rng.choice(null[size], (_NULL, len(own))).mean(1)
    return mean, float((1 + (random >= mean).sum()) / (1 + _NULL))
