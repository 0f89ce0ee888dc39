"""What of a viewer's annotations, of sessions and of folders can be learned from.

Counting is quick enough for the window. Reading pixels is not: :func:`gather` runs in a
worker's thread, on copies that stay as they are while somebody goes on correcting.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.errors import OutputError, TrainingDataError
from napari_sac.core.models.adapter import INFO_FILE
from napari_sac.core.progress import count
from napari_sac.core.training.run_folder import REPORT, RUN
from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts
from napari_sac.viewer.planes import IMAGE_ORIGIN
from napari_sac.viewer.prompts import usable_ids
from napari_sac.viewer.regions import nuclei_inside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from napari.layers import Image

    from napari_sac.core.progress import Progress
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.types import FloatArray, IntArray
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.session import AnnotationSession

SCORES = {"f1": "F1", "pq": "PQ", "aji": "AJI", "dice": "Dice"}
"""Names of scores in a report, and for people."""

_MOST_CHARACTERS = 1 << 22

IMAGES, LABELS = "images", "labels"
"""Subfolders that are looked for in a folder of pairs."""


class Problem(StrEnum):
    """Why nothing can be learned from something."""

    NO_IMAGE = "no image"
    NOT_SEGMENTED = "not segmented"
    NOT_REVIEWED = "not reviewed"
    SEMANTIC = "semantic"


@dataclass(frozen=True)
class Counts:
    """What there is to learn from.

    Parameters
    ----------
    nuclei : int
        Reviewed nuclei that have a mask.
    rejected : int
        Proposals that were rejected: they are no nuclei.
    negatives : int
        Negative points that a person set for a reviewed nucleus.
    regions : int
        Regions in which everything was reviewed.
    images : int
    problem : Problem or None
        Why nothing can be learned from it, if so.
    """

    nuclei: int = 0
    rejected: int = 0
    negatives: int = 0
    regions: int = 0
    images: int = 1
    problem: Problem | None = None


@dataclass(frozen=True, eq=False)
class AnnotationCopy:
    """An annotation as it was when the button was pressed.

    Parameters
    ----------
    name : str
    plane : ImagePlane
        Whose pixels are not read yet.
    labels : (H, W) uint32
    prompts : Prompts
    regions : tuple of (N, 2) float
        What was reviewed, polygons in pixels.
    """

    name: str
    plane: ImagePlane
    labels: npt.NDArray[np.uint32]
    prompts: Prompts
    regions: tuple[FloatArray, ...]


@dataclass(frozen=True)
class SavedSession:
    """A session folder ``NAME.sac``."""

    folder: Path


@dataclass(frozen=True)
class PairFolders:
    """Images and their labels in two folders; all of them count as reviewed."""

    images: Path
    labels: Path


Source = AnnotationCopy | SavedSession | PairFolders


@dataclass(frozen=True)
class Score:
    """One score of both models on what was held out; ranges are 95 % confidence."""

    name: str
    before: float
    after: float
    before_range: tuple[float, float] | None
    after_range: tuple[float, float] | None
    gain_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """What ``report.json`` says.

    Parameters
    ----------
    promoted : bool
    reason : str
    model : str
    scores : tuple of Score
        Empty if nothing could be held out.
    gained, lost, nuclei : int
        Held-out nuclei that only the tuned, or only the base model found, and all.
    """

    promoted: bool
    reason: str
    model: str
    scores: tuple[Score, ...] = ()
    gained: int = 0
    lost: int = 0
    nuclei: int = 0

    @property
    def may_be_chance(self) -> bool:
        """Whether the gain in PQ is too small, or on too few nuclei, to tell."""
        gains = [s.gain_range for s in self.scores if s.name == SCORES["pq"]]
        return any(gain is not None and gain[0] <= 0 for gain in gains)


def count_reviewed(annotation: Annotation) -> Counts:
    """Return what can be learned from an annotation.

    A nucleus counts if a point of it lies on its mask: for thousands of nuclei that is
    told in milliseconds, where the labels would have to be gone through.
    """
    if annotation.plane is None:
        return Counts(images=0, problem=Problem.NO_IMAGE)
    prompts, state = annotation.prompts, annotation.state
    if state.settings.decode.mode == "semantic" and state.labels.any():
        return Counts(problem=Problem.SEMANTIC)
    masked = _masked_ids(prompts, state.labels)
    reviewed = _reviewed_ids(annotation) & masked
    negative = (prompts.sign == NEGATIVE) & prompts.placed
    negative &= np.isin(prompts.object_id, list(reviewed))
    counts = Counts(
        len(reviewed),
        _count_false(prompts, state.labels),
        int(negative.sum()),
        len(annotation.reviewed),
    )
    if prompts.usable.any() and not masked and not annotation.painted:
        # what lies in a region would be learned as background
        return Counts(problem=Problem.NOT_SEGMENTED)
    if counts.nuclei or counts.rejected or counts.regions:
        return counts
    problem = Problem.NOT_REVIEWED if masked else Problem.NOT_SEGMENTED
    return Counts(problem=problem)


def check_drawn(session: AnnotationSession, annotation: Annotation) -> None:
    """Raise where masks lag behind their points: the old ones would be learned.

    Raises
    ------
    TrainingDataError
    """
    lagging = len(session.live.lagging(annotation))
    if lagging:
        raise TrainingDataError(
            f"The masks of {count(lagging, 'nucleus', 'nuclei')} lag behind in "
            f"{annotation.name}, so what was there before would be learned. Wait a "
            "moment, or press Segment, and start again. Nothing was changed."
        )


def copy_annotation(annotation: Annotation) -> AnnotationCopy:
    """Return what is known now, for a thread to read.

    Raises
    ------
    TrainingDataError
        If its image was deleted.
    """
    if annotation.plane is None:
        raise TrainingDataError(
            f"The image of {annotation.name} was deleted, so nothing can be learned "
            "from it. Take it off the list, or open the image again."
        )
    state = annotation.state
    return AnnotationCopy(
        annotation.name,
        annotation.plane,
        state.labels.copy(),
        state.prompts,
        state.reviewed,
    )


def pair_folders(folder: Path) -> PairFolders | None:
    """Return the folders ``images`` and ``labels`` in a folder, None without them."""
    if (folder / IMAGES).is_dir() and (folder / LABELS).is_dir():
        return PairFolders(folder / IMAGES, folder / LABELS)
    return None


def count_saved(source: SavedSession | PairFolders, progress: Progress) -> Counts:
    """Return what can be learned from files, which are read for it.

    Raises
    ------
    NapariSacError
        If they cannot be read.
    """
    found = gather((source,), progress)
    nuclei = sum(one.count for one in found)
    rejected = sum(len(one.rejected) for one in found)
    problem = None if nuclei or rejected else Problem.NOT_REVIEWED
    return Counts(
        nuclei,
        rejected,
        sum(len(one.negatives) for one in found),
        images=len(found),
        problem=problem,
    )


def gather(sources: Sequence[Source], progress: Progress) -> tuple[ReviewedImage, ...]:
    """Return reviewed images of all sources, under names of their own.

    Raises
    ------
    NapariSacError
        If one of them cannot be read; ``Cancelled`` from ``progress``.
    """
    found: list[ReviewedImage] = []
    for i, source in enumerate(sources):
        progress("reading what was reviewed", i, len(sources))
        found += _read(source, progress)
    progress("reading what was reviewed", len(sources), len(sources))
    return _named_apart(found)


def read_verdict(folder: Path) -> Verdict:
    """Return what the report in the folder of a finished run says.

    Raises
    ------
    OutputError
        If there is no report, or it is damaged.
    """
    try:
        text = (folder / REPORT).read_text(encoding="utf-8")
        if len(text) > _MOST_CHARACTERS:
            raise ValueError("too long")
        values = json.loads(text)
        return Verdict(
            bool(values["promoted"]),
            str(values["reason"]),
            str(values["model"]),
            _scores(values),
            *(int(values[name]) for name in ("gained", "lost", "nuclei")),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(
            f"The report of {folder.name} cannot be read ({error}). The adapter is "
            "kept; you may choose it in the dock Segment nuclei, and compare it again."
        ) from error


def new_results(root: Path) -> tuple[Path, ...]:
    """Return folders with a finished run whose verdict nobody has been shown."""
    return tuple(
        sorted(
            report.parent
            for report in root.glob(f"*/{REPORT}")
            if (report.parent / INFO_FILE).exists()
            and (report.parent / RUN).is_dir()
            and not _seen(report.parent).exists()
        )
    )


def mark_seen(folder: Path) -> None:
    """Note that somebody was shown the verdict of a run."""
    # where it cannot be noted it is offered once more
    with suppress(OSError):
        _seen(folder).touch()


def _seen(folder: Path) -> Path:
    return folder / RUN / "seen"


def _scores(values: dict[str, Any]) -> tuple[Score, ...]:
    before, after = values["base"], values["tuned"]
    if before is None or after is None:
        return ()
    ranges = values["intervals"]

    def ends(which: str, name: str) -> tuple[float, float] | None:
        found = (ranges[which] or {}).get(name)
        return None if found is None else (float(found[0]), float(found[1]))

    return tuple(
        Score(
            title,
            float(before[name]),
            float(after[name]),
            ends("base", name),
            ends("tuned", name),
            ends("gain", name),
        )
        for name, title in SCORES.items()
    )


def _read(source: Source, progress: Progress) -> tuple[ReviewedImage, ...]:
    # imported late: they take long, which opening a dock need not
    from napari_sac.core.training.reviewed_image import read_reviewed, review_image

    if isinstance(source, PairFolders):
        return read_reviewed(source.images, source.labels, progress=progress)
    if isinstance(source, SavedSession):
        from napari_sac.core.training.session_data import read_reviewed_session

        return read_reviewed_session(source.folder)
    image, layer = source.plane.read(), source.plane.layer
    if image.shape[:2] != source.labels.shape:
        raise TrainingDataError(
            f"The image of {source.name} has another size than its labels. Nothing "
            "was changed. Find nuclei in it again."
        )
    one = review_image(
        source.name,
        image,
        source.labels.astype(np.int64),
        prompts=source.prompts,
        regions=source.regions,
        group=group_of(layer),
    )
    return (one,)


def group_of(layer: Image) -> str:
    """Return the same for all layers of one image: its planes are alike."""
    file = layer.source.path
    if file:
        return str(os.path.abspath(file))
    return str(layer.metadata.get(IMAGE_ORIGIN) or f"layer {layer.unique_id}")


def _named_apart(images: Sequence[ReviewedImage]) -> tuple[ReviewedImage, ...]:
    """Return the images with a number after names that come more than once."""
    seen: dict[str, int] = {}
    result = []
    for one in images:
        seen[one.name] = number = seen.get(one.name, 0) + 1
        name = one.name if number == 1 else f"{one.name} ({number})"
        result.append(replace(one, name=name))
    return tuple(result)


def _masked_ids(prompts: Prompts, labels: npt.NDArray[np.uint32]) -> set[int]:
    """Return the nuclei that have a positive point on a mask of their own, and stay."""
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.inference.instances import rejected_objects

    rows, there = _positives_on(prompts, labels)
    own = there == prompts.object_id[rows]
    masked = set(prompts.object_id[rows[own]].tolist())
    return masked - set(rejected_objects(prompts).tolist())


def _count_false(prompts: Prompts, labels: npt.NDArray[np.uint32]) -> int:
    """Return how many rejected proposals lie on background; others are duplicates."""
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.inference.instances import rejected_objects

    rows, there = _positives_on(prompts, labels)
    # a mask that waits to be taken away
    background = (there == 0) | np.isin(there, rejected_objects(prompts))
    return int((prompts.rejected[rows] & background).sum())


def _positives_on(
    prompts: Prompts, labels: npt.NDArray[np.uint32]
) -> tuple[IntArray, IntArray]:
    """Return the rows of positive points in the image, and the labels under them."""
    pixels = np.rint(prompts.yx).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < labels.shape)).all(axis=1)
    rows = np.flatnonzero(inside & (prompts.sign == POSITIVE))
    return rows, labels[tuple(pixels[rows].T)]


def _reviewed_ids(annotation: Annotation) -> set[int]:
    """Return the nuclei that a person decided about, or drew a region around."""
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.inference.instances import decided_objects

    prompts = annotation.prompts
    within = nuclei_inside(prompts, annotation.reviewed)
    return decided_objects(prompts) | (within & usable_ids(prompts))
