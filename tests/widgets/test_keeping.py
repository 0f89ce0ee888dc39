"""Sessions, imports and exports by the dock, on a viewer without a window."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from annotating import add_nuclei, import_labels
from hands import choose_image
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QWidget

from napari_sac.core.errors import Cancelled, ImageFormatError, OutputError
from napari_sac.core.io import read_labels, read_prompts, write_labels
from napari_sac.core.session.database import is_busy
from napari_sac.core.session.folder import copy_session
from napari_sac.core.session.image import ImageReference
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.recovery import find_unclosed, new_session_folder
from napari_sac.core.session.state import AnnotationState
from napari_sac.core.types import Prompts
from napari_sac.viewer import exchange
from napari_sac.viewer.planes import ImagePlane
from napari_sac.widgets import _keeping
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._keeping import EXPORTS, IMPORTS, FileKind
from napari_sac.widgets._wording import SAVING_STOPPED
from napari_sac.widgets.segment_widget import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from napari.layers import Layer
    from pytestqt.qtbot import QtBot
    from synthetic import Nuclei

    from napari_sac.core.progress import Progress
    from napari_sac.core.session.journal import Restored
    from napari_sac.viewer.annotation import Annotation


@pytest.fixture
def second(qtbot: QtBot) -> Iterator[SegmentWidget]:
    """A dock in another window, opened later."""
    made: list[SegmentWidget] = []

    def close() -> None:
        for widget in made:
            widget.leave()
            widget.session.close(clean=True)

    widget = SegmentWidget(ViewerModel())
    qtbot.addWidget(widget)
    made.append(widget)
    yield widget
    close()


def wait(qtbot: QtBot, dock: SegmentWidget) -> None:
    qtbot.waitUntil(lambda: not dock.worker.busy, timeout=60_000)


def save_and_close(qtbot: QtBot, dock: SegmentWidget, folder: Path) -> None:
    dock.keeping.save_as(folder)
    wait(qtbot, dock)
    dock.session.close(clean=True)


def open_session(qtbot: QtBot, dock: SegmentWidget, folder: Path) -> None:
    dock.keeping.open_session(folder)
    wait(qtbot, dock)


def test_a_saved_session_opens_in_another_window(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
) -> None:
    assert not dock.session.is_saved
    dock.keeping.save_as(tmp_path / "field")
    wait(qtbot, dock)
    assert dock.session.is_saved
    assert "field.sac" in dock.keep.place.text()
    dock.session.reject(annotated, np.array([0]))
    dock.session.close(clean=True)
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    np.testing.assert_array_equal(opened.state.labels, annotated.state.labels)
    assert opened.prompts.state[0] == "rejected"
    assert second.correct.undo.text() == "Undo reject 1 nucleus"
    assert opened.steps == annotated.steps > 0
    assert f", {opened.steps} steps" in second.review.effort.text()
    # the one that was rejected is none
    assert "11 nuclei" in second.status.message.text()


def show_stack(
    dock: SegmentWidget,
    viewer: ViewerModel,
    folder: Path,
    planes: list[npt.NDArray[np.uint8]],
) -> Path:
    """Write a stack, open it, and choose it in the dock."""
    file = folder / "stack.tif"
    tifffile.imwrite(file, np.stack(planes), photometric="minisblack")
    (layer,) = viewer.open(file, plugin="napari")
    choose_image(dock.images, layer)
    return file


def test_a_session_opens_in_the_viewer_that_napari_hands_out(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation, tmp_path: Path
) -> None:
    save_and_close(qtbot, dock, tmp_path / "field")
    viewer = ViewerModel()
    # what comes out of it is wrapped too
    second = SegmentWidget(PublicOnlyProxy(viewer))
    qtbot.addWidget(second)
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    assert second.session.find(second.images.plane()) is opened
    assert second.segment_button.isEnabled()
    viewer.layers.remove(opened.plane.layer)
    assert opened.plane is None
    second.leave()
    second.session.close(clean=True)


def test_what_is_found_on_a_plane_is_shown_on_that_plane(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    grey = nuclei.image[..., 0]
    file = show_stack(dock, viewer, tmp_path, [grey] * 5)
    viewer.dims.set_current_step(0, 3)
    dock.diameter.setValue(20)
    dock.find_button.click()
    viewer.dims.set_current_step(0, 1)
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    assert annotation.plane.index == (3,)
    assert not annotation.points.visible
    save_and_close(qtbot, dock, tmp_path / "field")
    other = second.session.viewer
    other.open(file, plugin="napari")
    other.dims.set_current_step(0, 0)
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    assert second.images.plane().index == (3,)
    assert second.session.find(second.images.plane()) is opened
    assert opened.points.visible


def test_a_stack_that_is_opened_after_its_session_takes_the_place_of_its_planes(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    grey = nuclei.image[..., 0]
    file = show_stack(dock, viewer, tmp_path, [grey, grey[::-1], grey])
    for plane in range(3):
        viewer.dims.set_current_step(0, plane)
        import_labels(dock.session, dock.images.plane(), nuclei.labels)
    save_and_close(qtbot, dock, tmp_path / "field")
    open_session(qtbot, second, tmp_path / "field.sac")
    other = second.session.viewer
    assert len(other.layers) == 9
    (layer,) = other.open(file, plugin="napari")
    opened = second.session.annotations
    assert {a.plane.layer for a in opened} == {layer}
    assert len(other.layers) == 7
    assert second.images.layer() is layer
    assert second.images.image.count() == 1
    assert not second.images.image.signalsBlocked()
    assert "is here again" in second.status.message.text()
    for plane in range(3):
        other.dims.set_current_step(0, plane)
        assert second.session.find(second.images.plane()).points.visible
        assert second.segment_button.isEnabled()


@pytest.mark.parametrize("job", ["find", "segment", "import"])
def test_what_is_made_while_the_stack_is_opened_belongs_to_its_plane(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
    job: str,
) -> None:
    grey = nuclei.image[..., 0]
    file = show_stack(dock, viewer, tmp_path, [grey[::-1], grey])
    viewer.dims.set_current_step(0, 1)
    import_labels(dock.session, dock.images.plane(), nuclei.labels)
    save_and_close(qtbot, dock, tmp_path / "field")
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    stand_in = opened.plane.layer
    steps = len(second.session.history.done)
    if job == "find":
        second.find_button.click()
    elif job == "segment":
        second.segment_button.click()
    else:
        write_labels(tmp_path / "labels.tif", nuclei.labels[::-1].copy())
        kind = next(k for k in IMPORTS if k.name == "labels")
        second.keeping.bring(kind, opened.plane, tmp_path / "labels.tif")
    assert second.worker.busy
    (layer,) = second.session.viewer.open(file, plugin="napari")
    assert stand_in not in second.session.viewer.layers
    wait(qtbot, second)
    assert second.session.annotations == [opened]
    assert opened.plane.layer is layer
    assert opened.plane.index == (1,)
    assert len(second.session.history.done) == steps + 1


def test_an_opened_session_is_shown_as_it_was_looked_at(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    grey = nuclei.image[..., 0]
    file = show_stack(dock, viewer, tmp_path, [0 * grey, grey, 0 * grey])
    dock.images.first.setCurrentText("1")
    import_labels(dock.session, dock.images.plane(), nuclei.labels)
    save_and_close(qtbot, dock, tmp_path / "field")
    other = second.session.viewer
    other.open(file, plugin="napari")
    other.add_image(nuclei.image, rgb=True)
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    assert second.images.layer() is opened.plane.layer is other.layers["stack"]
    assert second.images.first.currentText() == "1"
    assert second.images.plane().channels == (1,)
    assert "12 points" in second.count.text()
    assert not second.images.isVisibleTo(second.choices)
    later = SegmentWidget(other)
    qtbot.addWidget(later)
    assert later.images.plane().channels == ()
    choose_image(later.images, other.layers["stack"])
    assert later.images.plane().channels == (1,)
    later.leave()


def test_a_session_that_is_open_elsewhere_is_read_only(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
) -> None:
    dock.keeping.save_as(tmp_path / "field.sac")
    wait(qtbot, dock)
    open_session(qtbot, second, tmp_path / "field.sac")
    assert second.session.read_only
    assert not second.keep.notice.isHidden()
    assert "Read only" in second.keep.notice.text()
    assert not second.keep.save.isEnabled()
    assert second.keep.save_as.isEnabled()
    assert dock.keep.notice.isHidden()


def test_a_session_is_read_beside_the_window(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_and_close(qtbot, dock, tmp_path / "field.sac")
    threads = []
    restore = Journal.restore

    def note(journal: Journal) -> Restored:
        threads.append(threading.current_thread())
        return restore(journal)

    monkeypatch.setattr(Journal, "restore", note)
    # as when it is dropped into the window
    second.session.open_requested.emit(tmp_path / "field.sac")
    assert second.worker.busy
    assert second.session.annotations == []
    wait(qtbot, second)
    assert threads
    assert threading.main_thread() not in threads
    (opened,) = second.session.annotations
    second.session.reject(opened, np.array([1]))
    assert second.correct.undo.text() == "Undo reject 1 nucleus"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Set when a session begins to be copied, and to be set to let that go on."""
    begun, go_on = threading.Event(), threading.Event()
    copy = Journal.copy_to

    def copy_later(journal: Journal, folder: Path, progress: Progress) -> None:
        begun.set()
        # not in the window's own thread, which would wait for itself
        assert go_on.wait(30)
        copy(journal, folder, progress)

    monkeypatch.setattr(Journal, "copy_to", copy_later)
    return begun, go_on


def test_a_session_is_copied_beside_the_window_and_misses_nothing_done_meanwhile(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    held: tuple[threading.Event, threading.Event],
    tmp_path: Path,
) -> None:
    begun, go_on = held
    session, unnamed = dock.session, dock.session.journal.folder
    dock.keeping.save_as(tmp_path / "mine")
    assert dock.worker.busy
    assert not dock.status.cancel.isHidden()
    assert begun.wait(30)
    session.reject(annotated, np.array([1]))
    assert session.journal.folder == unnamed
    go_on.set()
    wait(qtbot, dock)
    assert session.journal.folder == tmp_path / "mine.sac"
    assert dock.status.sentence == "Every step is kept in mine.sac."
    assert not unnamed.exists()
    session.accept(annotated, np.array([2]))
    # as a kill would leave it
    session.journal._journal.close(clean=False)
    session.journal._journal = None
    restored = exchange.read_session(tmp_path / "mine.sac").journal.restore()
    titles = [step.change.title for step in restored.history.done]
    assert titles[-2:] == ["reject 1 nucleus", "accept 1 nucleus"]
    assert (restored.states[1].labels == annotated.state.labels).all()


def test_masks_do_not_wait_for_a_copy_and_no_pieces_are_written_meanwhile(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    held: tuple[threading.Event, threading.Event],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = held
    pieces: list[bool] = []
    flush = dock.session.flush

    def note(chunks: int | None = None) -> int:
        pieces.append(dock.worker.title == "Saving the session")
        return flush(chunks)

    monkeypatch.setattr(dock.session, "flush", note)
    dock.keeping.save_as(tmp_path / "mine")
    assert begun.wait(30)
    (new,) = add_nuclei(annotated, np.array([[80.0, 100.0]]))
    qtbot.waitUntil(lambda: new in annotated.state.labels, timeout=60_000)
    dock.keeping._flush_timer.timeout.emit()
    assert pieces == []
    assert dock.worker.busy
    go_on.set()
    wait(qtbot, dock)
    assert dock.session.journal.folder == tmp_path / "mine.sac"
    assert pieces
    assert not any(pieces)


def test_only_what_nobody_had_saved_is_tidied_up_and_not_before_success_is_told(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def refuse(folder: Path) -> None:
        told.append(dock.status.sentence)
        raise OutputError("It is open in a viewer.")

    monkeypatch.setattr(_keeping, "discard", refuse)
    say, said = dock.status.say, []
    monkeypatch.setattr(dock.status, "say", lambda text: (said.append(text), say(text)))
    dock.keeping.save_as(tmp_path / "mine")
    wait(qtbot, dock)
    assert "Every step is kept in mine.sac." in said
    assert len(told) == 1
    dock.keeping.save_as(tmp_path / "other")
    wait(qtbot, dock)
    assert dock.status.sentence == "Every step is kept in other.sac."
    assert len(told) == 1
    assert (tmp_path / "mine.sac").exists()


@pytest.mark.parametrize("in_place", [False, True], ids=["copying", "copied"])
def test_a_dock_that_is_closed_while_its_session_is_copied_says_that_it_is_not_saved(
    qtbot: QtBot,
    viewer: ViewerModel,
    nuclei: Nuclei,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_place: bool,
) -> None:
    begun, go_on, ended = (threading.Event() for _ in range(3))
    copy_to = _keeping.copy_session

    def copy_later(source: Journal, folder: Path, progress: Progress) -> Journal:
        try:
            copy = copy_to(source, folder, progress) if in_place else None
            begun.set()
            assert go_on.wait(30)
            return copy or copy_to(source, folder, progress)
        finally:
            ended.set()

    told: list[str] = []
    monkeypatch.setattr(_keeping, "copy_session", copy_later)
    monkeypatch.setattr(_keeping, "show_info", told.append)
    made = SegmentWidget(viewer)
    session = made.session
    annotation = import_labels(session, made.images.plane(), nuclei.labels)
    folder = session.journal.folder
    made.keeping.save_as(tmp_path / "mine")
    assert begun.wait(30)
    made.leave()
    assert told == [SAVING_STOPPED]
    made.deleteLater()
    qtbot.waitUntil(lambda: not is_alive(made))
    go_on.set()
    assert ended.wait(30)
    mine = tmp_path / "mine.sac"
    assert mine.exists() == in_place
    qtbot.waitUntil(lambda: not (in_place and is_busy(mine)))
    session.accept(annotation, np.array([1]))
    assert session.journal.folder == folder
    assert find_unclosed() == []
    session.close(clean=True)


def test_a_copy_that_a_closed_dock_is_given_is_closed(
    dock: SegmentWidget, annotated: Annotation, tmp_path: Path
) -> None:
    source = dock.session.journal.whole
    copy = copy_session(source, tmp_path / "mine")
    dock.leave()
    dock.keeping._go_on_in(source, copy)
    assert not is_busy(tmp_path / "mine.sac")
    assert dock.session.journal.whole is source
    assert find_unclosed() == []


def test_a_cancelled_copy_leaves_nothing_behind(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    held: tuple[threading.Event, threading.Event],
    tmp_path: Path,
) -> None:
    begun, go_on = held
    folder = dock.session.journal.folder
    dock.keeping.save_as(tmp_path / "mine")
    assert begun.wait(30)
    dock.status.cancel.click()
    go_on.set()
    wait(qtbot, dock)
    assert "was cancelled. Nothing was changed" in dock.status.sentence
    assert list(tmp_path.glob("*mine*")) == list(tmp_path.glob("*.part")) == []
    dock.session.reject(annotated, np.array([1]))
    assert dock.session.journal.folder == folder
    assert not dock.session.journal.failure


def test_a_copy_is_given_up_when_a_step_could_not_be_written_meanwhile(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    held: tuple[threading.Event, threading.Event],
    tmp_path: Path,
) -> None:
    begun, go_on = held
    folder = dock.session.journal.folder
    dock.keeping.save_as(tmp_path / "mine")
    assert begun.wait(30)
    dock.session.journal._broken = True
    go_on.set()
    wait(qtbot, dock)
    assert "save it under that name again" in dock.status.sentence
    assert "has the work as it was when it was copied" in dock.status.sentence
    assert not is_busy(tmp_path / "mine.sac")
    assert dock.session.journal.folder == folder
    dock.keeping.save_as(tmp_path / "mine")
    wait(qtbot, dock)
    assert dock.session.journal.folder == tmp_path / "mine.sac"


def test_a_copy_that_was_made_when_its_window_closed_is_not_kept_open(
    dock: SegmentWidget, annotated: Annotation, tmp_path: Path
) -> None:
    source = dock.session.journal.whole
    copy = copy_session(source, tmp_path / "mine")
    dock.session.close(clean=True)
    dock.keeping._go_on_in(source, copy)
    assert not is_busy(tmp_path / "mine.sac")
    assert find_unclosed() == []


def test_a_cancelled_opening_lets_go_of_the_session(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_and_close(qtbot, dock, tmp_path / "field.sac")
    cancelled, read = threading.Event(), exchange.read_session

    def read_slowly(
        folder: Path, shown: tuple[Layer, ...], progress: Progress
    ) -> exchange.ReadSession:
        def report(stage: str, done: int, total: int) -> None:
            # the session is open by then
            assert stage != "reading the images" or cancelled.wait(30)
            progress(stage, done, total)

        return read(folder, shown, report)

    monkeypatch.setattr(exchange, "read_session", read_slowly)
    second.keeping.open_session(tmp_path / "field.sac")
    second.worker.cancel()
    cancelled.set()
    wait(qtbot, second)
    assert second.session.annotations == []
    journal = Journal.open(tmp_path / "field.sac")
    assert not journal.read_only
    journal.close(clean=True)


def test_an_open_image_is_compared_beside_the_window(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grey = nuclei.image[..., 0]
    file = show_stack(dock, viewer, tmp_path, [grey, grey[::-1]])
    import_labels(dock.session, dock.images.plane(), nuclei.labels)
    save_and_close(qtbot, dock, tmp_path / "field.sac")
    (layer,) = second.session.viewer.open(file, plugin="napari")
    threads = []
    read = ImagePlane.read

    def note(plane: ImagePlane) -> npt.NDArray[np.uint8]:
        threads.append(threading.current_thread())
        return read(plane)

    monkeypatch.setattr(ImagePlane, "read", note)
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    assert opened.plane.layer is layer
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_an_open_image_with_other_pixels_is_told(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    grey = nuclei.image[..., 0]
    show_stack(dock, viewer, tmp_path, [grey, grey])
    import_labels(dock.session, dock.images.plane(), nuclei.labels)
    save_and_close(qtbot, dock, tmp_path / "field.sac")
    file = show_stack(second, second.session.viewer, tmp_path, [grey[::-1]] * 2)
    open_session(qtbot, second, tmp_path / "field.sac")
    (opened,) = second.session.annotations
    assert opened.plane is None
    assert f"{file} holds other pixels" in second.status.message.text()


def look_again(qtbot: QtBot, dock: SegmentWidget) -> None:
    """Wait for what the dock offers once the other window is gone."""
    dock.keeping.leave()
    dock.keeping.join()
    qtbot.waitUntil(lambda: not dock.keeping.bar.isHidden())


def test_what_was_not_closed_is_offered_and_restored(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation, second: SegmentWidget
) -> None:
    labels = annotated.state.labels.copy()
    qtbot.wait(10)
    assert second.keeping.bar.isHidden()
    # as when the window is closed without saving
    dock.session.close(clean=dock.session.is_saved)
    look_again(qtbot, second)
    assert "field" in second.keeping.bar.text.text()
    second.keeping.restore.click()
    wait(qtbot, second)
    (opened,) = second.session.annotations
    np.testing.assert_array_equal(opened.state.labels, labels)
    assert second.keeping.bar.isHidden()


def test_discarding_deletes_what_was_offered(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation, second: SegmentWidget
) -> None:
    folder = dock.session.journal.folder
    dock.session.close(clean=False)
    look_again(qtbot, second)
    second.keeping.bar.later.click()
    assert second.keeping.bar.isHidden()
    assert len(find_unclosed()) == 1
    look_again(qtbot, second)
    second.keeping.bar.discard.click()
    assert folder.exists()
    second.keeping.bar.discard.click()
    assert not folder.exists()
    assert second.keeping.bar.isHidden()


def test_later_shows_the_work_before(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation, second: SegmentWidget
) -> None:
    older = Journal.create(new_session_folder())
    image = ImageReference(path=None, name="older", sha256="0" * 64, shape=(4, 4))
    nothing = Prompts.empty()
    older.add_annotation(
        image, AnnotationState(nothing, nothing, np.zeros((4, 4), np.uint32))
    )
    older.close(clean=False)
    dock.session.reject(annotated, np.array([0]))
    dock.session.close(clean=False)
    look_again(qtbot, second)
    assert "field" in second.keeping.bar.text.text()
    second.keeping.bar.later.click()
    assert "older" in second.keeping.bar.text.text()
    second.keeping.bar.later.click()
    assert second.keeping.bar.isHidden()
    assert len(find_unclosed()) == 2


def test_an_export_says_what_is_not_in_it_yet(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation, tmp_path: Path
) -> None:
    kinds = {kind.name: kind for kind in EXPORTS}
    dock.session.live.hold(True)
    dock.keeping.export(kinds["tiff"], annotated, tmp_path / "a.tif")
    wait(qtbot, dock)
    assert dock.status.message.text() == f"Written to {tmp_path / 'a.tif'}."
    dock.session.reject(annotated, np.array([0]))
    add_nuclei(annotated, np.array([[5.0, 5.0]]))
    waiting = dock.session.live.waits_for(annotated)
    assert waiting >= 1
    dock.keeping.export(kinds["tiff"], annotated, tmp_path / "b.tif")
    wait(qtbot, dock)
    assert "no mask" in dock.status.message.text()
    assert "press Segment" in dock.status.message.text()
    dock.keeping.export(kinds["prompts"], annotated, tmp_path / "c.csv")
    wait(qtbot, dock)
    assert "no mask" not in dock.status.message.text()


def test_an_export_says_which_nuclei_have_no_mask(
    qtbot: QtBot, dock: SegmentWidget, nuclei: Nuclei, tmp_path: Path
) -> None:
    (kind,) = (kind for kind in EXPORTS if kind.name == "tiff")
    dock.find_button.click()
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    dock.keeping.export(kind, annotation, tmp_path / "a.tif")
    wait(qtbot, dock)
    assert dock.status.message.text() == (
        f"Written to {tmp_path / 'a.tif'}, but no nucleus is in it, for none has a "
        "mask: press Segment, and export again."
    )
    import_labels(dock.session, dock.images.plane(), nuclei.labels)
    state = annotation.state
    annotation.state = replace(
        state, labels=np.where(state.labels < 3, 0, state.labels)
    )
    dock.keeping.export(kind, annotation, tmp_path / "b.tif")
    wait(qtbot, dock)
    assert dock.status.message.text() == (
        f"Written to {tmp_path / 'b.tif'}. 2 of 12 nuclei have no mask and are not in "
        "it."
    )


@pytest.mark.parametrize("name", ["prompts", "tiff"])
def test_labels_are_copied_only_for_files_that_have_them(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    written: list[Annotation] = []
    monkeypatch.setitem(_keeping._EXPORTERS, name, lambda a, _: written.append(a))
    kind = next(kind for kind in EXPORTS if kind.name == name)
    dock.keeping.export(kind, annotated, tmp_path / "file")
    wait(qtbot, dock)
    (copied,) = written
    assert copied is not annotated
    assert (copied.state.labels is annotated.state.labels) is (name == "prompts")


def test_a_session_of_the_users_own_is_only_forgotten(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
) -> None:
    dock.keeping.save_as(tmp_path / "mine.sac")
    wait(qtbot, dock)
    dock.session.close(clean=False)
    look_again(qtbot, second)
    second.keeping.bar.discard.click()
    assert "mine.sac" in second.keeping.bar.text.text()
    assert "stays" in second.keeping.bar.text.text()
    second.keeping.bar.discard.click()
    assert (tmp_path / "mine.sac").exists()
    assert find_unclosed() == []


def test_a_journal_that_cannot_be_written_is_told(dock: SegmentWidget) -> None:
    dock.session.journal.failure = "The disk is full."
    dock.session.journal_failed.emit(dock.session.journal.failure)
    assert dock.keep.notice.text() == "The disk is full."
    assert not dock.keep.notice.isHidden()
    # what was not written is not said to be kept
    dock.keep.save_requested.emit()
    assert dock.status.message.text() == "The disk is full."


def test_every_export_can_be_written(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = annotated.state.labels.copy()
    for kind in EXPORTS:
        path = tmp_path / f"out{kind.ending}"
        monkeypatch.setattr(_keeping, "ask_save", lambda *_, p=path: p)
        dock.keep.export_requested.emit(kind.name)
        # what is done while it is written is not in it
        dock.session.reject(annotated, np.array([0]))
        wait(qtbot, dock)
        assert path.exists(), kind.name
        assert str(path) in dock.status.message.text()
        dock.session.undo()
    np.testing.assert_array_equal(read_labels(tmp_path / "out.tif"), labels)
    assert len(read_prompts(tmp_path / "out.csv")) == 12


@pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.name)
def test_an_export_is_not_called_like_the_image(
    dock: SegmentWidget,
    annotated: Annotation,
    kind: FileKind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(_keeping, "ask_save", lambda *given: asked.append(given[-1]))
    dock.keep.export_requested.emit(kind.name)
    assert asked == [
        {
            ".tif": "field_labels.tif",
            ".ome.zarr": "field_labels.ome.zarr",
            ".csv": "field_prompts.csv",
            ".geojson": "field.geojson",
        }[kind.ending]
    ]


def test_exports_of_two_planes_are_called_differently(
    dock: SegmentWidget,
    viewer: ViewerModel,
    nuclei: Nuclei,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    show_stack(dock, viewer, tmp_path, [nuclei.image[..., 0]] * 2)
    asked = []
    monkeypatch.setattr(_keeping, "ask_save", lambda *given: asked.append(given[-1]))
    for plane in (0, 1):
        viewer.dims.set_current_step(0, plane)
        import_labels(dock.session, dock.images.plane(), nuclei.labels)
        dock.keep.export_requested.emit("tiff")
    # the session has both
    dock.keep.save_as_requested.emit()
    assert asked == [
        "stack, plane 0_labels.tif",
        "stack, plane 1_labels.tif",
        "stack.sac",
    ]


def test_an_export_that_was_thought_better_of_writes_nothing(
    dock: SegmentWidget, annotated: Annotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_keeping, "ask_save", lambda *_: None)
    dock.keep.export_requested.emit("tiff")
    assert not dock.worker.busy


def choose(dock: SegmentWidget, name: str, path: Path | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_keeping, "ask_open", lambda *_: path)
        dock.keep.import_requested.emit(name)


def test_labels_of_a_file_become_nuclei(
    qtbot: QtBot, dock: SegmentWidget, nuclei: Nuclei, tmp_path: Path
) -> None:
    write_labels(tmp_path / "other.tif", nuclei.labels)
    choose(dock, "labels", tmp_path / "other.tif")
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    np.testing.assert_array_equal(annotation.labels.data, nuclei.labels)
    assert "12 nuclei" in dock.status.message.text()
    assert dock.correct.undo.text() == "Undo import labels"


def test_labels_that_take_reviewed_regions_away_say_so(
    qtbot: QtBot, dock: SegmentWidget, nuclei: Nuclei, tmp_path: Path
) -> None:
    write_labels(tmp_path / "other.tif", nuclei.labels)
    choose(dock, "labels", tmp_path / "other.tif")
    wait(qtbot, dock)
    assert "region" not in dock.status.message.text()
    (annotation,) = dock.session.annotations
    square = np.array([[10, 10], [10, 60], [60, 60], [60, 10]], float)
    dock.session.set_reviewed(annotation, (square,))
    choose(dock, "labels", tmp_path / "other.tif")
    wait(qtbot, dock)
    assert annotation.reviewed == ()
    assert "1 reviewed region went" in dock.status.message.text()


def test_labels_of_a_layer_become_nuclei(
    qtbot: QtBot, dock: SegmentWidget, viewer: ViewerModel, nuclei: Nuclei
) -> None:
    choose(dock, "layer", None)
    assert "Select one Labels layer" in dock.status.message.text()
    layer = viewer.add_labels(nuclei.labels, name="cellpose")
    viewer.layers.selection = {layer}
    choose(dock, "layer", None)
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    assert annotation.labels is not layer
    assert len(annotation.prompts) == 12


@pytest.mark.parametrize("several_levels", [False, True])
@pytest.mark.parametrize("channels", [0, 2])
def test_of_labels_of_a_stack_the_plane_that_is_shown_becomes_nuclei(
    qtbot: QtBot,
    dock: SegmentWidget,
    viewer: ViewerModel,
    nuclei: Nuclei,
    channels: int,
    several_levels: bool,
) -> None:
    image = np.stack([nuclei.image[..., 0]] * 5)
    if channels:
        image = np.stack([image] * channels)
    choose_image(dock.images, viewer.add_image(image))
    viewer.dims.set_current_step(viewer.dims.ndim - 3, 3)
    stack = np.zeros((5, 160, 200), int)
    stack[3] = nuclei.labels
    levels = [stack, stack[:, ::2, ::2]] if several_levels else stack
    layer = viewer.add_labels(levels, multiscale=several_levels)
    viewer.layers.selection = {layer}
    choose(dock, "layer", None)
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    np.testing.assert_array_equal(annotation.labels.data, nuclei.labels)


def test_labels_of_a_stack_that_is_too_short_are_refused(
    qtbot: QtBot, dock: SegmentWidget, viewer: ViewerModel, nuclei: Nuclei
) -> None:
    image = np.stack([nuclei.image[..., 0]] * 5)
    choose_image(dock.images, viewer.add_image(image))
    viewer.dims.set_current_step(0, 3)
    layer = viewer.add_labels(np.stack([nuclei.labels] * 2))
    viewer.layers.selection = {layer}
    choose(dock, "layer", None)
    wait(qtbot, dock)
    assert "2 x 160 x 200 pixels" in dock.status.message.text()
    assert not dock.session.annotations


def test_with_a_second_image_an_import_says_where_it_went(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    viewer: ViewerModel,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    path = tmp_path / "labels.tif"
    write_labels(path, nuclei.labels)
    viewer.add_image(nuclei.image, rgb=True, name="second")
    dock.images.image.setCurrentText("field")
    choose(dock, "labels", path)
    wait(qtbot, dock)
    assert "12 nuclei are in field now." in dock.status.message.text()
    viewer.layers.remove("second")
    choose(dock, "labels", path)
    wait(qtbot, dock)
    assert "12 nuclei are there now." in dock.status.message.text()


def test_labels_that_are_named_after_another_open_image_are_refused(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    viewer: ViewerModel,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    viewer.add_image(nuclei.image, rgb=True, name="second")
    dock.images.image.setCurrentText("field")
    before = annotated.prompts
    for name in ("second_labels.tif", "second.tif"):
        write_labels(tmp_path / name, nuclei.labels)
        choose(dock, "labels", tmp_path / name)
        wait(qtbot, dock)
        assert "named after the image second" in dock.status.message.text()
        assert annotated.prompts is before
    dock.images.image.setCurrentText("second")
    choose(dock, "labels", tmp_path / "second_labels.tif")
    wait(qtbot, dock)
    assert "12 nuclei are in second now." in dock.status.message.text()
    # open as an image itself
    viewer.open(tmp_path / "second.tif", plugin="napari")
    viewer.layers.remove(viewer.layers["second"])
    # named after none of them, and after this one too
    dock.images.image.setCurrentText("field")
    for name in ("mine.tif", "field_labels.tif", "second.tif"):
        write_labels(tmp_path / name, nuclei.labels)
        choose(dock, "labels", tmp_path / name)
        wait(qtbot, dock)
        assert "12 nuclei are in field now." in dock.status.message.text()


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_was_deleted_can_be_had_back_while_another_session_is_not_opened(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    own = dock.session.journal.folder
    dock.session.reject(annotated, np.array([0]))
    (tmp_path / "no.sac").mkdir()
    if end == "cancelled":
        monkeypatch.setattr(exchange, "read_session", raise_cancelled)
    for layer in (annotated.points, annotated.labels):
        dock.session.viewer.layers.remove(layer)
    assert dock.session.annotations == []
    open_session(qtbot, dock, tmp_path / "no.sac")
    assert dock.session.journal.folder == own
    assert dock.session.undo() == "reject 1 nucleus"
    assert dock.session.annotations == [annotated]
    # its own is left at once, for it is locked; if that fails, it is offered
    dock.session.viewer.layers.clear()
    assert dock.session.annotations == []
    monkeypatch.setattr(exchange, "read_session", raise_cancelled)
    open_session(qtbot, dock, own)
    assert dock.session.journal.folder is None
    assert not dock.keeping.bar.isHidden()


def raise_cancelled(*_: object) -> None:
    raise Cancelled


def test_labels_of_another_image_are_refused_in_words(
    qtbot: QtBot, dock: SegmentWidget, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "other.tif", np.ones((5, 5), np.uint16))
    choose(dock, "labels", tmp_path / "other.tif")
    wait(qtbot, dock)
    assert dock.session.annotations == []
    assert "5 x 5" in dock.status.message.text()


def test_points_of_a_table_become_nuclei(
    qtbot: QtBot, dock: SegmentWidget, tmp_path: Path
) -> None:
    (tmp_path / "points.csv").write_text("y,x\n20,30\n50,60.5\n")
    choose(dock, "points", tmp_path / "points.csv")
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    np.testing.assert_array_equal(annotation.prompts.yx, [[20, 30], [50, 60.5]])
    lane = dock.correcting.lane
    qtbot.waitUntil(
        lambda: not lane.busy and not dock.session.live.waiting, timeout=60_000
    )


def test_points_are_decoded_at_the_diameter_that_was_typed(
    qtbot: QtBot, dock: SegmentWidget, tmp_path: Path
) -> None:
    (tmp_path / "points.csv").write_text("y,x\n20,30\n50,60.5\n")
    dock.diameter.setValue(37)
    choose(dock, "points", tmp_path / "points.csv")
    wait(qtbot, dock)
    (annotation,) = dock.session.annotations
    assert annotation.diameter == 37
    lane = dock.correcting.lane
    qtbot.waitUntil(
        lambda: not lane.busy and not dock.session.live.waiting, timeout=60_000
    )


def test_a_session_that_nobody_waits_for_any_more_is_not_kept_locked(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
) -> None:
    save_and_close(qtbot, dock, tmp_path / "field")
    read = exchange.read_session(tmp_path / "field.sac")
    second.leave()
    second.keeping._show_opened(tmp_path / "field.sac", read)
    assert second.session.annotations == []
    journal = exchange.read_session(tmp_path / "field.sac").journal
    assert not journal.read_only
    journal.close(clean=True)


def test_outlines_keep_their_ids(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
) -> None:
    path = tmp_path / "out.geojson"
    kind = next(k for k in EXPORTS if k.name == "outlines")
    dock.keeping.export(kind, annotated, path)
    wait(qtbot, dock)
    second.session.viewer.add_image(nuclei.image, rgb=True, name="again")
    kind = next(k for k in IMPORTS if k.name == "outlines")
    second.keeping.bring(kind, second.images.plane(), path)
    wait(qtbot, second)
    (annotation,) = second.session.annotations
    np.testing.assert_array_equal(annotation.state.labels, nuclei.labels)


def test_a_session_is_closed_with_its_window_after_its_dock(
    qtbot: QtBot, viewer: ViewerModel, nuclei: Nuclei, tmp_path: Path
) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    holder = QDockWidget(window)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, holder)
    made = SegmentWidget(viewer)
    holder.setWidget(made)
    window.show()
    session = made.session
    import_labels(session, made.images.plane(), nuclei.labels)
    made.keeping.save_as(tmp_path / "x.sac")
    wait(qtbot, made)
    made.leave()
    holder.setWidget(QWidget())
    made.deleteLater()
    qtbot.waitUntil(lambda: not is_alive(made))
    window.removeDockWidget(holder)
    session.accept(session.annotations[0], np.arange(2))
    assert is_busy(tmp_path / "x.sac")
    window.close()
    qtbot.waitUntil(lambda: not is_busy(tmp_path / "x.sac"))
    assert find_unclosed() == []


def test_a_failure_is_forgotten_when_all_is_saved(
    qtbot: QtBot, dock: SegmentWidget, annotated: Annotation, tmp_path: Path
) -> None:
    dock.session.journal.failure = "The disk is full."
    dock.session.journal_failed.emit(dock.session.journal.failure)
    assert "full" in dock.keep.notice.text()
    dock.keeping.save_as(tmp_path / "x.sac")
    wait(qtbot, dock)
    assert dock.keep.notice.isHidden()


def test_an_opened_session_is_segmented_as_it_was(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    second: SegmentWidget,
    tmp_path: Path,
) -> None:
    settings = annotated.state.settings
    decode = replace(settings.decode, mode="semantic", overlap_threshold=0.7)
    after = replace(annotated.state, settings=replace(settings, decode=decode))
    dock.session.steps.record(annotated, "segment", after)
    save_and_close(qtbot, dock, tmp_path / "x.sac")
    open_session(qtbot, second, tmp_path / "x.sac")
    assert second.decode_form.config() == decode
    assert second.session.decode_config == decode


def test_labels_are_written_piece_by_piece_and_not_while_something_is_dragged(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[int | None] = []
    real = dock.session.flush

    def flush(chunks: int | None = None) -> int:
        pieces.append(chunks)
        return real(chunks) + (len(pieces) < 3)

    monkeypatch.setattr(dock.session, "flush", flush)
    button = Qt.MouseButton.LeftButton
    monkeypatch.setattr(QApplication, "mouseButtons", lambda: button)
    dock.keeping._flush_timer.timeout.emit()
    assert pieces == []
    button = Qt.MouseButton.NoButton
    qtbot.waitUntil(lambda: len(pieces) == 3)
    assert None not in pieces
    # a disk that is full is not asked again at once
    dock.session.journal.failure = "The disk is full."
    monkeypatch.setattr(dock.session, "flush", lambda *_: 5)
    dock.keeping._flush_timer.timeout.emit()
    assert not dock.keeping._rest_timer.isActive()


def test_save_writes_piece_by_piece_and_says_how_many_are_left(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock.keeping.save_as(tmp_path / "x.sac")
    wait(qtbot, dock)
    lefts = [4, 1, 0]
    pieces: list[int | None] = []

    def flush(chunks: int | None = None) -> int:
        pieces.append(chunks)
        return lefts[len(pieces) - 1]

    told: list[str] = []
    say = dock.status.say
    monkeypatch.setattr(dock.status, "say", lambda text: (told.append(text), say(text)))
    monkeypatch.setattr(dock.session, "flush", flush)
    dock.keep.save_requested.emit()
    qtbot.waitUntil(lambda: len(pieces) == 3)
    assert None not in pieces
    assert told == [
        "Saving: 4 pieces of the labels are left.",
        "Saving: 1 piece of the labels is left.",
        "Every step is kept in x.sac.",
    ]
    # what is written by itself later is not told
    pieces.clear()
    dock.keeping._flush_timer.timeout.emit()
    qtbot.waitUntil(lambda: len(pieces) == 3)
    assert len(told) == 3


def test_a_save_that_fails_on_the_way_is_told(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock.keeping.save_as(tmp_path / "x.sac")
    wait(qtbot, dock)
    lefts = iter([4])

    def flush(chunks: int | None = None) -> int:
        for left in lefts:
            return left
        raise OutputError("The disk is full.")

    monkeypatch.setattr(dock.session, "flush", flush)
    dock.keep.save_requested.emit()
    qtbot.waitUntil(lambda: "full" in dock.status.sentence)
    assert not dock.keeping._rest_timer.isActive()


def test_the_dock_turns_to_the_image_whose_nuclei_are_chosen(
    dock: SegmentWidget, annotated: Annotation, nuclei: Nuclei
) -> None:
    viewer = dock.session.viewer
    other = viewer.add_image(nuclei.image, rgb=True, name="other")
    choose_image(dock.images, other)
    assert dock.images.layer() is other
    viewer.layers.selection.active = annotated.points
    assert dock.images.layer() is annotated.plane.layer
    # not when layers come by themselves
    choose_image(dock.images, other)
    viewer.layers.remove(annotated.labels)
    dock.session.drawing.show_labels(annotated)
    assert dock.images.layer() is other


def test_a_dock_opened_again_shows_what_it_uses(dock: SegmentWidget) -> None:
    dock.correct.preview.setChecked(False)
    dock.session.decode_config = replace(dock.session.decode_config, mode="semantic")
    again = SegmentWidget(dock.session.viewer)
    try:
        assert again.session.preview.enabled == again.correct.preview.isChecked()
        assert again.decode_form.config() == again.session.decode_config
    finally:
        again.leave()


def bring_labels(
    qtbot: QtBot, dock: SegmentWidget, nuclei: Nuclei, folder: Path
) -> None:
    """Import a file of labels for the image that the dock shows."""
    path = folder / "labels.tif"
    write_labels(path, nuclei.labels.astype(np.uint32))
    kind = next(k for k in IMPORTS if k.name == "labels")
    dock.keeping.bring(kind, dock.images.plane(), path)
    wait(qtbot, dock)


def test_the_window_does_not_wait_for_the_pixels_of_an_image_with_imports(
    qtbot: QtBot,
    dock: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readers = []
    read = ImagePlane.read

    def note(plane: ImagePlane) -> npt.NDArray[np.uint8]:
        readers.append(threading.current_thread())
        return read(plane)

    monkeypatch.setattr(ImagePlane, "read", note)
    bring_labels(qtbot, dock, nuclei, tmp_path)
    (annotation,) = dock.session.annotations
    assert dock.session.journal.reference(annotation) is not None
    assert len(readers) == 1
    assert threading.main_thread() not in readers


def test_labels_are_imported_though_the_image_cannot_be_read(
    qtbot: QtBot,
    dock: SegmentWidget,
    nuclei: Nuclei,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: ImagePlane) -> None:
        raise ImageFormatError("The file is gone.")

    monkeypatch.setattr(ImagePlane, "read", fail)
    bring_labels(qtbot, dock, nuclei, tmp_path)
    (annotation,) = dock.session.annotations
    np.testing.assert_array_equal(annotation.state.labels, nuclei.labels)
    assert "The file is gone." in dock.session.journal.failure


def test_nuclei_without_an_image_are_corrected_and_exported(
    qtbot: QtBot,
    dock: SegmentWidget,
    annotated: Annotation,
    viewer: ViewerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = annotated.state.labels.copy()
    viewer.layers.remove("field")
    assert annotated.plane is None
    assert dock.keep.export.isEnabled()
    assert dock.correct.accept.isEnabled()
    assert "12 points" in dock.count.text()
    for button in (dock.find_button, dock.segment_button, dock.keep.bring):
        assert not button.isEnabled()
    annotated.points.selected_data = {0}
    dock.correct.accept.click()
    assert annotated.prompts.state[0] == "accepted"
    asked = []
    monkeypatch.setattr(
        _keeping, "ask_save", lambda *a: asked.append(a[-1]) or tmp_path / "a.tif"
    )
    dock.keep.export_requested.emit("tiff")
    wait(qtbot, dock)
    assert asked == ["field_labels.tif"]
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels)
