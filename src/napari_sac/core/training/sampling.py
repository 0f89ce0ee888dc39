"""Draw training crops and the prompts on them, as they will be met in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.training.targets import distance_to_border, typical_diameter
from napari_sac.core.types import NEGATIVE, POSITIVE, IntArray


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
    """

    image: Tensor
    labels: Tensor
    distance: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Crops:
    """A batch of crops: image (B, 3, S, S) in [0, 255], the rest (B, S, S)."""

    image: Tensor
    labels: Tensor
    distance: Tensor
    known: Tensor


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


def prepare_image(
    image: npt.NDArray[np.uint8],
    labels: IntArray,
    nucleus_diameter: float,
    known: npt.NDArray[np.bool_] | None = None,
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
    """
    diameter = typical_diameter(labels)
    scale = 1.0 if diameter is None else nucleus_diameter / diameter
    scale = float(np.clip(scale, 0.25, 4.0))
    size = [max(1, round(n * scale)) for n in labels.shape]
    pixels = (
        torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    )
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    trusted = np.ones(labels.shape, bool) if known is None else known
    planes = torch.from_numpy(np.stack([labels, trusted]).astype(np.float64))[None]
    planes = F.interpolate(planes, size, mode="nearest-exact")[0]
    resized_labels = planes[0].to(torch.int32)
    distance = distance_to_border(resized_labels.numpy())
    return TrainingImage(
        image=resized[0].round().clamp(0, 255).to(torch.uint8),
        labels=resized_labels,
        distance=torch.from_numpy(distance.astype(np.float16)),
        known=planes[1] > 0.5,
    )


def draw_crops(
    images: list[TrainingImage],
    count: int,
    size: int,
    rng: np.random.Generator,
    *,
    weights: npt.NDArray[np.float64] | None = None,
) -> Crops:
    """Return random crops: turned, mirrored, zoomed, with altered colours.

    Parameters
    ----------
    images : list of TrainingImage
    count, size : int
        Number of crops and their side in pixels.
    rng : numpy.random.Generator
    weights : (len(images),) float, optional
        How often each image is drawn; sums to 1.
    """
    chosen = rng.choice(len(images), count, p=weights)
    crops = [_draw_crop(images[i], size, rng) for i in chosen]
    return Crops(*(torch.stack(parts) for parts in zip(*crops, strict=True)))


def _draw_zoom(rng: np.random.Generator) -> float:
    """Most crops near the model's own scale, some far off: images of unknown scale."""
    if rng.random() < 0.2:
        return float(np.exp(rng.uniform(np.log(0.35), np.log(2.3))))
    return float(np.exp(np.clip(rng.normal(0, 0.25), -0.7, 0.7)))


def _draw_crop(
    source: TrainingImage, size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    zoom = _draw_zoom(rng)
    angle = rng.uniform(-np.pi / 4, np.pi / 4) if rng.random() < 0.5 else 0.0
    height, width = source.labels.shape
    reach = size / zoom
    centre = [
        rng.uniform(min(reach, n) / 2, n - min(reach, n) / 2) if n > reach else n / 2
        for n in (height, width)
    ]
    offsets = (torch.arange(size) + 0.5 - size / 2) / zoom
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    y = centre[0] + cos * offsets[:, None] - sin * offsets[None, :]
    x = centre[1] + sin * offsets[:, None] + cos * offsets[None, :]
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    y, x = (torch.rot90(_mirrored(g, mirror), turns) for g in (y, x))
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
    planes = torch.stack([source.labels[box].float(), source.known[box].float()])
    labels, known = F.grid_sample(
        planes[None], grid, "nearest", "zeros", align_corners=False
    )[0]
    distance = F.grid_sample(
        source.distance[box].float()[None, None],
        grid,
        "bilinear",
        "zeros",
        align_corners=False,
    )[0, 0]
    outside = (grid.abs() > 1).any(-1)[0]
    image = _alter_colours(image, rng)
    image[:, outside] = 127.5
    return image, labels.to(torch.int64), distance, (known > 0.5) | outside


def _mirrored(plane: Tensor, mirror: bool) -> Tensor:
    return plane.flip(1) if mirror else plane


def _alter_colours(shifted: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the image in [0, 255], changed in gain, gamma, colour, noise, polarity.

    Takes the image shifted by -127.5, (3, S, S).
    """
    image = (shifted + 127.5).clamp(0, 255) / 255
    if rng.random() < 0.8:
        image = image ** float(np.exp(rng.normal(0, 0.25)))
        gain = torch.tensor(rng.normal(1, 0.08, (3, 1, 1)), dtype=torch.float32)
        shift = torch.tensor(rng.normal(0, 0.04, (3, 1, 1)), dtype=torch.float32)
        gain = gain * float(rng.normal(1, 0.1))
        grey = bool((image[0] == image[1]).all())
        image = image * gain.mean() + shift.mean() if grey else image * gain + shift
    if rng.random() < 0.1:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    if rng.random() < 0.08:
        image = 1 - image
    if rng.random() < 0.15:
        image = F.avg_pool2d(image[None], 3, stride=1, padding=1)[0]
    if rng.random() < 0.3:
        noise = torch.from_numpy(rng.standard_normal(image.shape[1:], dtype=np.float32))
        image = image + noise * float(rng.uniform(0, 0.05))
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

    Most positives lie near the middle of their nucleus, the others anywhere inside.
    A negative, where there is one, is another nucleus nearby.

    Parameters
    ----------
    crops : Crops
    per_crop : int
        At most so many prompts on each crop.
    rng : numpy.random.Generator
    background : float
        How often a crop also has a prompt on the background, which asks for nothing.
    negatives : float
        How often a prompt has a negative point.
    """
    index, label, points, signs = [], [], [], []
    for i in range(len(crops.labels)):
        objects = _points_of_objects(crops, i, rng)
        ids = rng.permutation(np.array(sorted(objects)))[:per_crop]
        all_points = np.array([objects[k] for k in objects]).reshape(-1, 2)
        for k in ids:
            negative = None
            if rng.random() < negatives:
                negative = _nearest_other(objects[k], all_points, rng)
            index.append(i)
            label.append(int(k))
            points.append(
                [objects[k], negative if negative is not None else (0.0, 0.0)]
            )
            signs.append([POSITIVE, NEGATIVE if negative is not None else -1])
        if rng.random() < background:
            empty = np.flatnonzero(
                ((crops.labels[i] == 0) & crops.known[i]).numpy().ravel()
            )
            if len(empty):
                place = divmod(int(rng.choice(empty)), crops.labels.shape[-1])
                index.append(i)
                label.append(0)
                points.append([place, (0.0, 0.0)])
                signs.append([POSITIVE, -1])
    return PromptBatch(
        torch.tensor(index, dtype=torch.int64),
        torch.tensor(label, dtype=torch.int64),
        torch.tensor(np.array(points, dtype=np.float32).reshape(-1, 2, 2)),
        torch.tensor(np.array(signs, dtype=np.int64).reshape(-1, 2)),
    )


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
    reach: float = 40.0,
) -> tuple[float, float] | None:
    squared = ((points - point) ** 2).sum(1)
    squared[squared == 0] = np.inf
    near = np.argsort(squared)[:2]
    near = near[squared[near] < reach**2]
    if len(near) == 0:
        return None
    y, x = points[near[0] if rng.random() < 0.8 else rng.choice(near)]
    return float(y), float(x)
