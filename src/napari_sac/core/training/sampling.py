"""Draw training crops and the prompts on them, as they will be met in use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.inference.resampling import scale_to
from napari_sac.core.inference.window_decoding import NO_POINT
from napari_sac.core.training.targets import distance_to_border, typical_diameter
from napari_sac.core.types import NEGATIVE, POSITIVE, IntArray

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLICK_REACH = 40.0
"""How near, in pixels of a crop, another nucleus is a neighbour: as in decoding."""

_MOSTLY_KNOWN = 0.7

_HARD_PROMPTS = 2
"""Rejected and false proposals that a crop asks "nothing here?" of."""


class PointKind(IntEnum):
    """Where a point on a training image comes from."""

    PROPOSAL = 0
    REJECTED = 1
    NEGATIVE = 2


@dataclass(frozen=True, eq=False)
class MarkedPoints:
    """Points on an image or a crop that prompts are drawn from.

    Parameters
    ----------
    yx : (N, 2) float64
        In pixels of the image or crop.
    kind : (N,) int64
        A :class:`PointKind` each.
    label : (N,) int64
        Of a negative: the nucleus that it is a negative of; else 0.
    """

    yx: npt.NDArray[np.float64]
    kind: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> MarkedPoints:
        """Return no points."""
        none = np.empty(0, np.int64)
        return cls(np.empty((0, 2)), none, none)

    def of_kind(self, kind: PointKind) -> MarkedPoints:
        """Return the points of one kind."""
        return self._rows(np.asarray(self.kind == kind))

    def moved(self, yx: npt.NDArray[np.float64]) -> MarkedPoints:
        """Return the same points at other places."""
        return replace(self, yx=yx)

    def inside(self, shape: tuple[int, int]) -> MarkedPoints:
        """Return the points whose nearest pixel lies in an image of that shape."""
        pixels = np.rint(self.yx)
        return self._rows(np.asarray(((pixels >= 0) & (pixels < shape)).all(1)))

    @staticmethod
    def concatenate(parts: Sequence[MarkedPoints]) -> MarkedPoints:
        """Return the points of all parts, in order."""
        return MarkedPoints(
            np.concatenate([p.yx for p in parts]),
            np.concatenate([p.kind for p in parts]),
            np.concatenate([p.label for p in parts]),
        )

    def _rows(self, rows: npt.NDArray[np.bool_]) -> MarkedPoints:
        return MarkedPoints(self.yx[rows], self.kind[rows], self.label[rows])


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """An image at the scale the model works at, with its targets.

    Parameters
    ----------
    image : (3, H, W) uint8 tensor
    labels : (H, W) int32 tensor
        0 background, 1..N one nucleus each.
    distance : (H, W) float16 tensor
        :func:`~napari_sac.core.training.targets.distance_to_border`.
    known : (H, W) bool tensor
        Where the labels say the truth; the loss is taken only there.
    hard : (H, W) bool tensor, optional
        Background that the generator took for a nucleus: it weighs more.
    points : MarkedPoints
        What prompts are drawn from beside the labels.
    """

    image: Tensor
    labels: Tensor
    distance: Tensor
    known: Tensor
    hard: Tensor | None = None
    points: MarkedPoints = MarkedPoints.empty()  # noqa: RUF009


@dataclass(frozen=True, eq=False)
class Crops:
    """A batch of crops: image (B, 3, S, S) in [0, 255], the other planes (B, S, S).

    ``points`` are those of each crop, on the CPU; empty where there are none.
    """

    image: Tensor
    labels: Tensor
    distance: Tensor
    known: Tensor
    hard: Tensor | None = None
    points: tuple[MarkedPoints, ...] = ()

    def to(self, device: torch.device) -> Crops:
        """Return the crops on another device."""
        hard = None if self.hard is None else self.hard.to(device)
        return Crops(
            self.image.to(device),
            self.labels.to(device),
            self.distance.to(device),
            self.known.to(device),
            hard,
            self.points,
        )

    def rows(self, rows: Sequence[int]) -> Crops:
        """Return the given crops."""
        index = list(rows)
        hard = None if self.hard is None else self.hard[index]
        return Crops(
            self.image[index],
            self.labels[index],
            self.distance[index],
            self.known[index],
            hard,
            tuple(self.points[i] for i in index) if self.points else (),
        )

    @staticmethod
    def concatenate(parts: Sequence[Crops]) -> Crops:
        """Return the crops of all parts, in order."""
        hard = [torch.zeros_like(p.known) if p.hard is None else p.hard for p in parts]
        return Crops(
            torch.cat([p.image for p in parts]),
            torch.cat([p.labels for p in parts]),
            torch.cat([p.distance for p in parts]),
            torch.cat([p.known for p in parts]),
            torch.cat(hard),
            tuple(points for p in parts for points in p.points),
        )


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Prompts on a batch of crops, padded to one length.

    Parameters
    ----------
    image_index : (P,) int64 tensor
        The crop each prompt lies on.
    label : (P,) int64 tensor
        The nucleus it asks for; 0 where there is none.
    points_yx : (P, N, 2) float tensor
        Points in pixels of the crop; the first is positive.
    signs : (P, N) int64 tensor
        1 positive, 0 negative, -1 no point.
    """

    image_index: Tensor
    label: Tensor
    points_yx: Tensor
    signs: Tensor

    def to(self, device: torch.device) -> PromptBatch:
        """Return the prompts on another device."""
        parts = (self.image_index, self.label, self.points_yx, self.signs)
        return PromptBatch(*(p.to(device) for p in parts))

    def select(self, rows: Tensor) -> PromptBatch:
        """Return the given rows, by boolean mask or by index."""
        parts = (self.image_index, self.label, self.points_yx, self.signs)
        return PromptBatch(*(p[rows] for p in parts))

    def rank_in_crop(self) -> Tensor:
        """Return each prompt's place (P,) among those of its crop, from 0."""
        rows = torch.arange(len(self.label), device=self.label.device)
        return rows - torch.searchsorted(self.image_index, self.image_index)

    @staticmethod
    def concatenate(parts: Sequence[PromptBatch]) -> PromptBatch:
        """Return the prompts of parts that have one crop each, in order."""
        return PromptBatch(
            torch.cat([p.image_index + i for i, p in enumerate(parts)]),
            torch.cat([p.label for p in parts]),
            torch.cat([p.points_yx for p in parts]),
            torch.cat([p.signs for p in parts]),
        )


def prepare_image(
    image: npt.NDArray[np.uint8],
    labels: IntArray,
    nucleus_diameter: float,
    known: npt.NDArray[np.bool_] | None = None,
    *,
    diameter: float | None = None,
    hard: npt.NDArray[np.bool_] | None = None,
    points: MarkedPoints | None = None,
) -> TrainingImage:
    """Return the image resampled so that its typical nucleus has the given diameter.

    Parameters
    ----------
    image : (H, W, 3) uint8
    labels : (H, W) int
    nucleus_diameter : float
        In pixels of the result.
    known : (H, W) bool, optional
        Where the labels may be trusted; everywhere by default.
    diameter : float, optional
        Typical diameter in pixels of the image; by default that of its labels.
    hard : (H, W) bool, optional
        Background that weighs more.
    points : MarkedPoints, optional
        In pixels of the image.
    """
    if diameter is None:
        diameter = typical_diameter(labels)
    scale = 1.0 if diameter is None else scale_to(nucleus_diameter, diameter)
    size = [max(1, round(n * scale)) for n in labels.shape]
    pixels = (
        torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    )
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    trusted = np.ones(labels.shape, bool) if known is None else known
    extra = np.zeros(labels.shape, bool) if hard is None else hard
    # one by one, for a slide's worth of pixels takes much memory
    resized_labels, resized_trusted, resized_extra = (
        F.interpolate(
            torch.from_numpy(plane.astype(np.float64))[None, None],
            size,
            mode="nearest-exact",
        )[0, 0].to(torch.int32)
        for plane in (labels, trusted, extra)
    )
    distance = distance_to_border(resized_labels.numpy())
    marked = points or MarkedPoints.empty()
    factor = np.array(size) / np.array(labels.shape)
    return TrainingImage(
        image=resized[0].round().clamp(0, 255).to(torch.uint8),
        labels=resized_labels,
        distance=torch.from_numpy(distance.astype(np.float16)),
        known=resized_trusted > 0,
        hard=resized_extra > 0 if hard is not None and hard.any() else None,
        points=marked.moved((marked.yx + 0.5) * factor - 0.5),
    )


def draw_crops(
    images: Sequence[TrainingImage],
    count: int,
    size: int,
    rng: np.random.Generator,
    *,
    weights: npt.NDArray[np.float64] | None = None,
    mild: bool = False,
) -> Crops:
    """Return random crops: turned, mirrored, zoomed, with altered colours.

    Parameters
    ----------
    images : sequence of TrainingImage
    count, size : int
        Number of crops and their side in pixels.
    rng : numpy.random.Generator
    weights : (len(images),) float, optional
        How often each image is drawn; sums to 1.
    mild : bool
        Whether zoom and colours stay near the image's own, as fine-tuning to one kind
        of image wants, or go far from it.
    """
    chosen = rng.choice(len(images), count, p=weights)
    return Crops.concatenate([_draw_crop(images[i], size, rng, mild) for i in chosen])


def _draw_zoom(rng: np.random.Generator, mild: bool) -> float:
    """Most crops near the model's own scale, some far off: images of unknown scale."""
    if mild:
        return float(np.exp(np.clip(rng.normal(0, 0.15), -0.4, 0.4)))
    if rng.random() < 0.2:
        return float(np.exp(rng.uniform(np.log(0.35), np.log(2.3))))
    return float(np.exp(np.clip(rng.normal(0, 0.25), -0.7, 0.7)))


@dataclass(frozen=True)
class _View:
    """How a crop looks at its image: about ``centre``, zoomed, turned, mirrored."""

    centre: tuple[float, float]
    zoom: float
    angle: float
    turns: int
    mirror: bool
    size: int

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return y and x (size, size) in the image of each pixel, at its edge."""
        offsets = (torch.arange(self.size) + 0.5 - self.size / 2) / self.zoom
        cos, sin = float(np.cos(self.angle)), float(np.sin(self.angle))
        y = self.centre[0] + cos * offsets[:, None] - sin * offsets[None, :]
        x = self.centre[1] + sin * offsets[:, None] + cos * offsets[None, :]
        y, x = (torch.rot90(_mirrored(g, self.mirror), self.turns) for g in (y, x))
        return y, x

    def to_crop(self, yx: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return where pixels (N, 2) of the image lie in the crop."""
        away = yx + 0.5 - self.centre
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        middle = (self.size - 1) / 2
        row = (cos * away[:, 0] + sin * away[:, 1]) * self.zoom + middle
        column = (cos * away[:, 1] - sin * away[:, 0]) * self.zoom + middle
        if self.mirror:
            column = self.size - 1 - column
        for _ in range(self.turns):
            row, column = self.size - 1 - column, row
        return np.stack([row, column], axis=1)


def _draw_view(
    shape: tuple[int, int], size: int, rng: np.random.Generator, mild: bool
) -> _View:
    zoom = _draw_zoom(rng, mild)
    angle = rng.uniform(-np.pi / 4, np.pi / 4) if rng.random() < 0.5 else 0.0
    reach = size / zoom
    y, x = (
        rng.uniform(min(reach, n) / 2, n - min(reach, n) / 2) if n > reach else n / 2
        for n in shape
    )
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    return _View((y, x), zoom, angle, turns, mirror, size)


def _toward_known(
    view: _View, known: Tensor, rng: np.random.Generator
) -> tuple[float, float]:
    """Return a centre with reviewed pixels near it, where much was not reviewed."""
    places = known.numpy().ravel()
    if places.mean() > _MOSTLY_KNOWN or not places.any():
        return view.centre
    y, x = divmod(int(rng.choice(np.flatnonzero(places))), known.shape[1])
    jitter = rng.uniform(-0.25, 0.25, 2) * view.size / view.zoom
    return float(y + jitter[0]), float(x + jitter[1])


def _draw_crop(
    source: TrainingImage, size: int, rng: np.random.Generator, mild: bool
) -> Crops:
    height, width = source.labels.shape
    view = _draw_view((height, width), size, rng, mild)
    if mild:
        view = replace(view, centre=_toward_known(view, source.known, rng))
    y, x = view.grid()
    top, left = max(0, int(y.min()) - 2), max(0, int(x.min()) - 2)
    box = (
        slice(top, min(height, int(y.max()) + 3)),
        slice(left, min(width, int(x.max()) + 3)),
    )
    h, w = box[0].stop - top, box[1].stop - left
    grid = torch.stack([(x - left) / w, (y - top) / h], -1)[None] * 2 - 1
    # zeros in the shifted image are SAM's padding: the pixel mean
    pixels = source.image[(slice(None), *box)].float()[None] - 127.5
    image = F.grid_sample(pixels, grid, "bilinear", "zeros", align_corners=False)[0]
    known = source.known[box].float()
    hard = torch.zeros_like(known) if source.hard is None else source.hard[box].float()
    planes = torch.stack([source.labels[box].float(), known, hard])
    labels, known, weighty = F.grid_sample(
        planes[None], grid, "nearest", "zeros", align_corners=False
    )[0]
    distance = F.grid_sample(
        source.distance[box].float()[None, None],
        grid,
        "bilinear",
        "zeros",
        align_corners=False,
    )[0, 0]
    distance = _over_seen_maximum(distance, labels)
    outside = (grid.abs() > 1).any(-1)[0]
    image = _alter_colours(image, rng, mild)
    image[:, outside] = 127.5
    points = source.points.moved(view.to_crop(source.points.yx)).inside((size, size))
    return Crops(
        image[None],
        labels.to(torch.int64)[None],
        distance[None],
        ((known > 0.5) | outside)[None],
        None if source.hard is None else (weighty > 0.5)[None],
        (points,),
    )


def _over_seen_maximum(distance: Tensor, labels: Tensor) -> Tensor:
    """Return the distance over its maximum in what the crop shows of each nucleus.

    Of a nucleus that the crop cuts nobody can tell how deep the rest of it is.
    """
    numbers = labels.ravel().long()
    highest = torch.zeros(int(numbers.max()) + 1)
    highest.scatter_reduce_(0, numbers, distance.ravel(), "amax")
    highest[0] = 1.0
    return distance / highest.clamp(min=1e-3)[labels.long()]


def _mirrored(plane: Tensor, mirror: bool) -> Tensor:
    return plane.flip(1) if mirror else plane


def _alter_colours(shifted: Tensor, rng: np.random.Generator, mild: bool) -> Tensor:
    """Return the image in [0, 255], changed in gain, gamma, colour, noise, polarity.

    Takes the image shifted by -127.5, (3, S, S).
    """
    image = (shifted + 127.5).clamp(0, 255) / 255
    part = 0.5 if mild else 1.0
    if rng.random() < 0.8:
        image = image ** float(np.exp(rng.normal(0, 0.25 * part)))
        gain = torch.tensor(rng.normal(1, 0.08 * part, (3, 1, 1)), dtype=torch.float32)
        shift = torch.tensor(rng.normal(0, 0.04 * part, (3, 1, 1)), dtype=torch.float32)
        gain = gain * float(rng.normal(1, 0.1 * part))
        grey = bool((image[0] == image[1]).all())
        image = image * gain.mean() + shift.mean() if grey else image * gain + shift
    if rng.random() < 0.1 and not mild:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    # often enough: nuclei darker than their ground are rare in the data, and forgotten
    if rng.random() < 0.25 and not mild:
        image = 1 - image
    if rng.random() < 0.15:
        image = F.avg_pool2d(image[None], 3, stride=1, padding=1)[0]
    if rng.random() < 0.3:
        noise = torch.from_numpy(rng.standard_normal(image.shape[1:], dtype=np.float32))
        image = image + noise * float(rng.uniform(0, 0.05 * part))
    return image.clamp(0, 1) * 255


def draw_prompts(
    crops: Crops,
    per_crop: int,
    rng: np.random.Generator,
    *,
    background: float = 0.2,
    negatives: float = 0.5,
) -> PromptBatch:
    """Return prompts on the nuclei of each crop, as generator and user would set them.

    A positive is one of the generator's own proposals where there is one in the
    nucleus, else most lie near the middle and the others anywhere inside. A negative,
    where there is one, is the user's own for this nucleus, or another nucleus nearby.
    Rejected proposals, and those on known background ask for nothing.

    Parameters
    ----------
    crops : Crops
    per_crop : int
        At most so many prompts on nuclei of each crop.
    rng : numpy.random.Generator
    background : float
        How often a crop also has a prompt on the background, which asks for nothing.
    negatives : float
        How often a prompt has a negative point.
    """
    index, label, points, signs = [], [], [], []
    none = MarkedPoints.empty()
    for i in range(len(crops.labels)):
        marked = crops.points[i] if crops.points else none
        objects = _points_of_objects(crops, i, rng)
        objects = _at_proposals(objects, crops.labels[i], marked, rng)
        ids = rng.permutation(np.array(sorted(objects)))[:per_crop]
        all_points = np.array([objects[k] for k in objects]).reshape(-1, 2)
        own = marked.of_kind(PointKind.NEGATIVE)
        for k in ids:
            negative = _one_of(own.yx[own.label == k], rng)
            if negative is None and rng.random() < negatives:
                negative = _nearest_other(objects[k], all_points, rng)
            index.append(i)
            label.append(int(k))
            points.append(
                [objects[k], negative if negative is not None else (0.0, 0.0)]
            )
            signs.append([POSITIVE, NEGATIVE if negative is not None else NO_POINT])
        for place in _empty_places(crops, i, marked, background, rng):
            index.append(i)
            label.append(0)
            points.append([place, (0.0, 0.0)])
            signs.append([POSITIVE, NO_POINT])
    return PromptBatch(
        torch.tensor(index, dtype=torch.int64),
        torch.tensor(label, dtype=torch.int64),
        torch.tensor(np.array(points, dtype=np.float32).reshape(-1, 2, 2)),
        torch.tensor(np.array(signs, dtype=np.int64).reshape(-1, 2)),
    )


def _at_proposals(
    objects: dict[int, tuple[float, float]],
    labels: Tensor,
    marked: MarkedPoints,
    rng: np.random.Generator,
) -> dict[int, tuple[float, float]]:
    """Return the points of nuclei, most of those with a proposal moved onto it."""
    proposals = marked.of_kind(PointKind.PROPOSAL)
    if len(proposals.yx) == 0:
        return objects
    pixels = np.rint(proposals.yx).astype(np.int64)
    found = labels.numpy()[pixels[:, 0], pixels[:, 1]]
    moved = dict(objects)
    for k, (y, x) in zip(found.tolist(), proposals.yx, strict=True):
        if k in moved and rng.random() < 0.6:
            moved[k] = (float(y), float(x))
    return moved


def _one_of(
    points: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float] | None:
    if len(points) == 0:
        return None
    y, x = points[rng.integers(len(points))]
    return float(y), float(x)


def _empty_places(
    crops: Crops,
    i: int,
    marked: MarkedPoints,
    background: float,
    rng: np.random.Generator,
) -> list[tuple[float, float]]:
    """Return points on known background: false proposals, and one anywhere."""
    empty = ((crops.labels[i] == 0) & crops.known[i]).numpy()
    false = marked.kind != PointKind.NEGATIVE
    pixels = np.rint(marked.yx).astype(np.int64)
    if len(pixels):
        false &= empty[pixels[:, 0], pixels[:, 1]]
    chosen = rng.permutation(np.flatnonzero(false))[:_HARD_PROMPTS]
    places = [(float(y), float(x)) for y, x in marked.yx[chosen]]
    if rng.random() < background:
        anywhere = np.flatnonzero(empty.ravel())
        if len(anywhere):
            y, x = divmod(int(rng.choice(anywhere)), empty.shape[1])
            places.append((float(y), float(x)))
    return places


def _points_of_objects(
    crops: Crops, i: int, rng: np.random.Generator
) -> dict[int, tuple[float, float]]:
    """Return one random point inside each nucleus that is known and large enough."""
    labels = crops.labels[i].numpy().ravel()
    usable = np.where(crops.known[i].numpy().ravel(), labels, 0)
    order = np.argsort(usable, kind="stable")
    ids, starts = np.unique(usable[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    distance = crops.distance[i].numpy().ravel()
    width = crops.labels.shape[-1]
    points = {}
    for k, start, end in zip(ids, starts, ends, strict=True):
        if k == 0 or end - start < 12:
            continue
        pixels = order[start:end]
        depth = distance[pixels]
        if rng.random() < 0.65:
            chosen = pixels[np.argmax(depth + rng.uniform(0, 0.3, len(depth)))]
        else:
            chosen = rng.choice(pixels)
        y, x = divmod(int(chosen), width)
        points[int(k)] = (float(y), float(x))
    return points


def _nearest_other(
    point: tuple[float, float],
    points: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    squared = ((points - point) ** 2).sum(1)
    squared[squared == 0] = np.inf
    near = np.argsort(squared)[:2]
    near = near[squared[near] < _CLICK_REACH**2]
    if len(near) == 0:
        return None
    y, x = points[near[0] if rng.random() < 0.8 else rng.choice(near)]
    return float(y), float(x)
