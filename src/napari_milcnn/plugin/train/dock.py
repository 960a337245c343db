"""The Train dock: it draws a `TrainSession`, and tells it what the user did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMessageBox, QPushButton, QTabWidget, QWidget

from napari_milcnn.plugin.docks import ClassifyPage, ResultsPage, open_page
from napari_milcnn.plugin.qt.figure import figure_style
from napari_milcnn.plugin.qt.forms import (
    WARNING,
    DeletedWhenClosed,
    JobProgress,
    Note,
    Section,
    connect_while_alive,
    heading,
    page_layout,
    plain_text,
    row,
    scrolled,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import SessionJobs
from napari_milcnn.plugin.qt.question import QuestionBox
from napari_milcnn.plugin.train.jobs import BESIDE, DevicesRequest
from napari_milcnn.plugin.train.label_box import LabelBox
from napari_milcnn.plugin.train.learning_box import LearningBox
from napari_milcnn.plugin.train.outcome_box import OutcomeBox
from napari_milcnn.plugin.train.plan_box import PlanBox
from napari_milcnn.plugin.train.session import TrainSession, TrainState
from napari_milcnn.plugin.user_settings import user_settings

LABEL_TAB, TRAIN_TAB, USE_TAB = range(3)
_START_DELAY = 400
"""Time without a change of labels or choices after which the dock describes the start of a training, in ms."""
_LAST_LABELS = "last_labels"
_LAST_LABELS_WIDTH = 190
"""Room for the name of the folder of the labels that were open last, in px."""


class TrainDock(QWidget):
    """Label images, train on the labels, and hand the model on.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer, self.session = napari_viewer, TrainSession()
        self.jobs = SessionJobs(self.session, self)
        DeletedWhenClosed(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._draw()
        self._on_choices()
        self.session.requested.emit(DevicesRequest())

    def _make_parts(self) -> None:
        self.label_box = LabelBox(self.viewer, self.session.labels)
        self.continue_button = QPushButton()
        self.plan_box, self.learning_box, self.outcome_box = PlanBox(), LearningBox(), OutcomeBox()
        self.device, self.needs, self.estimate = Note(), Note(), Note()
        self.message, self.stopped = Note(), Note()
        self.question = QuestionBox()
        self.estimate_button, self.validate_button = QPushButton("Estimate"), QPushButton("Cross-validate")
        self.estimate_button.setToolTip("Run a few batches to estimate the time and the memory of a training")
        self.validate_button.setToolTip(
            "Train once for each fold and test on its groups, which are left out of that training"
        )
        self.start_button, self.resume_button = QPushButton("Start"), QPushButton("Resume")
        self.pause_button, self.stop_button = QPushButton("Pause"), QPushButton("Stop")
        self.start_button.setToolTip("Train a network on the labels, as the settings say")
        self.resume_button.setToolTip("Go on with the training that was stopped, with its own settings")
        self.pause_button.setToolTip("Wait between two batches, or go on")
        self.stop_button.setToolTip("Stop the training: the epoch under way is lost, the finished epochs are saved")
        self.progress = JobProgress("Progress of the training")

    def _lay_out(self) -> None:
        self.tabs = QTabWidget()
        self.tabs.addTab(self.label_box, "1  Label")
        self.tabs.addTab(self._train_page(), "2  Train")
        outcome_page = QWidget()
        page = page_layout(outcome_page)
        page.addWidget(self.outcome_box)
        page.addStretch()
        self.tabs.addTab(scrolled(outcome_page), "3  Use")
        outer = vertical_layout(self)
        outer.setContentsMargins(0, 6, 0, 0)  # the tabs touch the title of the dock otherwise
        outer.addWidget(self.continue_button)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(310)

    def _train_page(self) -> QWidget:
        """Lay out the second tab: settings and curves scroll; what starts and stops a training is always in sight."""
        settings, content, page, footer = QWidget(), QWidget(), QWidget(), QWidget()
        inside = vertical_layout(settings)
        inside.addWidget(self.plan_box)
        inside.addWidget(heading("Before you start"))
        inside.addWidget(self.device)
        inside.addLayout(row(self.estimate_button, self.validate_button))
        inside.addLayout(row("folds", self.plan_box.folds, stretch=1))
        inside.addWidget(self.estimate)
        self.settings = Section("Settings", settings)
        self._content = page_layout(content)
        self._content.addWidget(self.settings)
        self._content.addWidget(self.learning_box)
        self._content.addStretch()
        below = page_layout(footer)
        for part in (self.needs, self.question, self.progress, self.message, self.stopped):
            below.addWidget(part)
        below.addLayout(row(self.start_button, self.resume_button, self.pause_button, self.stop_button))
        layout = vertical_layout(page, 0)
        layout.addWidget(scrolled(content), 1)
        layout.addWidget(footer)
        return page

    def _connect(self) -> None:
        self._start_timer = QTimer(self)
        self._start_timer.setSingleShot(True)
        self._start_timer.setInterval(_START_DELAY)
        session, results, outcome = self.session, self.session.results, self.outcome_box
        self._start_timer.timeout.connect(session.describe_start)
        for signal, slot in (
            (session.changed, self._draw), (session.progressed, self._show_progress),
            (session.learned, self._draw_learning), (session.choices_changed, self._on_choices),
            (self.jobs.ended, self._on_job_end), (session.ended, lambda: self.tabs.setCurrentIndex(USE_TAB)),
            (results.changed, self._draw_results), (results.used, self._on_used),
            (session.labels.opened, self._on_labels_opened), (session.labels.labels_changed, self._on_labels),
            (self.plan_box.changed, self._on_plan), (self.continue_button.clicked, self._on_continue),
            (self.estimate_button.clicked, session.try_batches), (self.start_button.clicked, session.start),
            (self.resume_button.clicked, session.resume), (self.pause_button.clicked, session.pause),
            (self.stop_button.clicked, self.stop), (self.question.answered, session.answer),
            (outcome.chosen, results.show), (outcome.use_requested, results.use),
            (outcome.save_requested, self._on_save), (outcome.results_requested, self._on_results),
            (outcome.faithfulness.measure_requested, session.measure_faithfulness),
            (outcome.faithfulness.stop_requested, self.stop),
        ):  # fmt: skip
            signal.connect(slot)
        self.validate_button.clicked.connect(lambda: session.cross_validate(self.plan_box.folds.value()))
        connect_while_alive(self.viewer.events.theme, self._on_theme, self)
        self._offer_last()

    # What there is

    @property
    def busy(self) -> bool:
        """Whether a long job runs: a training, an estimate or a cross-validation."""
        return self.session.busy or any(not isinstance(one, BESIDE) for one in self.jobs.requests)

    @property
    def waits(self) -> bool:
        """Whether the dock still works on what it shows: the start of a training, devices or figures."""
        figures = (self.learning_box.confusion, self.outcome_box.confusion, self.outcome_box.calibration)
        beside = any(isinstance(one, BESIDE) for one in self.jobs.requests)
        return self._start_timer.isActive() or beside or any(figure.busy for figure in figures)

    def open_labels(self, table: Path) -> None:
        """Open a table of labels in the first tab."""
        self.tabs.setCurrentIndex(LABEL_TAB)
        self.label_box.open([table])

    def stop(self) -> None:
        """Stop the job that runs; finished epochs are saved."""
        self.session.stop()

    # Drawing

    def _draw(self) -> None:
        """Draw the session, and enable the controls that can be used now."""
        session, busy = self.session, self.session.busy
        ready = not session.needs and not busy
        self.needs.say("" if busy else session.needs)
        self.device.say(session.device)
        self.estimate.say(session.estimate)
        self.learning_box.warning.say("\n".join(session.warnings), WARNING)
        self.stopped.say(session.can_resume, WARNING)
        self.question.ask(session.question)
        self.message.show_notice(session.message)
        self.plan_box.kept.show_notice(session.kept)
        for button in (self.start_button, self.estimate_button, self.validate_button):
            button.setEnabled(ready)
        self.start_button.setVisible(not busy)
        self.resume_button.setVisible(bool(session.can_resume))
        self.pause_button.setVisible(session.can_pause)
        self.pause_button.setText("Continue" if session.paused else "Pause")
        self.stop_button.setVisible(busy)
        self.progress.setVisible(busy)
        self.plan_box.setEnabled(not busy)
        self.tabs.setTabEnabled(USE_TAB, session.results.shown is not None)
        self.outcome_box.faithfulness.show_measuring(session.state is TrainState.MEASURING)
        self._show_plan_path()
        self._fold(session.state in (TrainState.TRAINING, TrainState.CROSS_VALIDATING))

    def _fold(self, learning: bool) -> None:
        """While networks learn, fold the settings and put what is learning first."""
        first = self._content.indexOf(self.learning_box) == 0
        if learning != first:
            self._content.insertWidget(0 if learning else 1, self.learning_box)
            self.settings.fold(is_open=not learning)

    def _show_plan_path(self) -> None:
        plan = None if self.session.busy or self.plan_box.out.text() else self.session.plan()
        if plan is not None:
            self.plan_box.out.setPlaceholderText(plan.out.name)

    def _draw_learning(self) -> None:
        self.learning_box.show_learning(self.session.learning, figure_style(self.viewer))

    def _draw_results(self) -> None:
        results = self.session.results
        self.outcome_box.message.show_notice(results.message)
        self.outcome_box.show_result(results.shown, results.all, figure_style(self.viewer))
        self.tabs.setTabEnabled(USE_TAB, results.shown is not None)

    def _show_progress(self, share: float, text: str) -> None:
        self.progress.say(share, "paused" if self.session.paused else text)
        self.outcome_box.faithfulness.progress.say(share, text)

    # What the session says

    def _on_job_end(self, request: object) -> None:
        if not isinstance(request, BESIDE):
            self._start_timer.start()

    def _on_choices(self) -> None:
        """Show the choices of the session in the form, and take what the form adds to them."""
        self.plan_box.show_choices(self.session.choices)
        self._on_plan()
        if self.session.stopped is not None:
            self.tabs.setCurrentIndex(TRAIN_TAB)

    def _on_plan(self) -> None:
        self.session.choose(self.plan_box.choices())
        self._start_timer.start()

    def _on_labels_opened(self) -> None:
        labelling = self.session.labels.labelling
        self.continue_button.hide()
        if labelling is not None:
            user_settings().setValue(_LAST_LABELS, str(labelling.path))

    def _on_labels(self) -> None:
        labelling = self.session.labels.labelling
        self.plan_box.show_classes([each.name for each in labelling.classes] if labelling is not None else [])
        self._start_timer.start()

    def _offer_last(self) -> None:
        """Offer to continue with the labels that were open last."""
        last = str(user_settings().value(_LAST_LABELS) or "")
        there = bool(last) and Path(last).parent.is_dir()
        metrics, name = self.continue_button.fontMetrics(), Path(last).parent.name
        name = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, _LAST_LABELS_WIDTH)
        self.continue_button.setText(f"Continue with {name}")
        self.continue_button.setToolTip(plain_text(f"Open the labels that were open last: {last}"))
        self.continue_button.setVisible(there)

    def _on_continue(self) -> None:
        last = Path(str(user_settings().value(_LAST_LABELS)))
        self.label_box.open([last if last.exists() else last.parent])

    # Using the model

    def _on_save(self) -> None:
        self.session.results.save_card(self.outcome_box.facts())

    def _on_used(self) -> None:
        open_page(self.viewer, ClassifyPage)

    def _on_results(self) -> None:
        """Show the report in the Results dock."""
        shown = self.session.results.shown
        if shown is not None and shown.report is not None:
            report = shown.report
            open_page(self.viewer, ResultsPage).when_open(lambda dock: dock.show_report(report))

    def _on_theme(self, _event: Any = None) -> None:
        self._draw_learning()
        self._draw_results()

    # Closing

    def showEvent(self, event: Any) -> None:
        """Watch the close button of the dock in which napari shows this widget."""
        super().showEvent(event)
        parent = self.parent()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parent()
        button = parent.findChild(QPushButton, "QTitleBarCloseButton") if parent is not None else None
        if button is not None:
            button.removeEventFilter(self)
            button.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Ask before the dock is closed during a training, or with labels that could not be written."""
        if event.type() == QEvent.Type.MouseButtonRelease and not self._is_to_close():
            watched.setDown(False)
            return True
        return bool(super().eventFilter(watched, event))

    def _is_to_close(self) -> bool:
        question = self.session.question_before_closing
        if question and QMessageBox.question(self, "Close the Train dock?", question) != QMessageBox.StandardButton.Yes:
            return False
        self.stop()
        return True
