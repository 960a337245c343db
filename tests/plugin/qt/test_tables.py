"""Tables of the docks: the keys go through their rows, select them and scroll."""

from __future__ import annotations

import pandas as pd
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt

from napari_milcnn.plugin.qt.tables import FrameModel, SortedTable


def test_keys_select_rows_and_scroll_to_them(qtbot):
    table = SortedTable(FrameModel(None))
    qtbot.addWidget(table)
    table.proxy.sourceModel().show_frame(pd.DataFrame({"plane": range(100)}), {})
    table.resize(200, 150)
    table.show()
    table.selectRow(0)
    for key, least, most in ((Qt.Key.Key_Down, 1, 1), (Qt.Key.Key_PageDown, 3, 30), (Qt.Key.Key_PageUp, 1, 1)):
        qtbot.keyClick(table, key)
        (chosen,) = table.selectionModel().selectedRows()
        assert least <= chosen.row() <= most
        assert table.viewport().rect().contains(table.visualRect(chosen))
