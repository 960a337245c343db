"""The strip below the views of the Results dock: which wells are at hand, and what can be done with them."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.plugin.qt.forms import Note, row, vertical_layout
from napari_milcnn.plugin.results.wells.likeness_session import LikenessSession
from napari_milcnn.plugin.results.wells.wells_session import wells_in_words


class ChosenWellsBox(QWidget):
    """Shows the wells at hand; hidden where there are none."""

    def __init__(self, session: LikenessSession) -> None:
        super().__init__()
        self.session = session
        self.name, self.like_button = Note(), QPushButton("Wells like this one")
        self.like_button.setToolTip("List the wells whose features are most like those of this well, in the view Wells")
        layout = vertical_layout(self)
        layout.addLayout(row(self.name, self.like_button, stretch=0))
        self.like_button.clicked.connect(session.list_like)
        session.wells.at_hand_changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        wells = self.session.wells.at_hand
        self.setVisible(bool(wells))
        self.name.say(wells_in_words(wells) if wells else "")
        self.like_button.setVisible(self.session.can_list)
        self.like_button.setEnabled(len(wells) == 1)
