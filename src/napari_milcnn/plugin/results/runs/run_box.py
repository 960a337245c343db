"""What the forms that start a long run share: fields for paths and for opening images, the model, start and stop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QFormLayout, QLineEdit, QPushButton, QSpinBox, QWidget

from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.options import DETAILS, DEVICES, EVIDENCE_NAMES, ZReading
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    JobProgress,
    LatePart,
    NarrowComboBox,
    Note,
    NoticesBox,
    Section,
    browse_button,
    connect_while_alive,
    plain_text,
    row,
    tab_through,
    vertical_layout,
)
from napari_milcnn.plugin.results.runs.run_session import RunChoices, RunSession
from napari_milcnn.plugin.user_settings import recent_models, remember_model

COMPUTE_FIELDS = ("device", "precision", "engine", "batch_size", "tile", "match_pixel_size", "relative_size")
EVIDENCE_FIELDS = ("kind", "detail", "rule")
_DEFAULT = "default"
OPTION_CHOICES: dict[str, list[Any]] = {
    "device": list(DEVICES),
    "split": [("all images", None), *((f"only {name}", name) for name in ("train", "validation", "test"))],
    "kind": [(_DEFAULT, None), *((text, name) for name, text in EVIDENCE_NAMES.items())],
    "detail": [(_DEFAULT, None), *((str(one), one) for one in DETAILS)],
}


class PathField(QWidget):
    """A line for a path, with a button that opens a dialog; a path can be dropped on it.

    Signals
    -------
    changed
        Another path was entered.
    """

    changed = Signal()

    def __init__(self, name: str, tooltip: str, *, folder: bool = False, saved: str = "", kinds: str = "") -> None:
        super().__init__()
        self._name, self._folder, self._saved, self._kinds, self._suggested = name, folder, saved, kinds, ""
        self.line, self.button = _PathLine(), browse_button(f"Choose: {name}")
        self.line.setAccessibleName(name)
        self.line.setToolTip(tooltip)
        self.button.setToolTip(tooltip)
        layout = vertical_layout(self)
        layout.addLayout(row(self.line, self.button, stretch=0))
        self.line.textChanged.connect(self.changed)
        self.button.clicked.connect(self._on_browse)

    def path(self) -> Path | None:
        """Return the path; None for an empty line."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def suggest(self, path: Path | None) -> None:
        """Show what is taken where the line is empty."""
        self._suggested = "" if path is None else str(path)
        self.line.setPlaceholderText("" if path is None else f"{path.name} (new)")

    def _on_browse(self) -> None:
        start = self.line.text() or self._suggested
        if self._folder:
            found = QFileDialog.getExistingDirectory(self, self._name, start)
        elif self._saved:
            found, _ = QFileDialog.getSaveFileName(self, self._name, start, self._saved)
        else:
            found, _ = QFileDialog.getOpenFileName(self, self._name, start, self._kinds)
        if found:
            self.line.setText(found)


class _PathLine(QLineEdit):
    """A line that takes the path of what is dropped on it."""

    def dropEvent(self, event: Any) -> None:
        """Take the path of a dropped file or folder."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.setText(paths[0])
        else:
            super().dropEvent(event)


class ReadingForm(QWidget):
    """How images are opened that do not say it themselves: the fields of `ImageReading`.

    Parameters
    ----------
    has_plates : bool
        Whether a table of plates can be chosen.

    Signals
    -------
    changed
        Another value was entered.
    """

    changed = Signal()

    def __init__(self, *, has_plates: bool) -> None:
        super().__init__()
        self.axes, self.channels, self.z = QLineEdit(), QLineEdit(), NarrowComboBox()
        self.pixel_size, self.series = QDoubleSpinBox(), QSpinBox()
        self.pixel_size.setDecimals(4)
        self.pixel_size.setRange(0, 1000)
        self.series.setRange(-1, 9999)
        self.series.setValue(-1)
        self.z.addItem("each plane", "planes")
        self.z.addItem("maximum projection", "maximum")
        assert {self.z.itemData(i) for i in range(self.z.count())} == set(get_args(ZReading))
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, widget, tip in (
            ("axes", self.axes, "Axes of files that do not say them, such as TCYX"),
            ("channels", self.channels, "Channel names in the order of the files, such as GFP,RFP"),
            ("pixel size (µm)", self.pixel_size, "Pixel size of files that do not say it"),
            ("series", self.series, "Number of the series to open, from 0, in files that hold several"),
            ("Z stacks", self.z, "Use each plane of a Z stack, or its maximum projection"),
        ):
            widget.setToolTip(tip)
            widget.setAccessibleName(name)
            layout.addRow(name, widget)
        for box in (self.pixel_size, self.series):
            box.setSpecialValueText("as the files say")
            box.valueChanged.connect(self.changed)
        for line in (self.axes, self.channels):
            line.setPlaceholderText("as the files say")
            line.textChanged.connect(self.changed)
        self.z.currentIndexChanged.connect(self.changed)
        self.plates: PathField | None = None
        if has_plates:
            self.plates = PathField("Table of plates", "For models that scale intensities by plate: a table with the "
                                    "columns file, plate and control", kinds="Tables (*.csv)")  # fmt: skip
            layout.addRow("plates", self.plates)
            self.plates.changed.connect(self.changed)

    def values(self) -> dict[str, Any]:
        """Return the fields that were entered."""
        channels = tuple(name.strip() for name in self.channels.text().split(","))
        found = {
            "axes": self.axes.text().strip(), "channels": channels if any(channels) else None,
            "pixel_size": self.pixel_size.value(), "series": None if self.series.value() < 0 else self.series.value(),
            "z": self.z.currentData(), "plates": self.plates and self.plates.path(),
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None and value != "" and value != 0.0}


Session = TypeVar("Session", bound=RunSession[Any])


class RunBox(LatePart, Generic[Session]):
    """Draws a session that starts a long run, and tells it what the user chose.

    A subclass makes its fields and lays them into `lines`, beside those that all such forms have. They are made when
    the user unfolds the form for the first time.

    Parameters
    ----------
    session : RunSession
        What is drawn.
    title, model_name, model_help : str
        Title of the section; accessible name and tooltip of the list of models.
    """

    has_plates = True
    """Whether a table says which plates the images are on."""

    def __init__(self, session: Session, title: str, model_name: str, model_help: str) -> None:
        super().__init__()
        self.session = session
        self._about_model = model_name, model_help
        self.inside = QWidget()
        self.lines = vertical_layout(self.inside)
        self.section = Section(title, self.inside, is_open=False)
        self._below = vertical_layout(self)
        self._below.addWidget(self.section)
        self.section.button.toggled.connect(self.make)

    def _make(self) -> None:
        model_name, model_help = self._about_model
        self.model = NarrowComboBox()
        self.model.setAccessibleName(model_name)
        self.model.setToolTip(model_help)
        self.model_button = browse_button(f"Open the file of: {model_name}")
        self.model_button.setToolTip("Open a model .zip")
        self.reading = ReadingForm(has_plates=self.has_plates)
        self.problem, self.doing, self.message = Note(), Note(), NoticesBox()
        self.start_button, self.stop_button, self.last_button = QPushButton(), QPushButton(), QPushButton()
        self.progress = JobProgress()
        self._make_parts()
        self._lay_out()
        for part in (self.progress, self.doing, self.stop_button, self.message, self.last_button):
            self._below.addWidget(part)
        self.section.make_parts()
        self._connect()
        self._fill_models()
        self.session.use(current.model)
        self._on_choice()
        tab_through(self.section.button, self)

    @abstractmethod
    def _make_parts(self) -> None:
        """Make the fields of this form."""

    @abstractmethod
    def _lay_out(self) -> None:
        """Lay the fields into `lines`."""

    @abstractmethod
    def _fields(self) -> Iterable[Any]:
        """Return the signals of all fields."""

    @abstractmethod
    def choices(self) -> RunChoices:
        """Return what the form says."""

    @abstractmethod
    def _draw(self) -> None:
        """Draw what only this form has; the session may run."""

    @abstractmethod
    def _on_last(self) -> None:
        """Do what the button below a run that ended is for."""

    def _connect(self) -> None:
        for changed in (*self._fields(), self.reading.changed, self.model.activated):
            changed.connect(self._on_choice)
        self.model_button.clicked.connect(self._on_open_model)
        self.start_button.clicked.connect(self.session.start)
        self.stop_button.clicked.connect(self.session.stop)
        self.last_button.clicked.connect(self._on_last)
        self.session.changed.connect(self._on_change)
        connect_while_alive(current.changed, self._on_current, self)

    def _fill_models(self) -> None:
        """List the current, the shipped and the recent models."""
        self.model.clear()
        name = "none is loaded" if current.model is None else current.model.card.name
        self.model.addItem(f"current model ({name})", None)
        for title, path in {**shipped_models(), **{path.stem: path for path in recent_models()}}.items():
            self.model.addItem(title, path)

    def _on_choice(self, *_value: Any) -> None:
        self.session.choose(self.choices())
        self._on_change()

    def _on_current(self, model: Any) -> None:
        chosen = self.model.currentData()
        self._fill_models()
        self.model.setCurrentIndex(max(0, self.model.findData(chosen)) if chosen is not None else 0)
        self.session.use(model)

    def _on_open_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.zip rdf.yaml)")
        if path:
            self.add_model(Path(path))

    def add_model(self, path: Path) -> None:
        """Offer a model file, and choose it."""
        remember_model(path)
        self.model.addItem(path.stem, path)
        self.model.setCurrentIndex(self.model.count() - 1)
        self._on_choice()

    def _on_change(self) -> None:
        session, runs = self.session, self.session.is_busy
        self._draw()
        problem = "" if runs else session.problem  # which looks at files
        self.start_button.setEnabled(not runs and not problem)
        self.start_button.setToolTip(plain_text(problem) or "Start; the window stays free meanwhile")
        self.problem.say(problem)
        self.inside.setEnabled(not runs)
        self.progress.setVisible(runs)
        self.progress.show_share(session.share, session.seconds_left)
        self.doing.say(session.doing)
        self.stop_button.setVisible(runs)
        self.stop_button.setEnabled(not session.is_stopping)
        self.message.show_notices(session.notices)
