"""Compute a session again from its image, prompts and settings, without a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_sac.core.errors import SessionError
from napari_sac.core.inference.embedding import embed_image
from napari_sac.core.inference.instances import assemble_labels
from napari_sac.core.inference.predictor import (
    active_prompts,
    decode_prompts,
    decode_semantic,
)
from napari_sac.core.inference.segment import embedding_scale
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.session.journal import Journal
from napari_sac.core.types import POSITIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from napari_sac.core.models.registry import Model
    from napari_sac.core.session.image import ImageReference
    from napari_sac.core.session.state import AnnotationState


class ModelLoader(Protocol):
    """Loads a model; ``load_model`` is one."""

    def __call__(self, name: str, *, adapter: str | None) -> Model:
        """Return the model of that name, with that adapter."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a replay gave for one annotation.

    Parameters
    ----------
    number : int
        Of the annotation in the session.
    state : AnnotationState
        As the session has it.
    labels : (H, W) uint32
        As they were computed again.
    image : ImageReference
        Where the image was found.
    """

    number: int
    state: AnnotationState
    labels: npt.NDArray[np.uint32]
    image: ImageReference

    @property
    def different_pixels(self) -> int:
        """How many pixels differ from the labels in the session."""
        return int(np.count_nonzero(self.labels != self.state.labels))


def replay(
    folder: str | Path,
    *,
    load: ModelLoader,
    begin: Callable[[Mapping[int, ImageReference]], None] | None = None,
    progress: Progress = ignore_progress,
) -> Iterator[Replayed]:
    """Yield labels that are computed again from images, prompts and settings.

    Nothing is read before the first is asked for, and errors come with the image that
    they are about. Pixels of nuclei that were painted or accepted are taken from the
    session as they are.

    Parameters
    ----------
    folder : str or Path
        The session; it is not changed.
    load : callable
        ``load(name, adapter=...)`` returns a model.
    begin : callable, optional
        Is told the images, by the numbers of their annotations, before the work.
    progress : Progress, optional

    Raises
    ------
    SessionError
        If the session is damaged, an image is missing or another one, or a model has
        other weights than the session was made with.
    NapariSacError
        Of the model, or ``Cancelled`` from ``progress``.
    """
    journal = Journal.open(folder)
    try:
        restored = journal.restore()
    finally:
        # before the work, which may take hours in which somebody wants to go on in it;
        # looking at a session says nothing about whether it was closed
        journal.close(clean=False)
    models: dict[tuple[str, str | None], Model] = {}
    if begin is not None:
        begin({number: restored.images[number] for number in restored.shown})
    for number, state in restored.shown.items():
        settings = state.settings
        chosen = (settings.model, settings.adapter)
        if chosen not in models:
            models[chosen] = load(settings.model, adapter=settings.adapter)
        _check_model(state, models[chosen])
        # a closed journal knows where its images are
        pixels, image = journal.find_image(number, restored.images[number])
        labels = compute_labels(pixels, state, models[chosen], progress)
        yield Replayed(number, state, labels, image)


def compute_labels(
    pixels: npt.NDArray[np.uint8],
    state: AnnotationState,
    model: Model,
    progress: Progress = ignore_progress,
) -> npt.NDArray[np.uint32]:
    """Return the labels (H, W) of the prompts of a state, painted nuclei as they are.

    Parameters
    ----------
    pixels : (H, W, 3) uint8
    state : AnnotationState
    model : Model
        The one of ``state.settings``.
    progress : Progress, optional
    """
    settings = state.settings
    painted = np.isin(state.labels, np.array(sorted(state.painted), np.uint32))
    kept = np.where(painted, state.labels, np.uint32(0))
    if not (active_prompts(state.prompts).sign == POSITIVE).any():
        return kept
    scale = embedding_scale(model, settings.diameter)
    embedding = embed_image(pixels, model, scale=scale, progress=progress)
    if settings.decode.mode == "semantic":
        logits = decode_semantic(
            embedding, state.prompts, model, settings.decode, progress=progress
        )
        labels = (logits > 0).astype(np.uint32)
    else:
        masks = decode_prompts(
            embedding, state.prompts, model, settings.decode, progress=progress
        )
        labels = assemble_labels(
            masks,
            embedding.image_shape,
            settings.decode,
            prompts=state.prompts,
            painted=state.painted,
            labels=state.labels,
        )
    return np.where(painted, kept, labels)


def _check_model(state: AnnotationState, model: Model) -> None:
    expected = state.settings.model_key
    if expected is not None and expected != model.key:
        raise SessionError(
            f"The session was made with other weights of {state.settings.model} than "
            "those installed here. Nothing was computed; install the version of "
            "napari-sac, or the adapter, that it was made with."
        )
