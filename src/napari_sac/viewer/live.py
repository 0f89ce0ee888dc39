"""Masks that appear as soon as a prompt changes: which steps wait for theirs.

The queue lives on the viewer's thread and starts no other. Whoever has a thread asks it
for a request, runs :func:`decode_live` there, and gives the queue the result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.errors import NapariSacError
from napari_sac.viewer.adapters import is_current
from napari_sac.viewer.inference import LoadedModel, load
from napari_sac.viewer.prompts import reshaped_ids, usable_ids

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sac.core.inference.embedding import Embedding
    from napari_sac.core.inference.generator_maps import ForegroundLogits
    from napari_sac.core.inference.live import LabelUpdate
    from napari_sac.core.progress import Progress
    from napari_sac.core.session.state import AnnotationState, Settings
    from napari_sac.core.types import ObjectMask, Prompts
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.inference import ModelChoice
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.session import AnnotationSession

    Box = tuple[int, int, int, int]


ONE_MASK_WAITS = (
    "The mask is one of all nuclei, and does not follow: press Segment to draw it anew."
)


@dataclass(frozen=True, eq=False)
class Edit:
    """What a step did, as far as masks depend on it.

    Parameters
    ----------
    before, after : Prompts
    released : frozenset of int
        Nuclei that were painted before the step and are not any more.
    repainted : (int, int, int, int), optional
        Box (y0, x0, y1, x1) of the pixels that the step itself has changed.
    painted : frozenset of int
        Nuclei that are painted since the step and were not before.
    """

    before: Prompts
    after: Prompts
    released: frozenset[int] = frozenset()
    repainted: Box | None = None
    painted: frozenset[int] = frozenset()

    @classmethod
    def between(
        cls, before: AnnotationState, after: AnnotationState, repainted: Box | None
    ) -> Edit:
        """Return what a step did that drew into the labels itself."""
        return cls(
            before.prompts,
            after.prompts,
            before.painted - after.painted,
            repainted,
            painted=after.painted - before.painted,
        )

    def reshaped(self) -> set[int]:
        """Return the nuclei whose points are others now, or that came or went."""
        came_or_went = usable_ids(self.before) ^ usable_ids(self.after)
        return reshaped_ids(self.before, self.after) | came_or_went

    def is_like(self, other: Edit) -> bool:
        """Return whether two edits of the same prompts do the same."""
        mine, its = ((e.released, e.repainted, e.painted) for e in (self, other))
        return (
            self.before is other.before
            and mine == its
            and self.after.equals(other.after)
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, its embedding and a model: what any decoding needs.

    Parameters
    ----------
    plane : ImagePlane
    settings : Settings
    choice : ModelChoice
        The model of ``settings``, and where to run it.
    loaded : LoadedModel or None
        The model used last; used again if it is that one.
    embedding : Embedding or None
        The last one; computed anew if it is of another model or scale.
    foreground : ForegroundLogits or None
        What the generator saw when nuclei were found; used again if it fits.
    """

    plane: ImagePlane
    settings: Settings
    choice: ModelChoice
    loaded: LoadedModel | None
    embedding: Embedding | None
    foreground: ForegroundLogits | None = None


@dataclass(frozen=True, eq=False)
class LiveRequest:
    """What :func:`decode_live` needs for the masks of one step.

    Parameters
    ----------
    step, annotation : int
    scene : Scene
    edit : Edit
    labels : (H, W) uint32
    masks : dict of int to ObjectMask
        The masks that the labels were drawn from, before the step.
    painted : frozenset of int
    unsure : bool
        Whether ``masks`` may be of other prompts than those before the step.
    whole : bool
        Whether the labels are those of all nuclei, and not only of those clicked on.
    undrawn : frozenset of int
        Nuclei without masks in any case: drawing them has failed.
    """

    step: int
    annotation: int
    scene: Scene
    edit: Edit
    labels: npt.NDArray[np.uint32]
    masks: dict[int, ObjectMask]
    painted: frozenset[int]
    unsure: bool = False
    whole: bool = False
    undrawn: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class PreviewRequest:
    """What :func:`decode_live` needs to show what a click would give.

    Parameters
    ----------
    annotation : int
    scene : Scene
    yx : (float, float)
        Where the mouse is, in pixels of the image.
    edit : Edit
        What a click there would do.
    object_id : int
        The nucleus that would get the point.
    labels : (H, W) uint32
    masks : dict of int to ObjectMask
        The masks that the labels are drawn from.
    painted : frozenset of int
    changes : int
        How often the session was changed before.
    unsure : bool
        Whether ``masks`` may be of other prompts than there are: then nothing but the
        mask itself can be foreseen.
    """

    annotation: int
    scene: Scene
    yx: tuple[float, float]
    edit: Edit
    object_id: int
    labels: npt.NDArray[np.uint32]
    masks: dict[int, ObjectMask]
    painted: frozenset[int]
    changes: int
    unsure: bool


@dataclass(frozen=True, eq=False)
class LiveResult:
    """What :func:`decode_live` found.

    Parameters
    ----------
    request : LiveRequest or PreviewRequest
    loaded : LoadedModel
    embedding : Embedding
    update : LabelUpdate or None
        For a step; for a preview what the click would change, if that is known.
    mask : ObjectMask or None
        For a preview.
    seconds : float
    known : dict of int to ObjectMask
        Masks that were missing before the step.
    """

    request: LiveRequest | PreviewRequest
    loaded: LoadedModel
    embedding: Embedding
    update: LabelUpdate | None
    mask: ObjectMask | None
    seconds: float
    known: dict[int, ObjectMask] = field(default_factory=dict)


class OtherWeightsError(NapariSacError):
    """A model that is not the one that drew the nuclei.

    Parameters
    ----------
    message : str
    loaded : LoadedModel
        The model.
    """

    def __init__(self, message: str, loaded: LoadedModel) -> None:
        super().__init__(message)
        self.loaded = loaded


@dataclass
class LiveQueue:
    """The steps whose masks are not drawn yet, in their order.

    Parameters
    ----------
    session : AnnotationSession

    Attributes
    ----------
    held : bool
        Whether the steps wait until somebody lets them go, or segments everything.
    """

    session: AnnotationSession
    held: bool = field(default=False, init=False)
    _waiting: dict[int, tuple[int, Edit]] = field(default_factory=dict)
    _undone: dict[int, tuple[int, Edit]] = field(default_factory=dict)
    _failed: dict[int, tuple[int, Edit]] = field(default_factory=dict)
    _out: LiveRequest | PreviewRequest | None = None
    _preview: PreviewRequest | None = None
    _foreseen: LiveResult | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is something to decode, or it is being decoded."""
        return self.step_waits or self._preview is not None

    @property
    def step_waits(self) -> bool:
        """Whether a step has no masks yet, and gets them as soon as can be."""
        return bool(self._waiting) and not self.held

    def clear(self) -> None:
        """Let nothing wait any more."""
        self._waiting.clear()
        self._undone.clear()
        self._failed.clear()
        self._call()

    def waits_for(self, annotation: Annotation) -> int:
        """Return how many changes of an annotation have no masks yet.

        Who accepts a nucleus changes no mask. One mask of all nuclei waits for each
        nucleus that has changed since.
        """
        if not annotation.has_instances:
            drawn = annotation.drawn_from
            if drawn is None or not annotation.state.labels.any():
                return 0
            return len(Edit(drawn, annotation.prompts).reshaped())
        return sum(bool(e.released or e.reshaped()) for e in self._edits(annotation))

    def lagging(self, annotation: Annotation) -> set[int]:
        """Return the nuclei whose masks are of points that are others now."""
        ids: set[int] = set()
        for edit in self._edits(annotation):
            ids |= edit.reshaped() | edit.released
        return ids & usable_ids(annotation.prompts)

    def _edits(self, annotation: Annotation) -> list[Edit]:
        steps = (self._failed | self._waiting).values()
        return [edit for number, edit in steps if number == annotation.number]

    def hold(self, held: bool) -> None:
        """Let the steps wait, or go on with them; what a click would give is shown."""
        self.held = held
        self._call()

    def next_request(self) -> LiveRequest | PreviewRequest | None:
        """Return what to decode next; None if nothing waits or one is out already."""
        if self._out is not None:
            return None
        self._out = self._next_step() or self._preview
        if self._out is self._preview:
            self._preview = None
        return self._out

    def take(self, result: LiveResult) -> None:
        """Draw a result, unless its step was undone meanwhile."""
        request, self._out = result.request, None
        annotation = self.session.numbered(request.annotation)
        plane = None if annotation is None else annotation.plane
        if annotation is not None and plane and not plane.shows_as(request.scene.plane):
            # of other pixels than there are now: the step waits on
            self._take_up_again(annotation, request)
        elif annotation is not None:
            self.session.take_embedding(annotation, result)
            if isinstance(request, PreviewRequest):
                self._foreseen = result
                # the click may have come while this was computed
                self._draw_foreseen()
                self.session.preview.show(annotation, result)
            elif self._waiting.pop(request.step, None) is not None:
                # it saw to those too
                self._drop_failed(annotation)
                self.session.draw_masks(annotation, result)
            else:
                annotation.add_masks(result.known)
                annotation.unsure |= request.unsure
                annotation.undrawn |= request.undrawn
        self._call()

    def fail(
        self, request: LiveRequest | PreviewRequest, error: Exception | None = None
    ) -> None:
        """Go on without the masks of a request that could not be served, and why not.

        A model that was refused is kept: to load it takes seconds, and the next click
        would, only to be refused too.
        """
        self._out = None
        if isinstance(error, OtherWeightsError):
            self.session.loaded = error.loaded
        annotation = self.session.numbered(request.annotation)
        if isinstance(request, LiveRequest) and annotation is not None:
            step = self._waiting.pop(request.step, None)
            if step is not None:
                self._failed[request.step] = step
            # its labels stay as they were before: the next request sees to them
            annotation.unsure = True
            annotation.undrawn |= request.undrawn | reshaped_ids(
                request.edit.before, request.edit.after
            )
        self._call()

    def give_back(self, request: LiveRequest | PreviewRequest) -> None:
        """Let a request wait again that nobody could finish: its dock was closed."""
        if request is not self._out:
            return
        self._out = None
        annotation = self.session.numbered(request.annotation)
        if annotation is not None:
            self._take_up_again(annotation, request)

    def _take_up_again(
        self, annotation: Annotation, request: LiveRequest | PreviewRequest
    ) -> None:
        """Have the next request see to what one should have done."""
        if isinstance(request, LiveRequest):
            annotation.unsure |= request.unsure
            annotation.undrawn |= request.undrawn

    def settle(self, annotation: Annotation, prompts: Prompts) -> bool:
        """Let no step wait that a segmentation of these prompts has seen.

        Returns
        -------
        bool
            Whether one did.
        """
        self._drop_failed(annotation)
        mine = [k for k, (n, _) in self._waiting.items() if n == annotation.number]
        seen = [k for k in mine if self._waiting[k][1].after is prompts]
        last = max(seen, default=0)
        if prompts is annotation.prompts:
            last = max(mine, default=0)
        settled = [step for step in mine if step <= last]
        for step in settled:
            del self._waiting[step]
        return bool(settled)

    def add(self, step: int, annotation: Annotation, edit: Edit) -> None:
        """Let a step that was just done wait for its masks."""
        self._undone.clear()
        if annotation.plane is None:
            return
        if not annotation.has_instances:
            self._tell_of_one_mask(annotation, edit)
            return
        self._waiting[step] = (annotation.number, edit)
        if not self._draw_foreseen() and not self.held:
            self.session.live_requested.emit()

    def _tell_of_one_mask(self, annotation: Annotation, edit: Edit) -> None:
        """Say that one mask of all nuclei does not follow, where it did until now."""
        drawn = annotation.drawn_from
        followed = drawn is None or not Edit(drawn, edit.before).reshaped()
        if followed and annotation.state.labels.any() and edit.reshaped():
            self.session.told.emit(ONE_MASK_WAITS)

    def _drop_failed(self, annotation: Annotation) -> None:
        for step in [k for k, (n, _) in self._failed.items() if n == annotation.number]:
            del self._failed[step]

    def undo(self, step: int) -> None:
        """Do not decode for a step that was undone."""
        for steps in (self._waiting, self._failed):
            if step in steps:
                self._undone[step] = steps.pop(step)

    def redo(self, step: int) -> None:
        """Decode after all for a step that was undone before it had its masks."""
        if step in self._undone:
            self._waiting[step] = self._undone.pop(step)
            self._call()

    def forget(self, annotation: Annotation) -> None:
        """Decode nothing more for an annotation."""
        self._foreseen = None
        for steps in (self._waiting, self._undone, self._failed):
            for step in [k for k, (n, _) in steps.items() if n == annotation.number]:
                del steps[step]

    def take_back(self, annotation: Annotation) -> Prompts | None:
        """Let no step of an annotation wait any more, for all of it is replaced.

        Returns
        -------
        Prompts or None
            What the prompts were before the first step that waited.
        """
        self._drop_failed(annotation)
        mine = [k for k, (n, _) in self._waiting.items() if n == annotation.number]
        steps = [self._waiting.pop(step) for step in sorted(mine)]
        return steps[0][1].before if steps else None

    def ask_preview(self, request: PreviewRequest | None) -> None:
        """Show what a click would give, instead of the one asked for before."""
        self._preview = request
        if request is not None:
            self._call()

    def warm_up(self, annotation: Annotation) -> None:
        """Decode one mask that nobody sees, so that the first click is a quick one.

        What is loaded and allocated by the first decoding takes longer than a click.
        """
        if len(annotation.prompts) == 0 or self.waiting:
            return
        preview = self.session.preview.foresee(annotation, annotation.prompts.yx[0])
        if preview is not None:
            self.ask_preview(preview)

    def _draw_foreseen(self) -> bool:
        """Draw the one step that waits, if its masks were foreseen; else False."""
        if self._out is not None or len(self._waiting) != 1 or self.held:
            return False
        foreseen, self._foreseen = self._foreseen, None
        ((step, (number, edit)),) = self._waiting.items()
        annotation = self.session.numbered(number)
        if foreseen is None or annotation is None:
            return False
        if not self._is_this(foreseen, annotation, edit):
            return False
        request = self._next_step()
        if request is None:
            return False
        del self._waiting[step]
        self.session.draw_masks(annotation, replace(foreseen, request=request))
        return True

    def _is_this(
        self, foreseen: LiveResult, annotation: Annotation, edit: Edit
    ) -> bool:
        """Return whether a step is the click that was foreseen, and all else as then.

        Then what it changes was computed while the mouse rested.
        """
        request = foreseen.request
        if not isinstance(request, PreviewRequest) or foreseen.update is None:
            return False
        return (
            request.annotation == annotation.number
            and request.changes + 1 == self.session.steps.changes
            and request.scene.settings is annotation.state.settings
            and foreseen.embedding is annotation.embedding
            and request.masks == annotation.masks
            and request.painted == annotation.painted
            and not annotation.unsure
            and request.edit.is_like(edit)
        )

    def _next_step(self) -> LiveRequest | None:
        for step in () if self.held else sorted(self._waiting):
            number, edit = self._waiting[step]
            annotation = self.session.numbered(number)
            scene = None if annotation is None else self.session.scene(annotation)
            if annotation is None or scene is None:
                del self._waiting[step]
                continue
            unsure, annotation.unsure = annotation.unsure, False
            undrawn, annotation.undrawn = frozenset(annotation.undrawn), set()
            return LiveRequest(
                step=step,
                annotation=number,
                scene=scene,
                edit=edit,
                labels=annotation.state.labels,
                masks=dict(annotation.masks),
                painted=annotation.painted,
                unsure=unsure,
                whole=annotation.segmented and bool(annotation.state.labels.any()),
                undrawn=undrawn,
            )
        return None

    def _call(self) -> None:
        if self._out is None and self.waiting:
            self.session.live_requested.emit()


def decode_live(
    request: LiveRequest | PreviewRequest, progress: Progress
) -> LiveResult:
    """Return the masks that a step changes, or the one that a click would give.

    Runs in a worker's thread. The first time it loads the model and computes the
    embedding, which takes seconds; then it takes milliseconds.

    Raises
    ------
    OtherWeightsError
        If the model has other weights than the one that drew the nuclei.
    NapariSacError
        Of the image, the model or the device; ``Cancelled`` from ``progress``.
    """
    start = time.perf_counter()
    scene = request.scene
    loaded = load(scene.choice, scene.loaded, progress)
    if loaded is scene.loaded and _is_other(scene, loaded) and not is_current(loaded):
        # it was refused before, and others were put in the place of its files since
        loaded = load(scene.choice, None, progress)
    _check_weights(scene, loaded)
    embedding = _embed(scene, loaded, progress)
    update, mask = None, None
    known: dict[int, ObjectMask] = {}
    if isinstance(request, LiveRequest):
        update, known = _update(request, embedding, loaded, progress)
    elif request.unsure:
        mask = _preview(request, embedding, loaded)
    else:
        update, _ = _update(request, embedding, loaded, progress)
        mask = update.masks.get(request.object_id)
    seconds = time.perf_counter() - start
    return LiveResult(request, loaded, embedding, update, mask, seconds, known)


def _is_other(scene: Scene, loaded: LoadedModel) -> bool:
    """Return whether a model is not the one that drew the nuclei."""
    return scene.settings.model_key not in (None, loaded.model.key)


def _check_weights(scene: Scene, loaded: LoadedModel) -> None:
    """Refuse weights that would redraw nuclei which nobody has touched."""
    if not _is_other(scene, loaded):
        return
    adapter = scene.choice.adapter
    with_adapter = "" if adapter is None else f" with the adapter {adapter.name}"
    raise OtherWeightsError(
        f"The weights of {scene.choice.name}{with_adapter} are not those that these "
        "nuclei were drawn with. Prompts and labels are kept as they were drawn; press "
        "Segment to draw all of them with what is chosen now, or put the other weights "
        "back.",
        loaded,
    )


def _embed(scene: Scene, loaded: LoadedModel, progress: Progress) -> Embedding:
    from napari_sac.core.inference.embedding import embed_image
    from napari_sac.core.inference.segment import embedding_scale

    scale = embedding_scale(loaded.model, scene.settings.diameter)
    known = scene.embedding
    wanted = (loaded.model.key, scale)
    if known is not None and (known.model_key, known.scale) == wanted:
        return known
    image = scene.plane.read()
    return embed_image(
        image,
        loaded.model,
        scale=scale,
        foreground=scene.foreground,
        progress=progress,
    )


def _update(
    request: LiveRequest | PreviewRequest,
    embedding: Embedding,
    loaded: LoadedModel,
    progress: Progress,
) -> tuple[LabelUpdate, dict[int, ObjectMask]]:
    """Return what the step changes, and the masks that were missing before it."""
    from napari_sac.core.inference.live import touched_nuclei, update_labels
    from napari_sac.core.inference.predictor import neighbour_reach

    edit, config = request.edit, request.scene.settings.decode
    reach = neighbour_reach(embedding, loaded.model)
    touched = touched_nuclei(edit.before, edit.after, config, reach)
    touched |= edit.released
    found = _Before()
    if isinstance(request, LiveRequest) and request.unsure:
        found = _look_again(request, embedding, loaded, progress)
    update = update_labels(
        request.labels,
        request.masks | found.known,
        embedding,
        edit.after,
        loaded.model,
        config,
        touched=touched | found.outdated,
        painted=request.painted,
        released=edit.released | found.left_over,
        repainted=edit.repainted,
        progress=progress,
    )
    return update, found.known


@dataclass(frozen=True)
class _Before:
    """How labels and masks differ from what the prompts before a step give.

    Parameters
    ----------
    known : dict of int to ObjectMask
        Masks that were missing.
    outdated : set of int
        Nuclei that are not drawn as their prompts say.
    left_over : set of int
        Nuclei that have pixels, and no prompts that give any.
    """

    known: dict[int, ObjectMask] = field(default_factory=dict)
    outdated: set[int] = field(default_factory=set)
    left_over: set[int] = field(default_factory=set)


def _look_again(
    request: LiveRequest,
    embedding: Embedding,
    loaded: LoadedModel,
    progress: Progress,
) -> _Before:
    """Decode what is missing from the masks before a step, or is of other prompts.

    Where all were drawn, those count too that have no pixel: a duplicate that was
    dropped comes back when the better one goes. Else proposals that nobody has touched
    stay undrawn; what was accepted or corrected may have waited for its mask. After a
    session was opened, or an image came back, this decodes all that was drawn once;
    later it decodes next to nothing.
    """
    from napari_sac.core.inference.instances import decided_objects
    from napari_sac.core.inference.predictor import decode_prompts

    before, masks = request.edit.before, request.masks
    given = (request.painted - request.edit.painted) | request.edit.released
    usable = usable_ids(before)
    wanted = usable - given
    drawn = set(np.unique(request.labels).tolist()) - {0}
    if not request.whole:
        wanted &= masks.keys() | request.undrawn | drawn | decided_objects(before)
    decoded = decode_prompts(
        embedding,
        before,
        loaded.model,
        request.scene.settings.decode,
        reuse=masks,
        only=wanted,
        progress=progress,
    )
    now = {m.object_id: m for m in decoded}
    known = {k: m for k, m in now.items() if k not in masks}
    outdated = {k for k in masks.keys() - given if now.get(k) is not masks[k]}
    if not known:
        return _Before(outdated=outdated)
    # steps whose masks were not there yet when the session was closed or killed
    left_over = drawn - usable - request.painted
    return _Before(known, outdated | (known.keys() - drawn), left_over)


def _preview(
    request: PreviewRequest, embedding: Embedding, loaded: LoadedModel
) -> ObjectMask | None:
    """Return the mask that the click would give, without what follows from it."""
    from napari_sac.core.inference.predictor import decode_prompts

    decoded = decode_prompts(
        embedding,
        request.edit.after,
        loaded.model,
        request.scene.settings.decode,
        only={request.object_id},
    )
    return decoded[0] if decoded else None
