"""One row a well: medians and means over fields, planes first; what failed is counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_milcnn.screens.wells import well_table

NAN = float("nan")


def fields(*rows: dict[str, object]) -> pd.DataFrame:
    usual = {"plate": "P", "well": "A01", "site": "1", "file": "a", "error": "", "score x": 0.5, "P x": 0.5}
    return pd.DataFrame([{**usual, **row} for row in rows])


def test_median_and_mean_over_fields_of_means_over_planes():
    """The field of two planes counts once: .1, .2 and (.8 + 1) / 2."""
    table = well_table(fields(
        {"file": "a", "score x": 0.1}, {"file": "b", "score x": 0.2},
        {"file": "c", "score x": 0.8}, {"file": "c", "score x": 1.0},
    ))  # fmt: skip
    row = table.iloc[0]
    assert (row["score x"], row["fields"], row["failed fields"]) == (0.2, 3, 0)
    assert row["mean score x"] == pytest.approx(0.4)
    assert row["top"] == "x"


def test_failed_fields_are_counted_and_a_well_of_failures_stays():
    table = well_table(fields(
        {"file": "a", "score x": 0.4}, {"file": "b", "score x": NAN, "error": "damaged"},
        {"well": "A02", "file": "c", "score x": NAN, "error": "damaged"},
        {"well": "A02", "file": "d", "score x": NAN, "error": "damaged"},
    ))  # fmt: skip
    assert list(table["well"]) == ["A01", "A02"]
    assert list(table["fields"]) == [2, 2]
    assert list(table["failed fields"]) == [1, 2]
    assert table["score x"].iloc[0] == 0.4
    assert np.isnan(table["score x"].iloc[1])
    assert list(table["top"]) == ["x", ""]


def test_a_well_of_empty_fields_has_no_top_class_and_one_that_shows_something_has_one():
    """The network gives a field that shows nothing a score, too."""
    table = well_table(fields(
        {"file": "a", "top": ""}, {"file": "b", "top": "", "score x": NAN, "error": "damaged"},
        {"well": "A02", "file": "c", "top": ""}, {"well": "A02", "file": "c", "top": "x"},
    ))  # fmt: skip
    assert list(table["empty fields"]) == [1, 0]
    assert list(table["top"]) == ["", "x"]


def test_share_is_that_of_all_cells_of_the_well():
    """One of 10 and 9 of 90 cells are 10 of 100; a well without a count has none."""
    table = well_table(fields(
        {"file": "a", "cells": 10.0, "cells x": 1.0, "share x": 0.1},
        {"file": "b", "cells": 30.0, "cells x": 15.0, "share x": 0.5},
        {"well": "A02", "file": "c", "cells": NAN, "cells x": NAN, "share x": NAN},
    ))  # fmt: skip
    assert list(table["cells"].fillna(-1)) == [40, -1]
    assert table["share x"].iloc[0] == 0.4
    assert np.isnan(table["share x"].iloc[1])


def test_a_class_that_was_not_looked_for_is_said_and_one_of_which_none_was_found_is_0():
    """A share is that in the cells of fields in which the class was looked for; a well that failed says neither."""
    table = well_table(fields(
        {"file": "a", "cells": 10.0, "cells x": 4.0, "cells y": NAN},
        {"file": "b", "cells": 30.0, "cells x": NAN, "cells y": NAN},
        {"well": "A02", "file": "c", "cells": 8.0, "cells x": 0.0, "cells y": 0.0},
        {"well": "A03", "file": "d", "cells": 0.0, "cells x": 0.0, "cells y": 0.0},
        {"well": "A04", "file": "e", "cells": NAN, "cells x": NAN, "cells y": NAN, "error": "damaged"},
    ))  # fmt: skip
    assert list(table["not looked for"]) == ["x (1 of 2 fields), y (2 of 2 fields)", "", "", ""]
    assert list(table["cells x"].fillna(-1)) == [4, 0, 0, -1]
    assert list(table["cells y"].fillna(-1)) == [-1, 0, 0, -1]
    assert list(table["share x"].fillna(-1)) == [0.4, 0, -1, -1]
    assert list(table["share y"].fillna(-1)) == [-1, 0, -1, -1]
    assert list(table["failed fields"]) == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["cells", "well", "plate"])
def test_a_class_may_have_the_name_of_a_column(name):
    table = well_table(fields(
        {"file": "a", "cells": 10.0, f"cells {name}": 4.0}, {"file": "b", "cells": 30.0, f"cells {name}": NAN},
    ))  # fmt: skip
    assert list(table["not looked for"]) == [f"{name} (1 of 2 fields)"]
    assert list(table[f"share {name}"]) == [0.4]


def test_one_unlike_field_of_three_is_counted_and_does_not_make_the_well_unlike():
    table = well_table(fields(
        {"file": "a", "unlike": 0.5, "unlike reason": ""}, {"file": "b", "unlike": 7.0, "unlike reason": "blurred"},
        {"file": "c", "unlike": 0.6, "unlike reason": ""},
    ))  # fmt: skip
    assert list(table[["unlike", "unlike fields", "unlike reason"]].iloc[0]) == [0.6, 1, "blurred"]


def test_layout_is_kept_and_wells_of_two_plates_are_apart():
    table = well_table(
        fields(
            {"dose": 1.0, "control": "negative", "batch": "7"}, {"plate": "Q", "dose": NAN, "control": "", "batch": "8"}
        ),
        ["plate", "well", "dose", "control", "batch", "not there"],
    )
    assert list(table["plate"]) == ["P", "Q"]
    assert list(table["control"]) == ["negative", ""]
    assert list(table["batch"]) == ["7", "8"]
    assert list(table["dose"].fillna(-1)) == [1, -1]


def test_sites_stand_for_fields_where_no_file_is_known():
    table = fields({"site": "1", "score x": 0.2}, {"site": "2", "score x": 0.6}).drop(columns="file")
    assert well_table(table)["fields"].iloc[0] == 2


def test_a_series_of_one_file_is_a_field_of_its_own():
    table = well_table(fields({"site": "1", "score x": 0.2}, {"site": "2", "score x": 0.6}))
    assert table["fields"].iloc[0] == 2
