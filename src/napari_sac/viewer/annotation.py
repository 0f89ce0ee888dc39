"""What is known about the nuclei of one plane of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari_sac.viewer.prompts import usable_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Labels, Layer, Points, Shapes

    from napari_sac.core.inference.embedding import Embedding
    from napari_sac.core.inference.generator_maps import ForegroundLogits
    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.core.session.state import AnnotationState
    from napari_sac.core.types import FloatArray, ObjectMask, Prompts
    from napari_sac.viewer.planes import ImagePlane

    MaskChanges = dict[int, tuple[ObjectMask | None, ObjectMask | None]]

MOST_REMEMBERED_MASKS = 50_000
"""How many masks all steps that can be undone remember, beside those that are drawn; a
few kilobytes each."""


@dataclass(eq=False)
class Annotation:
    """What is known about one plane of one image.

    What was decided is ``state``, which only the session replaces. The labels that a
    layer shows are a copy of it: a stroke that is not finished is on the layer alone.

    Parameters
    ----------
    number : int
        What the history and the journal call it.
    plane : ImagePlane or None
        None when the image was deleted; what lies on it can still be corrected.
    state : AnnotationState
    geometry : dict
        Arguments of our layers that put them where the image lies.
    name : str
        Of the plane, for the names of our layers.
    points, labels, tools, regions : layer or None
        Our layers of prompts and labels, of boxes and lassos, and of reviewed regions;
        None as long as there is none, or when the user has deleted it.
    masks : dict of int to ObjectMask
        The masks that the labels were drawn from, by ``object_id``.
    embedding : Embedding or None
        Of the image, if there is memory for it.
    foreground : ForegroundLogits or None
        What the generator saw, from when nuclei were found to when there is an
        embedding, which has it.
    seconds : dict of str to float
        How long each stage took when it was last done.
    steps : int
        How many steps a person has made here: whatever undo can take back, and undo
        and redo themselves.
    worked : float
        Seconds between these steps, without long pauses.
    outlined : bool or None
        Whether ``labels`` shows outlines; None as long as nobody has said.
    misdrawn : PixelChange or None
        Pixels that the layer may show with another label than they have.
    writes : int
        How often the labels were written to; 0 as long as they are empty.
    segmented : bool
        Whether the labels are those of all nuclei, and not only of those clicked on.
    segmented_by : dict of int to bool
        The steps that have changed ``segmented``, and to what.
    unsure : bool
        Whether ``masks`` may lack some, or have some of other prompts than there are:
        after a session was opened, and after steps whose masks nobody knows.
    threshold_step : int
        The step that last moved the score threshold; 0 for none.
    undrawn : set of int
        Nuclei whose masks could not be made when they were asked for.
    drawn_from : Prompts or None
        What the one mask of all nuclei was drawn from; None if that is not known.
    drew_others : set of int
        Steps that also brought the masks of steps before them: without them those
        have masks of other prompts than there are.
    deleted_at : int
        The highest number of an annotation when the last layer of this one was deleted:
        one that is numbered higher was begun after that.
    placed_on : Prompts or None
        While napari adds a point whose step is done already: the prompts before it,
        which are what ``points`` still shows.
    """

    number: int
    plane: ImagePlane | None
    state: AnnotationState
    geometry: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    points: Points | None = None
    labels: Labels | None = None
    tools: Shapes | None = None
    regions: Shapes | None = None
    masks: dict[int, ObjectMask] = field(default_factory=dict)
    embedding: Embedding | None = None
    foreground: ForegroundLogits | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    worked: float = 0.0
    outlined: bool | None = None
    misdrawn: PixelChange | None = None
    writes: int = 0
    segmented: bool = False
    unsure: bool = False
    threshold_step: int = 0
    deleted_at: int = 0
    placed_on: Prompts | None = None
    undrawn: set[int] = field(default_factory=set)
    drawn_from: Prompts | None = None
    drew_others: set[int] = field(default_factory=set)
    segmented_by: dict[int, bool] = field(default_factory=dict)
    _mask_changes: dict[int, MaskChanges] = field(default_factory=dict)
    _forgotten_to: int = 0
    _put_away: WeakSet[Layer] = field(default_factory=WeakSet)

    @property
    def prompts(self) -> Prompts:
        """Row by row what ``points`` shows."""
        return self.state.prompts

    @property
    def hidden(self) -> Prompts:
        """Proposals below the score threshold."""
        return self.state.hidden

    @property
    def painted(self) -> frozenset[int]:
        """Ids of nuclei whose pixels are given, and not computed from prompts."""
        return self.state.painted

    @property
    def reviewed(self) -> tuple[FloatArray, ...]:
        """Polygons (N, 2) that were reviewed, in pixels of the image."""
        return self.state.reviewed

    @property
    def diameter(self) -> float:
        """Typical nucleus diameter in pixels, as found or given."""
        return self.state.settings.diameter

    @property
    def threshold(self) -> float:
        """Proposals with a lower score are hidden."""
        return self.state.settings.threshold

    @property
    def has_instances(self) -> bool:
        """Whether labels are numbers of nuclei, and not one mask of all."""
        return self.state.settings.decode.mode == "instance"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Our layers that there are."""
        mine = (self.labels, self.regions, self.tools, self.points)
        return tuple(layer for layer in mine if layer is not None)

    @property
    def is_shown(self) -> bool:
        """Whether a layer shows its prompts or its labels."""
        return self.points is not None or self.labels is not None

    def is_about(self, plane: ImagePlane) -> bool:
        """Return whether this is about the nuclei of that plane."""
        mine = self.plane
        if mine is None:
            return False
        # data that have not this plane, in exchange for those before, have other nuclei
        same = mine.layer is plane.layer and mine.data is plane.data
        return same and mine.position == plane.position

    def owns(self, layer: Layer) -> bool:
        """Return whether that layer is one of ours about this plane."""
        return any(layer is mine for mine in self.layers)

    def go_away(self) -> None:
        """Hide our layers, for another plane is looked at."""
        for layer in self.layers:
            # napari puts the tool of a layer away also when it is hidden already
            if layer.visible:
                layer.visible = False
                self._put_away.add(layer)

    def come_back(self) -> None:
        """Show the layers again that were hidden for another plane, and no others."""
        for layer in self.layers:
            if layer in self._put_away:
                layer.visible = True
        self._put_away = WeakSet()

    @property
    def held_bytes(self) -> int:
        """Memory of what was computed of the image's pixels."""
        held = 0 if self.foreground is None else self.foreground.logits.nbytes
        if self.embedding is not None:
            held += self.embedding.features.nbytes
            held += self.embedding.foreground.logits.nbytes
        return held

    def embed(self, embedding: Embedding) -> None:
        """Keep an embedding, and what it was made from no longer."""
        self.embedding = embedding
        if (
            self.foreground is not None
            and self.foreground.key == embedding.foreground.key
        ):
            self.foreground = None

    def forget_pixels(self) -> None:
        """Let go what was computed of the image's pixels."""
        self.embedding = self.foreground = None

    def counterpart(self, other: Annotation, layer: Layer) -> Layer | None:
        """Return the layer that is here what a layer is in another annotation."""
        pairs = (
            (other.points, self.points),
            (other.labels, self.labels),
            (other.tools, self.tools),
            (other.regions, self.regions),
        )
        return next((mine for its, mine in pairs if its is layer), None)

    def let_go(self, layer: Layer) -> bool:
        """Forget a layer that was removed; return whether it was of use here."""
        if layer is self.points:
            self.points = None
        elif layer is self.labels:
            self.labels = None
        elif layer is self.tools:
            self.tools = None
        elif layer is self.regions:
            self.regions = None
        elif self.plane is not None and layer is self.plane.layer:
            self.plane = None
            self.forget_pixels()
            self.masks, self._mask_changes, self.unsure = {}, {}, True
        else:
            return False
        return True

    def take_masks(self, step: int, masks: Mapping[int, ObjectMask | None]) -> None:
        """Remember masks that a step brought, and those it made worthless."""
        if step <= self._forgotten_to:
            self.replace_masks(masks)
            return
        changes = self._mask_changes.setdefault(step, {})
        for object_id, mask in masks.items():
            before = self.masks.get(object_id)
            if before is mask:
                continue
            first, _ = changes.get(object_id, (before, None))
            changes[object_id] = (first, mask)
            self._set_mask(object_id, mask)
        while sum(map(len, self._mask_changes.values())) > MOST_REMEMBERED_MASKS:
            # without them undo works too, and what comes next is decoded anew
            self._forgotten_to = min(self._mask_changes)
            del self._mask_changes[self._forgotten_to]

    def undo_masks(self, step: int) -> None:
        """Have the masks again that there were before a step, which is undone."""
        self._take_up(step, lambda change: change[0])
        if step in self.segmented_by:
            self.segmented = not self.segmented_by[step]
        self.unsure |= step in self.drew_others

    def redo_masks(self, step: int) -> None:
        """Have the masks again that there were after a step, which is done again."""
        self._take_up(step, lambda change: change[1])
        self.segmented = self.segmented_by.get(step, self.segmented)

    def forget_masks(self, step: int) -> None:
        """Let go the masks before and after a step that cannot come back."""
        self._mask_changes.pop(step, None)
        self.drew_others.discard(step)
        self.segmented_by.pop(step, None)

    def replace_masks(self, masks: Mapping[int, ObjectMask | None]) -> None:
        """Have other masks, which no step has brought."""
        for object_id, mask in masks.items():
            self._set_mask(object_id, mask)

    def add_masks(self, masks: Mapping[int, ObjectMask]) -> None:
        """Have masks that were missing, and that the labels were drawn from."""
        for object_id, mask in masks.items():
            self.masks.setdefault(object_id, mask)

    def _take_up(
        self,
        step: int,
        choose: Callable[[tuple[ObjectMask | None, ObjectMask | None]], Any],
    ) -> None:
        changes = self._mask_changes.get(step)
        # steps of an opened session bring no masks back
        self.unsure |= changes is None
        lost = set()
        for object_id, change in (changes or {}).items():
            mask = choose(change)
            self._set_mask(object_id, mask)
            if mask is None:
                lost.add(object_id)
        self.unsure |= bool(lost & usable_ids(self.prompts))

    def _set_mask(self, object_id: int, mask: ObjectMask | None) -> None:
        if mask is None:
            self.masks.pop(object_id, None)
        else:
            self.masks[object_id] = mask
