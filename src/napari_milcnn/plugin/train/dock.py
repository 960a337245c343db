"""The Train dock: label images, train a network on the labels, and use the model."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import (
    QDockWidget,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QTabWidget,
    QWidget,
)

from napari_milcnn.errors import MilcnnError
from napari_milcnn.figures.plots import FigureStyle, confusion_figure
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.figure import FigureBox, figure_style
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    WARNING,
    DeletedWhenClosed,
    Note,
    connect_while_alive,
    heading,
    page_layout,
    plain_text,
    row,
    scrolled,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import Ending, Gate, Job
from napari_milcnn.plugin.train.curves_box import CurvesBox
from napari_milcnn.plugin.train.label_box import LabelBox
from napari_milcnn.plugin.train.outcome_box import OutcomeBox
from napari_milcnn.plugin.train.plan_box import PlanBox
from napari_milcnn.plugin.train.preview_box import PreviewBox
from napari_milcnn.plugin.train.training import (
    Begun,
    Devices,
    Epoch,
    Looks,
    Measured,
    Outcome,
    Share,
    cross_validation,
    devices,
    estimated,
    faithfulness_of,
    following,
    kept,
    outcome,
    training,
)
from napari_milcnn.plugin.user_settings import user_settings
from napari_milcnn.progress import duration

if TYPE_CHECKING:
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.training.plan import TrainingPlan
    from napari_milcnn.training.record import RunRecord
    from napari_milcnn.training.trainer import TrainingEstimate

LABEL_TAB, TRAIN_TAB, USE_TAB = range(3)
_START_DELAY = 400
"""Time without a change of labels after which the dock describes what a training would start from, in ms."""
_LAST_LABELS = "last_labels"


class TrainDock(QWidget):
    """Label images, train on the labels, and hand the model on.

    Parameters
    ----------
    napari_viewer : Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.model: TrainedModel | None = None
        self.report: EvaluationReport | None = None
        self.stopped: RunRecord | None = None
        self._job: Job | None = None
        self._gate = Gate()
        self._start_job: Job | None = None
        self._devices_job: Job | None = None
        self._plan: TrainingPlan | None = None
        self._before: tuple[Any, ...] = (None, None, None)
        self._labels_path: Path | None = None
        self._pauses = False
        self._epochs = (0, 1)
        self._since: tuple[float, float] | None = None
        self._gpus = 0
        self._confused: tuple[Any, FigureStyle] | None = None
        DeletedWhenClosed(self)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._refresh()
        self._devices_job = Job(devices, self, self._on_devices, self._on_devices_end)

    def _make_parts(self) -> None:
        self.label_box = LabelBox(self.viewer)
        self.continue_button = QPushButton()
        self.plan_box = PlanBox()
        self.device = Note()
        self.needs = Note()
        self.estimate_button, self.estimate = QPushButton("Estimate"), Note()
        self.estimate_button.setToolTip("Run a few batches to estimate the time and the memory of a training")
        self.start_button, self.resume_button = QPushButton("Start"), QPushButton("Resume")
        self.pause_button, self.stop_button = QPushButton("Pause"), QPushButton("Stop")
        self.stop_button.setToolTip("Stop the training: the epoch under way is lost, the finished epochs are saved")
        self.validate_button = QPushButton("Cross-validate")
        self.validate_button.setToolTip(
            "Train once for each fold and test on its groups, which are left out of that training"
        )
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.hide()
        self.message, self.warning = Note(), Note()
        self.curves = CurvesBox()
        self.previews = PreviewBox()
        self.confusion_title = heading("Confusion matrix of the best epoch")
        self.confusion = FigureBox("Confusion matrix of the best epoch", 290)
        self.outcome_box = OutcomeBox()

    def _lay_out(self) -> None:
        learn = QWidget()
        layout = page_layout(learn)
        layout.addWidget(self.plan_box)
        layout.addWidget(self.device)
        layout.addWidget(self.estimate_button)
        layout.addWidget(self.estimate)
        layout.addWidget(self.needs)
        layout.addLayout(row(self.start_button, self.resume_button))
        layout.addLayout(row(self.pause_button, self.stop_button))
        layout.addLayout(row(self.validate_button, self.plan_box.folds, "folds", stretch=0))
        layout.addWidget(self.progress)
        for part in (self.message, self.warning, self.curves, self.previews, self.confusion_title, self.confusion):
            layout.addWidget(part)
        layout.addStretch()
        self.confusion_title.hide()
        outcome_page = QWidget()
        page = page_layout(outcome_page)
        page.addWidget(self.outcome_box)
        page.addStretch()
        self.tabs = QTabWidget()
        self.tabs.addTab(self.label_box, "1  Label")
        self.tabs.addTab(scrolled(learn), "2  Train")
        self.tabs.addTab(scrolled(outcome_page), "3  Use")
        self.tabs.setTabEnabled(USE_TAB, False)
        outer = vertical_layout(self)
        outer.addWidget(self.continue_button)
        outer.addWidget(self.tabs)
        self.setMinimumWidth(310)

    def _connect(self) -> None:
        self._start_timer = QTimer(self)
        self._start_timer.setSingleShot(True)
        self._start_timer.setInterval(_START_DELAY)
        self._start_timer.timeout.connect(self._show_start)
        self.label_box.changed.connect(self._on_labels)
        self.plan_box.changed.connect(self._start_timer.start)
        self.continue_button.clicked.connect(self._on_continue)
        self.estimate_button.clicked.connect(self.try_batches)
        self.validate_button.clicked.connect(self.cross_validate)
        self.start_button.clicked.connect(lambda: self.train(resume=False))
        self.resume_button.clicked.connect(lambda: self.train(resume=True))
        self.pause_button.clicked.connect(self.pause)
        self.stop_button.clicked.connect(self.stop)
        self.outcome_box.use_requested.connect(self.use)
        self.outcome_box.save_requested.connect(self.save_card)
        self.outcome_box.results_requested.connect(self.open_results)
        self.outcome_box.faithfulness.measure_requested.connect(self.measure_faithfulness)
        self.outcome_box.faithfulness.stop_requested.connect(self.stop)
        connect_while_alive(self.viewer.events.theme, self._on_theme, self)
        self._offer_last()

    # State

    @property
    def busy(self) -> bool:
        """Whether a job runs: a training, an estimate or a cross-validation."""
        return self._job is not None

    @property
    def waits(self) -> bool:
        """Whether the dock still works on what it shows: the start of a training, devices or figures."""
        figures = (self.confusion, self.outcome_box.confusion, self.outcome_box.calibration)
        jobs = self._start_job is not None or self._devices_job is not None
        return self._start_timer.isActive() or jobs or any(figure.busy for figure in figures)

    @property
    def paused(self) -> bool:
        """Whether the job is paused."""
        return self.busy and self._gate.paused

    def plan(self) -> TrainingPlan | None:
        """Return the plan of the form; None if there is none, with the reason as the dock's message."""
        labelling = self.label_box.labelling
        if labelling is None:
            return None
        try:
            return self.plan_box.plan(labelling.path, labelling.reading)
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return None

    def _saved_plan(self) -> TrainingPlan | None:
        """Return the plan after saving the labels, because a training reads them from disk."""
        labelling = self.label_box.labelling
        try:
            if labelling is not None and (labelling.unsaved or not labelling.path.exists()):
                labelling.save()
        except MilcnnError as error:
            self._say(str(error), ERROR)
            return None
        return self.plan()

    def _say(self, text: str, colour: str = "") -> None:
        self.message.say(text, colour)

    def _refresh(self) -> None:
        """Enable the controls that can be used now."""
        needs = self._needed()
        self.needs.say("" if self.busy else needs)
        ready = not needs and not self.busy
        for button in (self.start_button, self.estimate_button, self.validate_button):
            button.setEnabled(ready)
        self.resume_button.setVisible(self.stopped is not None and not self.busy)
        self.resume_button.setEnabled(ready)
        self.pause_button.setVisible(self.busy and self._pauses)
        self.stop_button.setVisible(self.busy)
        self.pause_button.setText("Continue" if self.paused else "Pause")
        self.plan_box.setEnabled(not self.busy)
        self.label_box.set_enabled_while_training(self.busy)
        self.tabs.setTabEnabled(USE_TAB, self.model is not None or self.report is not None)

    def _needed(self) -> str:
        """Return what is missing before a training can start; empty if nothing is."""
        labelling = self.label_box.labelling
        if labelling is None:
            return "Open images in the Label tab first."
        counts = labelling.counts()
        shown = [name for name, count in counts.items() if count]
        if not shown:
            return "Label a few images of each class first."
        if len(shown) == 1:
            return f"All labelled images have the label {shown[0]}. Also label images of another class."
        return ""

    # Labels

    def _on_labels(self) -> None:
        """Describe the start of a training again; for other labels, look for a training that was stopped."""
        labelling = self.label_box.labelling
        self.continue_button.hide()
        if labelling is not None and not self.busy:
            if self._labels_path != labelling.path:
                self._find_stopped(labelling.path)
                user_settings().setValue(_LAST_LABELS, str(labelling.path))
            self._start_timer.start()
        self._refresh()

    def _find_stopped(self, labels: Path) -> None:
        """Look for a training in the folder of the labels that was stopped or killed."""
        from napari_milcnn.training.record import stopped_training

        if self._labels_path is not None:
            self.plan_box.show_out(None)
            self.plan_box.facts = {}
            self._say("")
        self._labels_path, self.stopped = labels, stopped_training(labels.parent)
        if self.stopped is not None:
            self.plan_box.show_plan(self.stopped.plan)
            epochs = self.stopped.plan.train_options().epochs
            self._say(
                f"A training stopped after epoch {self.stopped.epochs_done} of {epochs}. Press Resume to continue."
            )
            self.tabs.setCurrentIndex(TRAIN_TAB)

    def _offer_last(self) -> None:
        """Offer to continue with the labels that were open last."""
        last = str(user_settings().value(_LAST_LABELS) or "")
        there = bool(last) and Path(last).parent.is_dir()
        self.continue_button.setText(f"Continue with {Path(last).parent.name}")
        self.continue_button.setToolTip(plain_text(last))
        self.continue_button.setVisible(there)

    def _on_continue(self) -> None:
        last = Path(self.continue_button.toolTip())
        self.label_box.open([last if last.exists() else last.parent])

    def _show_start(self) -> None:
        """Show what a training would start from."""
        if self.busy:
            return
        labelling = self.label_box.labelling
        plan = self.plan() if not self._needed() else None
        if plan is None or labelling is None:
            self.plan_box.kept.say("")
            return
        if self._start_job is not None:
            self._start_timer.start()
            return
        table = labelling.table()

        def end(ending: Ending) -> None:
            self._start_job = None
            if ending.error:
                self.plan_box.kept.say(ending.error, ERROR)

        self._start_job = Job(lambda: kept(plan, table), self, self._on_begun, end)

    # Work

    def _work(
        self, steps: Callable[[], Iterator[Any]], on_end: Callable[[Ending], None], *, pauses: bool = False
    ) -> None:
        """Start the one long job, with its progress."""
        self._epochs, self._since, self._pauses = (0, 1), None, pauses
        self.progress.setValue(0)
        self.progress.setFormat("starting…")
        self.progress.show()
        self._say("")
        self._job = Job(steps, self, self._on_step, on_end, self._gate)
        self._refresh()

    def _end(self, ending: Ending, done: str) -> None:
        self._job, self._gate = None, Gate()
        self.progress.hide()
        self.stop_button.setEnabled(True)
        self._start_timer.start()
        if ending.error:
            self._say(ending.error, ERROR)
        else:
            self._say("Stopped." if ending.stopped else done, WARNING if ending.stopped else "")
        self._refresh()

    def try_batches(self) -> None:
        """Estimate the time of an epoch and the memory from a few batches."""
        plan = self._saved_plan()
        if plan is not None and not self.busy:
            self.estimate.say("")
            self.warning.say("")
            self._work(lambda: estimated(plan), lambda ending: self._end(ending, ""))

    def train(self, *, resume: bool) -> None:
        """Train, or resume the training that was stopped."""
        plan = self.stopped.plan if resume and self.stopped is not None else self._saved_plan()
        if plan is None or self.busy:
            return
        resume = resume and self.stopped is not None and self.stopped.epochs_done > 0
        self._before = self._plan, self.model, self.report
        self._plan, self.stopped, self.model, self.report = plan, None, None, None
        self.warning.say("")
        self.curves.show_rows([], [])
        self.previews.show_previews([], [])
        self._show_confusion(None)
        gate, several = self._gate, self._gpus > 1 and plan.train_options().device == "auto"
        steps = (lambda: following(plan, self._gpus, resume=resume)) if several else (
            lambda: training(plan, gate.passes, resume=resume))  # fmt: skip
        self._work(steps, self._on_trained, pauses=not several)

    def cross_validate(self) -> None:
        """Measure how well such a training does on groups that are left out of it."""
        plan, folds = self._saved_plan(), self.plan_box.folds.value()
        if plan is not None and not self.busy:
            self.warning.say("")
            gate = self._gate
            self._work(lambda: cross_validation(plan, folds, gate.passes), self._on_validated, pauses=True)

    def pause(self) -> None:
        """Pause a training between two batches, or let it continue."""
        if self._gate.paused:
            self._gate.resume()
        else:
            self._gate.pause()
            self.progress.setFormat("paused")
        self._refresh()

    def stop(self) -> None:
        """Stop the job that runs; finished epochs are saved."""
        if self._job is not None:
            self._job.stop()
            self.stop_button.setEnabled(False)
            self._say("stopping…")

    # Reports of jobs

    def _on_step(self, step: Any) -> None:
        match step:
            case Share():
                self._show_share(step)
                self.outcome_box.faithfulness.show_progress(self.progress.value(), self.progress.format())
            case Begun():
                self._on_begun(step)
            case Epoch():
                self._on_epoch(step)
            case Looks():
                self.previews.show_previews(step.previews, step.classes)
            case Outcome():
                self._on_outcome(step)
            case Measured():
                self._on_measured(step)
            case None:
                pass
            case _:
                self._on_estimate(step)

    def _on_devices(self, found: Devices) -> None:
        self._gpus = found.count
        several = f" · device 'auto' uses all {found.count} GPUs" if found.count > 1 else ""
        self.device.say(f"{found.text}{several}")

    def _on_devices_end(self, _ending: Ending) -> None:
        self._devices_job = None

    def _on_begun(self, begun: Begun) -> None:
        if begun.kept:
            self.plan_box.kept.say(begun.kept)
        if begun.warning:
            self.warning.say(f"{self.warning.text()}\n{begun.warning}.".strip(), WARNING)

    def _show_share(self, step: Share) -> None:
        """Show the progress of the whole training: finished epochs and the share of the epoch under way."""
        if self._gate.paused:
            return
        done, epochs = self._epochs
        inside = step.done / max(step.total, 1)
        if step.doing == "batches":
            self.progress.setValue(round(1000 * (done + inside) / epochs))
            left = self._left((done + inside) / epochs)
            self.progress.setFormat(f"epoch {done + 1} of {epochs}{left}")
        elif step.of_all:
            self.progress.setValue(round(1000 * inside))
            self.progress.setFormat(f"{step.doing}{self._left(inside)}")
        else:
            self.progress.setValue(round(1000 * inside))
            self.progress.setFormat(f"{step.doing} · {step.done} of {step.total}")

    def _left(self, share: float) -> str:
        """Return the time left, estimated from the progress since the first batch."""
        now = time.monotonic()
        self._since = self._since or (now, share)
        spent, gained = now - self._since[0], share - self._since[1]
        return f" · {duration(spent / gained * (1 - share))} left" if gained > 0.01 else ""

    def _on_epoch(self, epoch: Epoch) -> None:
        self._epochs = (int(epoch.rows[-1]["epoch"]), epoch.epochs)
        self.model = epoch.best
        self.curves.show_rows(epoch.rows, epoch.best.classes)
        self._show_confusion(epoch.best)
        self.device.say(epoch.rows[-1]["device"])

    def _show_confusion(self, model: TrainedModel | None) -> None:
        counts = model.card.training.confusion if model is not None else None
        self.confusion_title.setVisible(counts is not None)
        if counts is None or model is None:
            self._confused = None
            self.confusion.show_figure(None)
            return
        columns = list(model.classes) if model.card.single_label else _YES_NO
        table = pd.DataFrame(counts, index=list(model.classes), columns=columns)
        style = figure_style(self.viewer)
        if self._confused != (counts, style):
            self._confused = (counts, style)
            self.confusion.show_figure(lambda: confusion_figure(table, style))

    def _on_outcome(self, found: Outcome) -> None:
        folds = found.report is not None and found.report.folds is not None
        self.report = found.report
        if not folds:
            self.model = found.model
        self._show_outcome()

    def _show_outcome(self, why: str = "") -> None:
        """Show the trained model with its report, or with the reason `why` there is none."""
        if self.model is not None:
            self.outcome_box.fields["name"].setText(self.model.card.name)
        self.outcome_box.show_report(self.report, figure_style(self.viewer), model=self.model is not None, why=why)
        self.outcome_box.faithfulness.message.say("")
        self._show_faithfulness()
        if self._plan is not None:
            self.outcome_box.command = shlex.join(["napari-milcnn", *self._plan.command()])
        self._refresh()

    def _on_estimate(self, found: TrainingEstimate) -> None:
        values = self.plan_box.values()
        epochs, minutes = values["epochs"], values["max_minutes"]
        often = f", {found.passes} times each," if found.passes > 1 else ""
        text = (f"{duration(found.seconds)} per epoch: {found.images} images{often} in {found.batches} batches, "
                f"{found.validation_images} for validation. {_epochs(epochs)} take{'s'[: epochs == 1]} about "
                f"{duration(found.seconds * epochs)}. Memory: {found.memory / 1e9:.1f} GB on "
                f"{found.device}.")  # fmt: skip
        if minutes:
            text += f" The limit of {minutes:g} min allows {_epochs(int(60 * minutes / max(found.seconds, 1e-9)))}."
        self.estimate.say(text)

    def _on_trained(self, ending: Ending) -> None:
        from napari_milcnn.training.record import stopped_training

        plan, model = self._plan, self.model
        self._end(ending, "Done.")
        if plan is None:
            return
        self.stopped = stopped_training(plan.out.parent)
        if ending.error and self.stopped is not None and not self.stopped.epochs_done:
            self.stopped = None
        if model is None:  # no epoch was finished: show the model from before again
            self._plan, self.model, self.report = self._before
            self._show_confusion(self.model)
        self._refresh()
        if not ending.stopped and not ending.error:
            self.tabs.setCurrentIndex(USE_TAB)
        if self.stopped is not None and model is not None and (ending.stopped or ending.error):
            why = self.message.text().rstrip(".")
            self._say(f"{why}. {_epochs(self.stopped.epochs_done)} saved; press Resume to continue.",
                      ERROR if ending.error else WARNING)  # fmt: skip
        if ending.error and model is not None and self.report is None:
            self._show_outcome(f"The model could not be evaluated: {ending.error}")
        if ending.stopped and model is not None:
            self._evaluate_stopped(plan, model, self.message.text())
        self._on_labels()

    def _evaluate_stopped(self, plan: TrainingPlan, model: TrainedModel, message: str) -> None:
        """Evaluate the best model of a training that was stopped, and show the message of the training again."""

        def end(ending: Ending) -> None:
            self._end(ending, message)
            if not ending.error:
                self._say(message, WARNING)

        self._work(lambda: outcome(plan, model), end)

    def _on_validated(self, ending: Ending) -> None:
        self._end(ending, "Cross-validation done.")
        if not ending.error and not ending.stopped:
            self.tabs.setCurrentIndex(USE_TAB)

    # Faithfulness

    def _show_faithfulness(self) -> None:
        """Show how much of the model's scores hangs on its masks; it is measured on images that were held out."""
        held = self.model is not None and self.report is not None and self.report.folds is None
        self.outcome_box.faithfulness.show_model(self.model, can_measure=held)

    def measure_faithfulness(self) -> None:
        """Measure how much of the model's scores hangs on its masks, and write it on the card."""
        plan, model, gate = self._plan, self.model, self._gate
        if plan is not None and model is not None and not self.busy:
            self.outcome_box.faithfulness.message.say("")
            self.outcome_box.faithfulness.show_measuring(True)
            self._work(lambda: faithfulness_of(plan, model, gate.passes), self._on_measured_end)

    def _on_measured(self, found: Measured) -> None:
        from napari_milcnn.evaluation.faithfulness import with_faithfulness

        if self.model is None or self._plan is None:
            return
        self.model = with_faithfulness(self.model, found.table)
        left_out = f"Left out: {'; '.join(found.problems)}. " if found.problems else ""
        say = self.outcome_box.faithfulness.message.say
        try:
            self.model.save(self._plan.out)
        except MilcnnError as error:
            say(f"{left_out}{error}", ERROR)
            return
        say(f"{left_out}Saved {self._plan.out}", WARNING if left_out else "")

    def _on_measured_end(self, ending: Ending) -> None:
        self._end(ending, "Done.")
        self._show_faithfulness()
        if ending.error or ending.stopped:
            self.outcome_box.faithfulness.message.say(ending.error or "Stopped.", ERROR if ending.error else WARNING)

    # Using the model

    def save_card(self) -> None:
        """Write name, authors, licence and description into the model file."""
        if self.model is None or self._plan is None:
            return
        try:
            self.model = self.model.with_card(**self.outcome_box.facts())
            self.model.save(self._plan.out)
        except MilcnnError as error:
            self._say_outcome(str(error), ERROR)
            return
        self._plan = replace(self._plan, facts={**self._plan.facts, **self.outcome_box.facts()})
        self.plan_box.facts = self._plan.facts
        self.outcome_box.command = shlex.join(["napari-milcnn", *self._plan.command()])
        self._say_outcome(f"Saved {self._plan.out}")

    def _say_outcome(self, text: str, colour: str = "") -> None:
        self.outcome_box.message.say(text, colour)

    def use(self) -> None:
        """Make the trained model the current one, and open the Classify dock."""
        from napari_milcnn.model.package_read import load_model

        if self._plan is None or self.model is None:
            return
        try:
            if not self._plan.out.exists():
                self.model.save(self._plan.out)
            current.set(load_model(self._plan.out))
        except MilcnnError as error:
            self._say_outcome(str(error), ERROR)
            return
        self.viewer.window.add_plugin_dock_widget("napari-milcnn", "Classify")

    def open_results(self) -> None:
        """Show the report in the Results dock."""
        if self.report is not None:
            report = self.report
            _, page = self.viewer.window.add_plugin_dock_widget("napari-milcnn", "Results")
            page.when_open(lambda dock: dock.show_report(report))

    def _on_theme(self, _event: Any = None) -> None:
        self._show_confusion(self.model)
        if self.report is not None:
            self.outcome_box.show_report(self.report, figure_style(self.viewer), model=self.model is not None)

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

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask before the dock is closed during a training."""
        if event.type() == QEvent.Type.MouseButtonRelease and self.busy and not self._is_to_close():
            watched.setDown(False)
            return True
        return bool(super().eventFilter(watched, event))

    def _is_to_close(self) -> bool:
        question = (
            "A training is running. Closing the dock stops it. Finished epochs are saved: press Resume to continue."
        )
        answer = QMessageBox.question(self, "Close the Train dock?", question)
        if answer == QMessageBox.StandardButton.Yes:
            self.stop()
            return True
        return False


_YES_NO = ["rightly yes", "wrongly yes", "wrongly no", "rightly no"]


def _epochs(count: int) -> str:
    return f"{count} epoch{'s'[: count != 1]}"
