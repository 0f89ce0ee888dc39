"""The session's journal: begun with the first change, and never in the way.

Where it cannot be written, the user is told once and the work goes on in memory.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from napari_sac.core.errors import (
    ImageFormatError,
    NapariSacError,
    OutputError,
    SessionError,
)
from napari_sac.core.io import holds_array
from napari_sac.core.session.changes import backward
from napari_sac.core.session.database import writing
from napari_sac.core.session.folder import (
    give_up,
    is_same,
    let_go,
    move,
    save_as,
    session_path,
)
from napari_sac.core.session.history import History
from napari_sac.core.session.image import MAX_TEXT, ImageReference, hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.layout import SUFFIX
from napari_sac.core.session.recovery import discard_old, new_session_folder
from napari_sac.viewer.planes import AS_READ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from napari.layers import Image

    from napari_sac.core.session.history import Step
    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.core.session.state import AnnotationState
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.planes import ImagePlane

MAX_KEPT_PIXELS = 64_000_000
"""Largest plane of an image without a file that is copied into the session."""

_BRIEF_SECONDS = 0.1
_PIECES = 2
"""Chunks that are written between two looks at the clock; some milliseconds each."""


class SessionJournal:
    """Writes each step to a session folder.

    Parameters
    ----------
    failed : callable
        Given a sentence, once, when the journal cannot be written.

    Attributes
    ----------
    exchanged : set of Image
        Layers that show other pixels than their files have.
    failure : str
        What could not be written and was not since, as a sentence; empty if nothing.
    """

    def __init__(self, failed: Callable[[str], Any]) -> None:
        self._failed = failed
        self._journal: Journal | None = None
        self._numbers: dict[int, int] = {}
        self._pixels: dict[int, npt.NDArray[np.uint8]] = {}
        self._references: dict[int, ImageReference] = {}
        self.failure = ""
        self._told = False
        self._broken = False
        self._unwritten: set[int] = set()
        self._changed: set[int] = set()
        self._noted: WeakKeyDictionary[Journal, dict[str, Any]] = WeakKeyDictionary()
        self.exchanged: WeakSet[Image] = WeakSet()

    @property
    def folder(self) -> Path | None:
        """The session folder, or None where there is none yet."""
        return None if self._journal is None else self._journal.folder

    @property
    def read_only(self) -> bool:
        """Whether another viewer has the session, or nobody may write to it."""
        return self._journal is not None and self._journal.read_only

    @property
    def read_only_reason(self) -> str:
        """Why nothing is written, as a sentence; empty if it is."""
        reason = None if self._journal is None else self._journal.read_only_reason
        return reason or ""

    def know_pixels(
        self, annotation: Annotation, pixels: npt.NDArray[np.uint8]
    ) -> None:
        """Be told the pixels (H, W, 3) of an annotation's image, to not read them."""
        known = self._numbers.keys() - self._changed
        if annotation.number not in known:
            self._pixels[annotation.number] = pixels

    def reference(self, annotation: Annotation) -> ImageReference | None:
        """Return how to find an annotation's image; None if that was never written."""
        return self._references.get(annotation.number)

    def image_changed(self, annotation: Annotation) -> None:
        """Be told that an annotation is about other pixels at the same place."""
        if annotation.number in self._numbers:
            self._changed.add(annotation.number)

    def begin(self, annotation: Annotation) -> None:
        """Write where the steps of an annotation begin, if that was not done yet."""
        if annotation.number in self._changed:
            self._try(lambda: self._change_image(annotation))
        known = self._numbers.keys() | self._unwritten
        if annotation.number in known or self.read_only or self._broken:
            return
        try:
            if self._journal is None:
                _discard_old()
                self._journal = Journal.create(new_session_folder())
            self._add(self._journal, annotation, annotation.state)
        except (NapariSacError, OSError) as error:
            # without a beginning there is nothing that steps could be added to
            self._unwritten.add(annotation.number)
            self._tell(error)

    def push(self, step: Step, annotation: Annotation) -> None:
        """Write a step that was just done."""
        number = self._numbers.get(annotation.number)
        journal = self._writable()
        if journal is not None and number is not None:
            self._try(lambda: journal.push(replace(step, annotation=number)))

    def amend(self, step: int, annotation: Annotation, pixels: PixelChange) -> None:
        """Write pixels that joined a step."""
        number = self._numbers.get(annotation.number)
        journal = self._writable()
        if journal is not None and number is not None:
            self._try(lambda: journal.amend(step, number, pixels))

    def undo(self, step: Step) -> None:
        """Write that a step was undone."""
        journal = self._writable()
        if journal is not None and step.annotation in self._numbers:
            self._try(lambda: journal.undo(step.number))

    def redo(self, step: Step) -> None:
        """Write that a step was done again."""
        journal = self._writable()
        if journal is not None and step.annotation in self._numbers:
            self._try(lambda: journal.redo(step.number))

    def flush(
        self, annotations: Iterable[Annotation], chunks: int | None = None
    ) -> int:
        """Write chunks of labels that changed; return how many are left."""
        journal = self._writable()
        if journal is None:
            return 0
        self._try(lambda: self._flush(journal, annotations, chunks))
        return journal.unflushed

    def flush_briefly(self, annotations: Iterable[Annotation]) -> None:
        """Write what changed for as long as a window may wait; the log has the rest."""
        journal = self._writable()
        if journal is not None:
            self._try(lambda: self._flush_briefly(journal, list(annotations)))

    def close(self, annotations: Iterable[Annotation], *, clean: bool) -> None:
        """End the journal; ``clean`` says that there is nothing to restore."""
        self.flush_briefly(annotations)
        journal, self._journal = self._journal, None
        self._numbers = {}
        self._changed.clear()
        broken, self._broken = self._broken, False
        if journal is not None:
            self._try(lambda: journal.close(clean=clean and not broken))

    def forget(self) -> None:
        """Know nothing of annotations any more, whose numbers others will get."""
        self._references = {}
        self._pixels.clear()
        self._unwritten.clear()
        self.failure = ""

    def save_as(
        self, folder: str | Path, annotations: Iterable[Annotation], history: History
    ) -> None:
        """Save the session into a folder, and go on there.

        Raises
        ------
        NapariSacError
            If it cannot be written, or the work cannot go on there; it goes on where it
            was.
        """
        annotations = list(annotations)
        old, target = self.whole, session_path(folder)
        # lines that wait for a disk with space can be written to another one
        if old is None or (old.unsaved and not self.is_at(target)):
            self._write_anew(target, annotations, history)
        else:
            labels = _labels(annotations, self._numbers)
            self._journal = save_as(old, folder, labels)
            self.failure = ""
        self._told = False

    @property
    def whole(self) -> Journal | None:
        """The journal, if it has every step; some may wait for space on the disk."""
        return None if self._unwritten else self._writable()

    def is_at(self, folder: Path) -> bool:
        """Return whether a folder, with or without ``.sac``, is the session's own."""
        return self.folder is not None and is_same(session_path(folder), self.folder)

    def go_on_in(self, copy: Journal, source: Journal) -> None:
        """Go on in a copy, with what was written to its source meanwhile.

        Raises
        ------
        OutputError
            If that cannot be; the copy is given up, and the work goes on where it was.
        """
        if self.whole is not source:
            # closed with its window, or a step could not be written
            raise OutputError(
                "The session could not be written to while it was copied. "
                f"{give_up(copy)} Nothing is lost as long as napari stays open; save "
                "it under that name again, which writes all of it."
            )
        move(source, copy)
        self._journal = copy
        self.failure = ""
        self._told = False

    def take(self, journal: Journal, images: Mapping[int, ImageReference]) -> None:
        """Go on with a journal that was opened, given the images that it is about."""
        self._journal = journal
        self.failure = ""
        self._numbers = {number: number for number in images}
        self._references = dict(images)

    def _write_anew(
        self, target: Path, annotations: list[Annotation], history: History
    ) -> None:
        """Write everything since the beginning, as if the journal had always been."""
        before = self._numbers
        # not where unnamed sessions are: it may be there that nothing can be written
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = TemporaryDirectory(
                dir=target.parent, prefix=".", ignore_cleanup_errors=True
            )
        with scratch:
            try:
                write = partial(self._draft, Path(scratch.name), target, annotations)
                try:
                    draft = write(history)
                except ValueError:
                    # a step that is too large; what it led to is not
                    draft = write(History())
                labels = _labels(annotations, self._numbers)
                with _closed_on_failure(draft):
                    journal = save_as(draft, target, labels)
            except NapariSacError:
                self._numbers = before
                raise
            except ValueError as error:
                self._numbers = before
                raise OutputError(
                    f"{target} cannot be written ({error}). Nothing is lost as long as "
                    "napari stays open; export the labels and the prompts."
                ) from error
        old, self._journal = self._journal, journal
        missing = [a for a in annotations if a.number not in self._numbers]
        self._unwritten = {a.number for a in missing}
        self.failure = _describe_missing(missing, target)
        self._broken = False
        if old is not None:
            self._try(lambda: let_go(old))

    def _draft(
        self,
        folder: Path,
        target: Path,
        annotations: list[Annotation],
        history: History,
    ) -> Journal:
        """Write a new journal into a folder that is deleted soon, beside its target."""
        beginnings = {a.number: _copy(a.state) for a in annotations}
        for step in reversed(history.done):
            known = beginnings[step.annotation]
            beginnings[step.annotation] = backward(known, step.change)
        self._numbers, numbers = {}, self._numbers
        journal = Journal.create(folder / f"{len(list(folder.iterdir()))}{SUFFIX}")
        with _closed_on_failure(journal):
            if journal.read_only:
                # its own name says nothing to anyone, and it is deleted soon
                reason = str(journal.read_only_reason)
                raise OutputError(
                    "The work cannot go on there: "
                    f"{reason.replace(str(journal.folder), str(target))} Nothing was "
                    "written, and it goes on as it was; save it on another drive."
                )
            problems: list[ImageFormatError] = []
            for annotation in annotations:
                beginning = beginnings[annotation.number]
                kept = self._kept_pixels(annotation, numbers)
                try:
                    self._add(journal, annotation, beginning, kept)
                except ImageFormatError as error:
                    # the others are saved all the same
                    problems.append(error)
            if problems and not self._numbers:
                raise problems[0]
            done = [s for s in history.done if s.annotation in self._numbers]
            again = [s for s in history.undone if s.annotation in self._numbers]
            for step in (*done, *again):
                number = self._numbers[step.annotation]
                journal.push(replace(step, annotation=number))
            for step in reversed(again):
                journal.undo(step.number)
            self._flush(journal, annotations)
        return journal

    def _kept_pixels(
        self, annotation: Annotation, numbers: Mapping[int, int]
    ) -> npt.NDArray[np.uint8] | None:
        """Return what the journal there was keeps of an image that nobody shows."""
        number, reference = numbers.get(annotation.number), None
        if annotation.plane is None:
            reference = self._references.get(annotation.number)
        if self._journal is None or number is None or reference is None:
            return None
        if not reference.kept:
            return None
        with suppress(SessionError):
            return self._journal.find_image(number, reference)[0]
        return None

    def _refer(
        self, annotation: Annotation
    ) -> tuple[ImageReference | None, npt.NDArray[np.uint8] | None]:
        """Return how to find the image, and its pixels if they must be kept."""
        plane = annotation.plane
        if plane is None:
            return self._references.get(annotation.number), None
        pixels = self._pixels.get(annotation.number)
        if pixels is None:
            try:
                pixels = plane.read()
            except OSError as error:
                raise ImageFormatError(
                    f"The image {plane.layer.name} cannot be read ({error})."
                ) from error
        own = plane.layer in self.exchanged
        known = self._references.get(annotation.number)
        if known is not None and plane.layer.metadata.get(AS_READ) and not own:
            # the layer has no file of its own: it shows what the session knew, and
            # another stain of that is not what the file would give
            reference = replace(
                known, stain=plane.stain or known.stain, sha256=hash_pixels(pixels)
            )
            self._references[annotation.number] = reference
            same = reference.sha256 == known.sha256 and not known.kept
            return reference, None if same else pixels
        reference, keep = refer_to(plane, pixels, own=own)
        self._references[annotation.number] = reference
        return reference, pixels if keep else None

    def _change_image(self, annotation: Annotation) -> None:
        """Write which pixels an annotation is about now."""
        journal, number = self._writable(), self._numbers.get(annotation.number)
        if journal is None or number is None:
            return
        try:
            reference, pixels = self._refer(annotation)
        except NapariSacError as error:
            raise OutputError(str(error)) from error
        if reference is not None:
            journal.set_image(number, reference, pixels)
            kept = replace(reference, kept=pixels is not None)
            self._references[annotation.number] = kept
        self._changed.discard(annotation.number)
        self._pixels.pop(annotation.number, None)

    def _add(
        self,
        journal: Journal,
        annotation: Annotation,
        state: AnnotationState,
        kept: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        reference, pixels = self._refer(annotation)
        if reference is None:
            return
        if pixels is None:
            pixels = kept
        number = journal.add_annotation(replace(reference, kept=False), state, pixels)
        self._references[annotation.number] = replace(
            reference, kept=pixels is not None
        )
        self._pixels.pop(annotation.number, None)
        self._numbers[annotation.number] = number
        self._note(journal, f"view-{number}", _view(annotation))

    def _note(self, journal: Journal, name: str, value: dict[str, Any]) -> None:
        """Write a value beside the log, if it is another one than was written last."""
        noted = self._noted.setdefault(journal, {})
        if noted.get(name) != value:
            journal.set_info(name, value)
            noted[name] = value

    def _flush(
        self,
        journal: Journal,
        annotations: Iterable[Annotation],
        chunks: int | None = None,
    ) -> None:
        annotations = list(annotations)
        if not journal.flush(_labels(annotations, self._numbers), chunks=chunks):
            self._note_work(journal, annotations)

    def _flush_briefly(self, journal: Journal, annotations: list[Annotation]) -> None:
        labels = _labels(annotations, self._numbers)
        until = time.monotonic() + _BRIEF_SECONDS
        while journal.flush(labels, chunks=_PIECES) and time.monotonic() < until:
            pass
        self._note_work(journal, annotations)

    def _note_work(self, journal: Journal, annotations: Iterable[Annotation]) -> None:
        """Write how the images were worked on and looked at."""
        for annotation in annotations:
            number = self._numbers.get(annotation.number)
            if number is not None:
                seconds = {k: round(v, 4) for k, v in annotation.seconds.items()}
                work: dict[str, Any] = {
                    "seconds": seconds,
                    "clicks": annotation.steps,
                    "worked": round(annotation.worked, 1),
                    "outlined": annotation.outlined,
                    "segmented": annotation.segmented,
                    "segmented_by": dict(annotation.segmented_by),
                }
                if not annotation.is_shown:
                    last = max(annotation.number, annotation.deleted_at)
                    known = self._numbers.items()
                    work["deleted"] = max(n for k, n in known if k <= last)
                self._note(journal, f"work-{number}", work)
                # where the image is away, nobody knows better how it lay
                if annotation.geometry:
                    self._note(journal, f"view-{number}", _view(annotation))

    def _writable(self) -> Journal | None:
        return None if self.read_only or self._broken else self._journal

    def _try(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except OutputError as error:
            self._tell(error)
        except ValueError as error:
            # the next lines would not follow from those that are there
            self._broken = True
            self._tell(
                OutputError(
                    f"This step cannot be written to the session ({error}). Save the "
                    "session under a name to write it all."
                )
            )
        else:
            # what failed is written with what comes next
            self._told = False
            if not (self._unwritten or self._broken):
                self.failure = ""

    def _tell(self, error: Exception) -> None:
        self.failure = (
            f"{error} Until then nothing is lost as long as napari stays open."
        )
        if not self._told:
            self._told = True
            self._failed(self.failure)


def refer_to(
    plane: ImagePlane, pixels: npt.NDArray[np.uint8], *, own: bool = False
) -> tuple[ImageReference, bool]:
    """Return how to find a plane again, and whether to keep its pixels in the session.

    Parameters
    ----------
    plane : ImagePlane
    pixels : (H, W, 3) uint8
        As ``plane.read()`` returns them.
    own : bool
        Whether they are not those of the file that the layer came from.
    """
    path = None if own else getattr(plane.layer.source, "path", None)
    readable = path is not None and holds_array(path, plane.data)
    # a session with a longer one would not open
    reference = ImageReference(
        path=None if path is None else str(Path(path).absolute())[:MAX_TEXT],
        name=str(plane.layer.name)[:MAX_TEXT],
        sha256=hash_pixels(pixels),
        shape=plane.shape,
        index=plane.index,
        channel_axis=plane.channel_axis if plane.channels else None,
        channels=plane.channels,
        stain=plane.stain,
    )
    small = plane.shape[0] * plane.shape[1] <= MAX_KEPT_PIXELS
    return reference, small and not readable


def _describe_missing(missing: Sequence[Annotation], target: Path) -> str:
    """Return that some nuclei were not saved with the others; empty if all were."""
    if not missing:
        return ""
    return (
        f"{target} lacks the nuclei of {', '.join(a.name for a in missing)}: the image "
        "cannot be read. All else is in it. Export those nuclei; nothing is lost as "
        "long as napari stays open."
    )


@contextmanager
def _closed_on_failure(journal: Journal) -> Iterator[None]:
    try:
        yield
    except (NapariSacError, ValueError):
        with suppress(NapariSacError):
            journal.close(clean=True)
        raise


def _discard_old() -> None:
    """Delete sessions of earlier days that were never saved."""
    with suppress(NapariSacError, OSError):
        discard_old()


def _labels(
    annotations: Iterable[Annotation], numbers: dict[int, int]
) -> dict[int, npt.NDArray[np.uint32]]:
    return {
        numbers[a.number]: a.state.labels for a in annotations if a.number in numbers
    }


def _copy(state: AnnotationState) -> AnnotationState:
    return replace(state, labels=state.labels.copy())


def _view(annotation: Annotation) -> dict[str, Any]:
    """Return how the layers lie in the world, as values of JSON."""
    geometry = annotation.geometry
    return {
        "name": annotation.name,
        "scale": [float(v) for v in geometry.get("scale", (1, 1))],
        "translate": [float(v) for v in geometry.get("translate", (0, 0))],
        "units": [str(v) for v in geometry.get("units", ("pixel", "pixel"))],
    }
