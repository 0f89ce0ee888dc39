"""The dock *Fine-tune*: learn from what was corrected, with proof that it helped.

It reads the form, has a request written, starts the run and shows what its files say.
The training itself is a program of its own, which outlives the window.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sac.core.errors import NapariSacError, OutputError
from napari_sac.core.models.adapter import (
    free_name,
    new_adapter_folder,
    user_adapters,
)
from napari_sac.core.models.registry import licence_of
from napari_sac.core.training.events import Wish
from napari_sac.core.training.run_folder import (
    REPORT_PAGE,
    RunRequest,
    find_runs,
    is_running,
    read_wish,
    remove_run,
    save_request,
    sweep_runs,
)
from napari_sac.viewer.adapters import adapter_path, title_of
from napari_sac.viewer.finetuning import (
    PairFolders,
    SavedSession,
    check_drawn,
    copy_annotation,
    count_reviewed,
    count_saved,
    gather,
    mark_seen,
    new_results,
    pair_folders,
    read_verdict,
)
from napari_sac.viewer.session import AnnotationSession
from napari_sac.widgets._adapters_panel import AdaptersPanel
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._docking import Docking
from napari_sac.widgets._files import ask_folder
from napari_sac.widgets._finetune_closing import ClosingGuard
from napari_sac.widgets._finetune_result_panel import ResultPanel
from napari_sac.widgets._finetune_run_panel import RunPanel
from napari_sac.widgets._finetune_setup import NewAdapterPanel, TrainPanel
from napari_sac.widgets._finetune_sources import Listed, SourcesPanel
from napari_sac.widgets._finetune_watch import RunStage, RunWatch
from napari_sac.widgets._finetune_wording import (
    DISCARD_RUN,
    FEW_NUCLEI,
    GOES_ON_ELSEWHERE,
    NO_NUCLEUS,
    NOTHING_CHECKED,
    NOTHING_LISTED,
    describe_cancelled_run,
    describe_found_run,
    describe_lagging,
    describe_start,
    describe_started,
)
from napari_sac.widgets._offer_bar import OfferBar
from napari_sac.widgets._panel import ScrollColumn, narrow_button, section
from napari_sac.widgets._settings import compute_settings
from napari_sac.widgets._status_panel import StatusPanel
from napari_sac.widgets._wording import describe_cancelled
from napari_sac.widgets._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_sac.core.progress import Progress
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.finetuning import Counts, Source

_REFRESH_MILLISECONDS = 150

Choice = tuple[str, str | None]


class FinetuneWidget(QWidget):
    """Choose what to learn from, train, and see whether it helped.

    Parameters
    ----------
    napari_viewer : ViewerModel
        The name is how napari knows what to pass.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._added: dict[SavedSession | PairFolders, Counts] = {}
        self._offered: list[Path] = []
        self._asked_for: Path | None = None
        self._before: Choice | None = None
        self._result: Choice | None = None
        self.session = AnnotationSession.of(napari_viewer)
        self.worker = Worker(self)
        self.watch = RunWatch(self)
        self.guard = ClosingGuard(self, self.watch)
        self.open_file: Callable[[QUrl], object] = QDesktopServices.openUrl
        self.look = narrow_button("Look", "Shows how it goes, or what came of it.")
        self.go_on = narrow_button("Go on", "Takes it up at its last checkpoint.")
        self.offer = OfferBar(DISCARD_RUN, self.look, self.go_on)
        self.sources = SourcesPanel()
        self.adapter = NewAdapterPanel()
        self.train = TrainPanel()
        self.run = RunPanel()
        self.result = ResultPanel()
        self.status = StatusPanel()
        self.adapters = AdaptersPanel(self.session, self.worker, self.status)
        self.setup = QWidget()
        self._refresh_soon = QTimer(self)
        self._refresh_soon.setSingleShot(True)
        self._refresh_soon.setInterval(_REFRESH_MILLISECONDS)
        self._lay_out()
        self._connect_inside()
        self._docking = Docking(self, self._join, self._leave, self.guard.watch_window)
        self._docking.join()

    def leave(self) -> None:
        """Listen to the viewer no more; a run goes on, and is offered the next time."""
        self._docking.leave()

    # -- what can be learned from -----------------------------------------------

    def add_session(self, folder: Path) -> None:
        """Put a saved session on the list, if it can be read."""
        self._add(SavedSession(folder))

    def add_folders(self, folders: PairFolders) -> None:
        """Put a folder of images and one of labels on the list."""
        self._add(folders)

    def _add(self, source: SavedSession | PairFolders) -> None:
        if not self.worker.busy:
            work = partial(count_saved, source)
            self.worker.start("Reading", work, partial(self._show_added, source))

    def _show_added(self, source: SavedSession | PairFolders, counts: Counts) -> None:
        self._added[source] = counts
        self.status.say("")
        self._refresh()

    def _on_add_session(self) -> None:
        folder = ask_folder(self, "Learn from a session (a folder NAME.sac)")
        if folder is not None:
            self.add_session(folder)

    def _on_add_folder(self) -> None:
        images = ask_folder(self, "Folder of images")
        if images is None:
            return
        folders = pair_folders(images)
        if folders is None:
            labels = ask_folder(self, "Folder of their labels")
            if labels is None:
                return
            folders = PairFolders(images, labels)
        self.add_folders(folders)

    def _on_removed(self, key: object) -> None:
        if isinstance(key, SavedSession | PairFolders):
            self._added.pop(key, None)
        self._refresh()

    def _lines(self) -> list[Listed]:
        lines = [
            Listed(annotation.number, annotation.name, count_reviewed(annotation))
            for annotation in sorted(self.session.annotations, key=lambda a: a.number)
        ]
        for source, counts in self._added.items():
            folder = (
                source.folder if isinstance(source, SavedSession) else source.images
            )
            lines.append(Listed(source, folder.name, counts, str(folder)))
        return lines

    def _chosen_sources(self) -> list[Source]:
        sources: list[Source] = []
        for line in self.sources.chosen():
            if isinstance(line.key, SavedSession | PairFolders):
                sources.append(line.key)
                continue
            annotation = self._annotation_of(line)
            if annotation is not None:
                self.session.sync(annotation)
                check_drawn(self.session, annotation)
                sources.append(copy_annotation(annotation))
        return sources

    def _annotation_of(self, line: Listed) -> Annotation | None:
        """Return what a line is about; None if that is files."""
        if isinstance(line.key, SavedSession | PairFolders):
            return None
        return self.session.numbered(int(str(line.key)))

    # -- start ------------------------------------------------------------------

    def _on_start(self) -> None:
        try:
            folder = new_adapter_folder(self.adapter.name.text())
            sources = self._chosen_sources()
            config = self.train.config()
            model, adapter = self.session.chosen_model
            licence = licence_of(model, adapter)
        except NapariSacError as error:
            self.status.say_error(str(error), "")
            return
        names = tuple(line.name for line in self.sources.chosen())
        request = RunRequest(
            model,
            adapter,
            (),
            config,
            self._device(),
            title=folder.name,
            description=f"Learned from {', '.join(names)}.",
            tissue=self.adapter.tissue.text().strip(),
            licence=licence,
        )
        work = partial(_write_request, folder, request, tuple(sources))
        self._asked_for = folder
        self.worker.start("Gathering", work, self._begin)

    def _begin(self, folder: Path) -> None:
        self._asked_for = None
        if self._show_run(folder, self.watch.start):
            self.adapter.forget_typed()
            self.status.say(describe_started(folder))
        else:
            remove_run(folder)

    def _device(self) -> str:
        chosen = self.session.device
        return compute_settings().device if chosen == "auto" else chosen

    # -- a run ------------------------------------------------------------------

    def _show_run(self, folder: Path, begin: Callable[[Path], None]) -> bool:
        """Show a run in the place of the form, unless it cannot be begun."""
        self._offer(())
        self._before = self._result = None
        self.run.clear(folder.name)
        return self.status.attempt(partial(begin, folder))

    def _on_asked(self, wish: Wish) -> None:
        self.status.attempt(partial(self.watch.ask, wish))

    def _on_go_on(self) -> None:
        folder = self.watch.folder
        if folder is not None:
            self.status.attempt(partial(self.watch.start, folder))

    def _on_discard(self) -> None:
        folder = self.watch.folder
        if folder is not None:
            self.watch.leave()
            if self._discard(folder):
                self._show_form()

    def _discard(self, folder: Path) -> bool:
        """Delete a run, unless another window has taken it up: then show it."""
        if is_running(folder):
            self._show_run(folder, self.watch.watch)
            self.status.say(GOES_ON_ELSEWHERE)
            return False
        remove_run(folder)
        return True

    def _on_run_changed(self) -> None:
        watch = self.watch
        folder = watch.folder
        if folder is None:
            return
        if watch.stage is RunStage.FINISHED:
            self._finish(folder)
        elif watch.stage is RunStage.CANCELLED:
            watch.leave()
            # a run that was ended before it could clean up
            remove_run(folder)
            self.status.say(describe_cancelled_run(folder.name))
            self._show_form()
        else:
            self.run.show_status(watch.status, watch.stage, watch.wish)
            self._show(self.run)

    def _finish(self, folder: Path) -> None:
        """Show the verdict; what was promoted is used from now on."""
        self.watch.leave()
        self.status.say("")
        self._show_result(folder, use=True)

    def _show_result(self, folder: Path, *, use: bool) -> None:
        self.session.adapters_changed.emit()
        try:
            verdict = read_verdict(folder)
        except OutputError as error:
            self.status.say_error(str(error), "")
            self._show_form()
            return
        mark_seen(folder)
        self._before, self._result = None, (verdict.model, folder.name)
        self.result.show_verdict(folder.name, verdict)
        self._show(self.result)
        self.adapters.select(folder.name)
        if verdict.promoted and use:
            self._on_use()
        self._show_used()

    def _on_use(self) -> None:
        if self._result is not None and self._result != self.session.chosen_model:
            before = self.session.chosen_model
            if self.status.attempt(partial(self.session.choose_model, *self._result)):
                self._before = before
        self._show_used()

    def _on_back(self) -> None:
        if self._before is not None:
            before, self._before = self._before, None
            self.status.attempt(partial(self.session.choose_model, *before))
        self._show_used()

    def _on_report(self) -> None:
        if self._result is not None:
            page = user_adapters() / str(self._result[1]) / REPORT_PAGE
            self.open_file(QUrl.fromLocalFile(str(page)))

    def _show_used(self) -> None:
        used = self._result is not None and self._is_chosen(self._result)
        before = "" if self._before is None else title_of(*self._before)
        self.result.show_used(used, before)

    def _is_chosen(self, choice: Choice) -> bool:
        """Return whether a model is the one in use, which may be named by a path."""
        (model, adapter), (wanted, name) = self.session.chosen_model, choice
        if model != wanted or not adapter or not name:
            return (model, adapter) == choice
        return adapter_path(adapter) == adapter_path(name)

    # -- runs of another time ---------------------------------------------------

    def _look_for_runs(self) -> None:
        if is_alive(self) and self.watch.folder is None:
            root = user_adapters()
            sweep_runs(root)
            # one that was killed as its last word was due is in both
            self._offer(tuple(dict.fromkeys((*find_runs(root), *new_results(root)))))

    def _offer(self, folders: Sequence[Path]) -> None:
        self._offered = list(folders)
        if not self._offered:
            self.offer.hide()
            return
        first, more = self._offered[0], len(self._offered) - 1
        finished = first in new_results(user_adapters())
        alive = not finished and is_running(first)
        ended = not alive and not finished
        self.offer.offer(
            describe_found_run(
                first.name,
                alive=alive,
                paused=read_wish(first) is Wish.PAUSE,
                finished=finished,
                more=more,
            ),
            self.go_on if ended else self.look,
            discardable=ended,
        )

    def _on_look(self) -> None:
        folder = self._offered[0]
        if folder in new_results(user_adapters()):
            self._offer(())
            # nobody waits for it any more, so it is not used by itself
            self._show_result(folder, use=False)
        else:
            self._show_run(folder, self.watch.watch)

    def _on_offer_go_on(self) -> None:
        self._show_run(self._offered[0], self.watch.start)

    def _on_offer_discard(self) -> None:
        if self._discard(self._offered[0]):
            self._look_for_runs()

    def _on_later(self) -> None:
        self._offer(self._offered[1:])

    # -- what the dock shows ----------------------------------------------------

    def _show(self, part: QWidget) -> None:
        for one in (self.setup, self.run, self.result):
            one.setVisible(one is part)

    def _show_form(self) -> None:
        self._before = self._result = None
        self._show(self.setup)
        self._refresh()
        self._look_for_runs()

    def _refresh_later(self) -> None:
        if is_alive(self) and not self._refresh_soon.isActive():
            self._refresh_soon.start()

    def _on_model_chosen(self, *_: str) -> None:
        if is_alive(self):
            self._show_used()
            self._refresh()

    def _refresh(self) -> None:
        """Make the form say what is the case."""
        if not is_alive(self):
            return
        lines = self._lines()
        self.sources.show_lines(lines)
        self.adapter.start.setText(describe_start(title_of(*self.session.chosen_model)))
        image = lines[0].name if lines else ""
        self.adapter.suggest(free_name(image or "my", "_tuned"))
        self._allow()

    def _allow(self) -> None:
        """Enable the button, or say why not."""
        problem = _name_problem(self.adapter.name.text())
        self.adapter.show_problem(problem)
        reason = self._refusal()
        busy = self.worker.busy
        allowed = not busy and not reason and not problem
        self.train.allow(allowed, reason or self._hint())
        for button in (self.sources.add_session, self.sources.add_folder):
            button.setEnabled(not busy)

    def _refusal(self) -> str:
        if self.sources.is_empty:
            return NOTHING_LISTED
        chosen = [self._annotation_of(line) for line in self.sources.chosen()]
        live = self.session.live
        lagging = sum(len(live.lagging(a)) for a in chosen if a is not None)
        if lagging:
            return describe_lagging(lagging)
        if self._nuclei():
            return ""
        usable = any(line.counts.problem is None for line in self._lines())
        return NOTHING_CHECKED if usable and not self.sources.chosen() else NO_NUCLEUS

    def _hint(self) -> str:
        # imported late: it takes long, which opening a dock need not
        from napari_sac.core.training.training_set import FEWEST_TO_SPLIT

        return FEW_NUCLEI if self._nuclei() < FEWEST_TO_SPLIT else ""

    def _nuclei(self) -> int:
        return sum(line.counts.nuclei for line in self.sources.chosen())

    def _on_busy_changed(self, busy: bool) -> None:
        self.status.show_busy(busy)
        self._allow()

    def _on_cancelled(self, title: str) -> None:
        self.status.say(describe_cancelled(title))
        folder, self._asked_for = self._asked_for, None
        # cancelled while the request was being written: nobody will start it
        if folder is not None and not is_running(folder):
            remove_run(folder)
        # its name is free again
        self._allow()

    def _on_failed(self, sentence: str, report: str) -> None:
        self._asked_for = None
        self.status.say_error(sentence, report)

    def _join(self) -> None:
        self.session.changed.connect(self._refresh_later)
        self.session.model_chosen.connect(self._on_model_chosen)
        self.adapters.join()
        self._show_form()
        # not before the dock is drawn: it looks into files
        QTimer.singleShot(0, self._look_for_runs)

    def _leave(self) -> None:
        self.session.changed.disconnect(self._refresh_later)
        self.session.model_chosen.disconnect(self._on_model_chosen)
        self._refresh_soon.stop()
        self.adapters.leave()
        self.worker.stop()
        self.guard.tell_what_goes_on()
        self.watch.leave()

    def _connect_inside(self) -> None:
        self._refresh_soon.timeout.connect(self._refresh)
        self.sources.changed.connect(self._allow)
        self.sources.session_requested.connect(self._on_add_session)
        self.sources.folder_requested.connect(self._on_add_folder)
        self.sources.removed.connect(self._on_removed)
        self.adapter.changed.connect(self._allow)
        self.train.requested.connect(self._on_start)
        self.watch.changed.connect(self._on_run_changed)
        self.watch.curves_changed.connect(self.run.show_curves)
        self.watch.example_changed.connect(self.run.show_example)
        self.run.asked.connect(self._on_asked)
        self.run.go_on_requested.connect(self._on_go_on)
        self.run.discard_requested.connect(self._on_discard)
        self.result.use_requested.connect(self._on_use)
        self.result.back_requested.connect(self._on_back)
        self.result.report_requested.connect(self._on_report)
        self.result.again_requested.connect(self._show_form)
        self.look.clicked.connect(self._on_look)
        self.go_on.clicked.connect(self._on_offer_go_on)
        self.offer.discard_requested.connect(self._on_offer_discard)
        self.offer.later_requested.connect(self._on_later)
        self.status.cancel_requested.connect(self.worker.cancel)
        self.worker.busy_changed.connect(self._on_busy_changed)
        self.worker.progressed.connect(self.status.show_progress)
        self.worker.failed.connect(self._on_failed)
        self.worker.cancelled.connect(self._on_cancelled)

    def _lay_out(self) -> None:
        form = QVBoxLayout(self.setup)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(8)
        for part in (
            section("1  What to learn from", self.sources),
            section("2  The model", self.adapter),
            section("3  Train", self.train),
        ):
            form.addLayout(part)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(6, 6, 6, 0)
        layout.setSpacing(8)
        for widget in (self.offer, self.setup, self.run, self.result, self.adapters):
            layout.addWidget(widget)
        layout.addStretch()
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 6)
        whole.addWidget(ScrollColumn(inside), 1)
        whole.addWidget(self.status)


def _write_request(
    folder: Path,
    request: RunRequest,
    sources: Sequence[Source],
    progress: Progress,
) -> Path:
    """Gather what is learned from and write it down; runs in a thread."""
    images = gather(sources, progress)
    progress("writing down what to learn from", 0, 0)
    # another window may have taken the name meanwhile
    new_adapter_folder(folder.name)
    try:
        save_request(folder, replace(request, images=images))
    except OutputError:
        remove_run(folder)
        raise
    return folder


def _name_problem(name: str) -> str:
    try:
        new_adapter_folder(name)
    except OutputError as error:
        return str(error)
    return ""
