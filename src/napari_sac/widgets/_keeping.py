"""Joins the session panel and the offer to restore to the session: files in and out."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_sac.core.errors import Cancelled, NapariSacError
from napari_sac.core.io import read_labels, safe_name
from napari_sac.core.session.folder import copy_session, give_up
from napari_sac.core.session.recovery import discard, find_unclosed, is_unsaved
from napari_sac.viewer import exchange
from napari_sac.viewer.layers import name_among, plane_name
from napari_sac.viewer.planes import full_resolution, pixel_size
from napari_sac.viewer.prompts import usable_ids
from napari_sac.viewer.reopening import plane_now
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._docking import close_with_window, outermost
from napari_sac.widgets._files import ask_folder, ask_open, ask_save
from napari_sac.widgets._offer_bar import OfferBar
from napari_sac.widgets._panel import narrow_button
from napari_sac.widgets._wording import (
    DISCARD_QUESTION,
    IMAGE_GONE,
    NO_LABELS_LAYER,
    SAVING_STOPPED,
    STILL_BUSY,
    ask_to_forget,
    describe_exported,
    describe_imported,
    describe_opened,
    describe_place,
    describe_read_only,
    describe_saving,
    describe_unsaved,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    from qtpy.QtWidgets import QWidget

    from napari_sac.core.progress import Progress
    from napari_sac.core.session.journal import Journal
    from napari_sac.core.session.recovery import Unclosed
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.exchange import ReadSession
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.relabelling import KnownLabels
    from napari_sac.viewer.session import AnnotationSession
    from napari_sac.widgets._session_panel import SessionPanel
    from napari_sac.widgets._status_panel import StatusPanel
    from napari_sac.widgets._worker import Worker

_T = TypeVar("_T")

_FLUSH_SECONDS = 20
_PIECES, _PAUSE_MS = 2, 50
"""Pieces of labels that are written at once, and how long the window has in between."""
_SAVING, _TIDYING = "Saving the session", "Tidying up"
_SESSIONS = "Sessions (*.sac)"
_EXPORTERS = {
    "tiff": exchange.export_labels,
    "zarr": exchange.export_labels,
    "prompts": exchange.export_prompts,
    "outlines": exchange.export_geojson,
}


@dataclass(frozen=True)
class FileKind:
    """Something that can be imported or exported.

    Parameters
    ----------
    name : str
    title : str
        In the menu.
    patterns : str
        For the dialog.
    ending : str
        Of the file that is written.
    """

    name: str
    title: str
    patterns: str = ""
    ending: str = ""


IMPORTS = (
    FileKind("labels", "Labels of another tool ...", "Labels (*.tif *.tiff *.png)"),
    FileKind("layer", "Labels of the selected layer"),
    FileKind(
        "points",
        "Points: a table with y and x, or QuPath's ...",
        "Points (*.csv *.tsv *.txt *.geojson *.json)",
    ),
    FileKind(
        "outlines", "Outlines of QuPath (GeoJSON) ...", "GeoJSON (*.geojson *.json)"
    ),
)
EXPORTS = (
    FileKind("tiff", "Labels as TIFF ...", "TIFF (*.tif *.tiff)", ".tif"),
    FileKind("zarr", "Labels as OME-Zarr ...", "OME-Zarr (*.zarr)", ".ome.zarr"),
    FileKind("prompts", "Points as a table ...", "CSV (*.csv)", ".csv"),
    FileKind(
        "outlines",
        "Outlines for QuPath (GeoJSON) ...",
        "GeoJSON (*.geojson)",
        ".geojson",
    ),
)


class Keeping(QObject):
    """What the buttons of *Session* do, and the offer to restore.

    Parameters
    ----------
    dock : QWidget
    session : AnnotationSession
    panel : SessionPanel
    status : StatusPanel
    worker : Worker
    shown : callable
        Gives the plane that is shown and the annotation that is meant, None for what
        is not there.
    look_at : callable
        Shows what a session that was opened is about.
    diameter : callable
        Gives the nucleus diameter in pixels that was typed, or None.

    Attributes
    ----------
    bar : OfferBar
        Offers work that was not closed.
    restore : QPushButton
        Takes it up.
    """

    def __init__(
        self,
        dock: QWidget,
        session: AnnotationSession,
        panel: SessionPanel,
        status: StatusPanel,
        worker: Worker,
        shown: Callable[[], tuple[ImagePlane | None, Annotation | None]],
        look_at: Callable[[Annotation], None],
        diameter: Callable[[], float | None],
    ) -> None:
        super().__init__(dock)
        self._dock = dock
        self._session = session
        self._panel = panel
        self.restore = narrow_button("Restore", "Opens it where it was left.")
        self.bar = OfferBar(DISCARD_QUESTION, self.restore)
        self._status = status
        self._worker = worker
        self._shown = shown
        self._look_at = look_at
        self._diameter = diameter
        self._joined = False
        self._saving = False
        self._left_own = False
        self._offered: list[Unclosed] = []
        self._flush_timer = QTimer(self)
        self._flush_timer.setInterval(_FLUSH_SECONDS * 1000)
        self._rest_timer = QTimer(self)
        self._rest_timer.setInterval(_PAUSE_MS)
        self._rest_timer.setSingleShot(True)
        self._connect()

    def join(self) -> None:
        """Keep what is done, and look for what was not closed."""
        self._joined = True
        self._session.journal_failed.connect(self._on_journal_failed)
        self._session.open_requested.connect(self.open_session)
        self._flush_timer.start()
        # not before the dock is drawn: it looks into files
        QTimer.singleShot(0, self._look_for_unclosed)

    @property
    def only_moves_files(self) -> bool:
        """Whether what is running leaves the processor to masks."""
        return self._worker.title in (_SAVING, _TIDYING)

    @property
    def _is_copied(self) -> bool:
        return self._worker.title == _SAVING

    def watch_window(self) -> None:
        """Close the session with the window that the dock is in now."""
        close = partial(_close, self._session)
        close_with_window(outermost(self._dock), self._session, close)

    def leave(self) -> None:
        """Listen to the session no more; it stays open with its layers."""
        self._joined = False
        self._session.journal_failed.disconnect(self._on_journal_failed)
        self._session.open_requested.disconnect(self.open_session)
        self._flush_timer.stop()
        self._rest_timer.stop()
        self._saving = False
        if self._is_copied:
            # the log has what the pieces lack
            show_info(SAVING_STOPPED)
        elif not self._session.read_only:
            self._status.attempt(self._session.flush_briefly)

    def refresh(self) -> None:
        """Make the panel say what is the case."""
        session, (plane, annotation) = self._session, self._shown()
        editable, idle = not session.read_only, not self._worker.busy
        self._panel.show_place(self._place(), self._notice())
        self._panel.open.setEnabled(idle)
        self._panel.save.setEnabled(idle and editable and session.is_saved)
        self._panel.save_as.setEnabled(idle and bool(session.annotations))
        self._panel.bring.setEnabled(idle and editable and plane is not None)
        self._panel.export.setEnabled(idle and annotation is not None)

    def open_session(self, folder: Path) -> None:
        """Open a session in this viewer; what it holds is read beside the window."""
        if self._worker.busy:
            self._status.say(STILL_BUSY)
            return
        session = self._session

        def make_way() -> None:
            # who has deleted all layers may open their own session again
            self._left_own = exchange.make_way(session, folder)

        if self._status.attempt(make_way):
            self._saving = False
            shown = tuple(session.viewer.layers)
            read = partial(exchange.read_session, folder, shown)
            done = partial(self._show_opened, folder)
            # a session that is open is locked, so it must not get lost
            self._worker.start("Opening the session", read, done, lasting=True)

    def save_as(self, folder: Path) -> None:
        """Save to a folder, and go on there; it is copied beside the window."""
        if self._worker.busy:
            self._status.say(STILL_BUSY)
            return
        session = self._session
        source = session.journal.whole
        if source is not None and session.journal.is_at(folder):
            self._on_save()
        elif source is not None and not source.unsaved:
            copy = partial(self._copy, source, folder)
            done = partial(self._go_on_in, source)
            # a copy that is open is locked, so it must not get lost
            self._worker.start(_SAVING, copy, done, lasting=True)
        else:
            # what is not on the disk is written from memory
            if self._status.attempt(partial(session.save_as, folder)):
                self._status.say(self._place())
            self.refresh()

    def export(self, kind: FileKind, annotation: Annotation, path: Path) -> None:
        """Write a file beside the window; what is done meanwhile is not in it."""
        self._session.sync(annotation)
        is_table = kind.name == "prompts"
        copied = _snapshot(annotation, labels=not is_table)
        write = partial(_EXPORTERS[kind.name], copied, path)
        waiting = self._session.live.waits_for(annotation)
        # of points it is the table itself that was changed
        here = annotation.plane is not None
        told = partial(self._on_exported, path, 0 if is_table else waiting, here)
        work = partial(_write, write, None if is_table else copied)
        self._worker.start("Exporting", work, told, lasting=True)

    def bring(self, kind: FileKind, plane: ImagePlane, path: Path) -> None:
        """Import a file into a plane; a large one takes seconds to read."""
        session = self._session
        layers = session.viewer.layers
        fits = partial(exchange.check_names_image, path, plane, layers)
        if not self._status.attempt(fits):
            return
        known = session.known_labels(plane)
        if kind.name == "labels":
            self._bring(
                plane,
                partial(_read_labels, path, plane, known),
                partial(exchange.show_imported, session),
            )
        elif kind.name == "points":
            read = partial(
                exchange.read_measured_points,
                path,
                plane,
                pixel_size(plane.layer),
                exchange.measuring_model(session, plane),
                session.loaded,
                self._diameter(),
            )
            self._bring(plane, read, partial(exchange.show_points, session))
        else:
            self._bring(
                plane,
                partial(exchange.read_outlines, path, plane, known),
                partial(exchange.show_outlines, session),
            )

    def _connect(self) -> None:
        panel = self._panel
        panel.open_requested.connect(self._on_open)
        panel.save_requested.connect(self._on_save)
        panel.save_as_requested.connect(self._on_save_as)
        panel.import_requested.connect(self._on_import)
        panel.export_requested.connect(self._on_export)
        self.restore.clicked.connect(self._on_restore)
        self.bar.discard_requested.connect(self._on_discard)
        self.bar.later_requested.connect(self._on_later)
        self._worker.failed.connect(self._on_not_done)
        self._worker.cancelled.connect(self._on_not_done)
        self._flush_timer.timeout.connect(self._write_pieces)
        self._rest_timer.timeout.connect(self._write_pieces)

    def _on_open(self) -> None:
        folder = ask_folder(self._dock, "Open a session (a folder NAME.sac)")
        if folder is not None:
            self.open_session(folder)

    def _on_save(self) -> None:
        """Write what is left by and by; the log has all of it already."""
        self._saving = True
        self._write_pieces()

    def _on_save_as(self) -> None:
        name = safe_name(self._image_name()) + ".sac"
        folder = ask_save(self._dock, "Save the session as", _SESSIONS, name)
        if folder is not None:
            self.save_as(folder)

    def _on_export(self, name: str) -> None:
        kind = next(k for k in EXPORTS if k.name == name)
        _, annotation = self._shown()
        if annotation is None or self._worker.busy:
            return
        name = exchange.export_name(safe_name(self._plane_name()), kind.ending)
        path = ask_save(self._dock, "Export", kind.patterns, name)
        if path is not None:
            self.export(kind, annotation, path)

    def _on_import(self, name: str) -> None:
        kind = next(k for k in IMPORTS if k.name == name)
        plane, _ = self._shown()
        if plane is None or self._worker.busy:
            return
        if kind.name == "layer":
            self._import_layer(plane)
            return
        path = ask_open(self._dock, "Import", kind.patterns)
        if path is not None:
            self.bring(kind, plane, path)

    def _import_layer(self, plane: ImagePlane) -> None:
        layers = self._session.viewer.layers
        chosen = [x for x in layers.selection if isinstance(x, Labels)]
        foreign = [x for x in chosen if self._session.owner(x) is None]
        if len(foreign) == 1:
            known = self._session.known_labels(plane)
            self._bring(
                plane,
                partial(_read_layer, full_resolution(foreign[0]), plane, known),
                partial(exchange.show_imported, self._session),
            )
        else:
            self._status.say(NO_LABELS_LAYER)

    def _bring(
        self,
        plane: ImagePlane,
        read: Callable[[Progress], _T],
        show: Callable[[ImagePlane, _T], Annotation],
    ) -> None:
        """Read something beside the window, then make it part of the session."""
        before = self._session.find(plane)

        def work(progress: Progress) -> tuple[_T, npt.NDArray[np.uint8] | None]:
            return read(progress), _read_pixels(plane) if before is None else None

        done = partial(self._show_brought, plane, before, show)
        self._worker.start("Importing", work, done)

    def _show_brought(
        self,
        asked: ImagePlane,
        before: Annotation | None,
        show: Callable[[ImagePlane, _T], Annotation],
        brought: tuple[_T, npt.NDArray[np.uint8] | None],
    ) -> None:
        session, status = self._session, self._status
        read, pixels = brought
        plane = plane_now(session, asked, before)
        if plane is None:
            status.say_error(IMAGE_GONE, "")
            return
        if pixels is not None:
            session.journal.know_pixels(session.about(plane), pixels)
        image = name_among(session.viewer, plane)

        def take_up() -> None:
            reviewed = len(session.about(plane).reviewed)
            annotation = show(plane, read)
            gone = reviewed - len(annotation.reviewed)
            status.say(describe_imported(annotation, image, gone))

        status.attempt(take_up)

    def _on_not_done(self, *_: str) -> None:
        """Offer one's own session, if that was left to be opened, and was not."""
        if self._left_own and self._joined:
            self._left_own = False
            self._look_for_unclosed()

    def _show_opened(self, folder: Path, read: ReadSession) -> None:
        self._left_own = False
        if not self._joined:
            # the dock was closed meanwhile: nobody waits for it any more
            read.journal.close(clean=False)
            return
        if self._status.attempt(partial(exchange.show_session, self._session, read)):
            opened = self._session.annotations
            told = " ".join([describe_opened(opened, folder), *read.problems])
            self._status.say(told)
            for annotation in opened[-1:]:
                self._look_at(annotation)
        self._look_for_unclosed()
        self.refresh()

    def _copy(self, source: Journal, folder: Path, progress: Progress) -> Journal:
        """Copy a session, in the worker's thread."""
        copy = copy_session(source, folder, progress)
        if not self._joined or not is_alive(self):
            # what is left to a dock that is deleted stays open
            give_up(copy)
            raise Cancelled(SAVING_STOPPED)
        return copy

    def _go_on_in(self, source: Journal, copy: Journal) -> None:
        if not self._joined:
            # the dock was closed meanwhile, and has told so
            give_up(copy)
        elif self._status.attempt(partial(self._session.go_on_in, copy, source)):
            # the log was copied as it was; the labels may be behind it
            self._on_save()
            if is_unsaved(source.folder):
                tidy = partial(_discard, source.folder)
                self._worker.start(_TIDYING, tidy, self._on_tidied, lasting=True)

    def _on_tidied(self, _: None) -> None:
        # else what is still being written tells when it is done
        if not self._saving:
            self._tell_saving(0, self._session.journal.failure)

    def _on_exported(
        self, path: Path, waiting: int, image: bool, nuclei: tuple[int, int]
    ) -> None:
        self._status.say(describe_exported(path, waiting, *nuclei, image=image))

    def _look_for_unclosed(self) -> None:
        if not is_alive(self) or self._session.annotations:
            self._offer([])
        else:
            self._offer(find_unclosed())

    def _offer(self, unclosed: list[Unclosed]) -> None:
        self._offered = unclosed
        if not is_alive(self.bar):
            return
        if unclosed:
            now = datetime.now().astimezone()
            newest = unclosed[0].folder
            self.bar.offer(
                describe_unsaved(unclosed, now),
                self.restore,
                forgetting="" if is_unsaved(newest) else ask_to_forget(newest),
            )
        else:
            self.bar.hide()

    def _on_restore(self) -> None:
        if self._offered:
            self.open_session(self._offered[0].folder)

    def _on_discard(self) -> None:
        if self._offered:
            self._status.attempt(partial(discard, self._offered[0].folder))
            self._look_for_unclosed()

    def _on_later(self) -> None:
        # the next older one; after the last the bar is gone
        self._offer(self._offered[1:])

    def _on_journal_failed(self, sentence: str) -> None:
        del sentence
        self.refresh()

    def _notice(self) -> str:
        failure = self._session.journal.failure
        if failure or not self._session.read_only:
            return failure
        return describe_read_only(self._session.journal.read_only_reason)

    def _place(self) -> str:
        folder = self._session.journal.folder
        return describe_place(folder, saved=self._session.is_saved)

    def _write_pieces(self) -> None:
        """Write a few pieces at a time, and none while something is dragged.

        Nor while they are copied: the log has all of them.
        """
        if self._session.read_only or self._is_copied:
            return
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            # a drag that is looked at now would be two moves
            self._rest_timer.start()
            return
        try:
            left = self._session.flush(_PIECES)
            failure = self._session.journal.failure
        except NapariSacError as error:
            left, failure = 0, str(error)
        # where nothing can be written it is tried again in a while, not at once
        if left and not failure:
            self._rest_timer.start()
        if self._saving:
            self._saving = self._rest_timer.isActive()
            self._tell_saving(left, failure)

    def _tell_saving(self, left: int, failure: str) -> None:
        """Say how far *Save* is."""
        if failure:
            self._status.say_error(failure, "")
            self.refresh()
        elif left:
            self._status.say(describe_saving(left))
        else:
            self._status.say(self._place())
            self.refresh()

    def _image_name(self) -> str:
        plane, annotation = self._shown()
        if annotation is not None and annotation.plane is None:
            return annotation.name
        return "nuclei" if plane is None else str(plane.layer.name)

    def _plane_name(self) -> str:
        """Return the name of the image and, of a stack, of its plane."""
        plane, annotation = self._shown()
        if plane is None or (annotation is not None and annotation.plane is None):
            return self._image_name()
        return plane_name(plane)


def _write(
    write: Callable[[], None], annotation: Annotation | None, progress: Progress
) -> tuple[int, int]:
    """Write a file; return how many nuclei have no mask in its labels, and of how many.

    Without an annotation it has no labels; one mask of all nuclei lacks none.
    """
    progress("writing the file", 0, 0)
    write()
    if annotation is None:
        return 0, 0
    if not annotation.has_instances and annotation.state.labels.any():
        return 0, 0
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.labels import consecutive_labels

    nuclei = usable_ids(annotation.prompts)
    _, drawn = consecutive_labels(annotation.state.labels)
    return len(nuclei - set(drawn.tolist())), len(nuclei)


def _discard(folder: Path, progress: Progress) -> None:
    """Delete a session that nobody had saved, and whose work goes on elsewhere."""
    progress("tidying up", 0, 0)
    discard(folder)


def _read_labels(
    path: Path, plane: ImagePlane, known: KnownLabels, progress: Progress
) -> exchange.ReadLabels:
    progress("reading the file", 0, 0)
    return exchange.prepare_labels(read_labels(path), plane, known, progress)


def _read_pixels(plane: ImagePlane) -> npt.NDArray[np.uint8] | None:
    """Return what the journal wants to know of an image; None if that fails.

    Then the journal tells so when it tries by itself: imports need no pixels.
    """
    with suppress(NapariSacError, OSError):
        return plane.read()
    return None


def _read_layer(
    data: Any, plane: ImagePlane, known: KnownLabels, progress: Progress
) -> exchange.ReadLabels:
    progress("reading the layer", 0, 0)
    leading = data.shape[:-2]
    channels = plane.channel_axis
    # of a stack it is the plane that is looked at; all channels may share their labels
    shared = tuple(i for axis, i in enumerate(plane.index) if axis != channels)
    for place in (plane.index, shared):
        if len(place) == len(leading) and all(np.less(place, leading)):
            data = data[place]
            break
    return exchange.prepare_labels(np.array(data), plane, known, progress)


def _snapshot(annotation: Annotation, *, labels: bool) -> Annotation:
    """Return a copy that stays as it is while somebody goes on correcting.

    Without ``labels`` those are not copied, which takes long in a large image: they are
    written in place, and all else is replaced.
    """
    copied = copy(annotation)
    state = annotation.state
    if labels:
        copied.state = replace(state, labels=state.labels.copy())
    copied.masks = dict(annotation.masks)
    return copied


def _close(session: AnnotationSession) -> None:
    """Close the session; what nobody saved under a name is offered the next time."""
    with suppress(NapariSacError):
        session.close(clean=session.is_saved)
