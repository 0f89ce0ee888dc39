"""Decode prompts into masks, each nucleus by the tile that owns its prompt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional as F

from napari_sac.core.inference.instances import placed_objects
from napari_sac.core.inference.window_decoding import (
    decode_windows,
    gather_windows,
    window_origins,
)
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.types import (
    NEGATIVE,
    POSITIVE,
    ObjectMask,
    Prompts,
    PromptState,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from napari_sac.core.config import DecodeConfig
    from napari_sac.core.inference.embedding import Embedding
    from napari_sac.core.models.registry import Model

NEIGHBOUR_REACH = 40 / 24
"""How near, in nucleus diameters, another nucleus must be to serve as a negative."""

_LEAST_BATCH = 4

_FEW_PAIRS = 1 << 18
_SPARE = 6
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class _Query:
    """One nucleus to decode: points (N, 2) in pixels of the encoder's input."""

    object_id: int
    points: npt.NDArray[np.float64]
    signs: npt.NDArray[np.int64]
    tile: int
    key: bytes
    points_key: bytes

    @property
    def centre(self) -> npt.NDArray[np.float64]:
        """The middle of the positives: where the window is laid."""
        positives = self.points[self.signs == POSITIVE]
        return np.asarray((positives.min(0) + positives.max(0)) / 2)

    @property
    def extent(self) -> float:
        """How far the positives lie from each other along an axis."""
        return float(np.ptp(self.points[self.signs == POSITIVE], axis=0).max())


def neighbour_reach(embedding: Embedding, model: Model) -> float:
    """Return how near, in pixels of the image, a neighbour must be to be a negative."""
    return NEIGHBOUR_REACH * model.spec.nucleus_diameter / embedding.scale


def neighbour_negatives(
    prompts: Prompts,
    count: int,
    reach: float,
    *,
    only: Collection[int] | None = None,
) -> Prompts:
    """Return the negatives that each nucleus gets from its nearest neighbours.

    Negatives that follow from the neighbours are not stored but derived, so that
    deleting or adding a nucleus changes those beside it too.

    Only what a person placed, by adding or moving a point, pushes its neighbours away
    and is pushed by them. Two proposals are as often one nucleus as two: decoded
    freely, their masks say which (measured: decision 0016).

    Parameters
    ----------
    prompts : Prompts
    count : int
        Negatives to add to each nucleus, at most.
    reach : float
        Largest distance in pixels between two neighbours.
    only : collection of int, optional
        The nuclei whose negatives are wanted; they are the same as among those of all.

    Returns
    -------
    Prompts
        In order of ``object_id``, the nearest first; of two that are equally near the
        one with the lower ``object_id``.

    References
    ----------
    PromptNucSeg (Shui et al. 2024) found that neighbours help when they serve in
    training and in inference alike, and one more than two. That was for points of which
    each is a nucleus.
    """
    positives = first_positives(prompts)
    if count == 0 or len(positives) < 2:
        return Prompts.empty()
    wanted = np.ones(len(positives), bool)
    if only is not None:
        wanted = np.isin(positives.object_id, list(only))
    placed = np.isin(positives.object_id, list(placed_objects(prompts)))
    everybody = np.arange(len(positives))
    pairs = [
        _nearest(positives.yx, np.flatnonzero(wanted & rows), others, count, reach)
        for rows, others in ((placed, everybody), (~placed, np.flatnonzero(placed)))
    ]
    owner, neighbour = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.argsort(owner, kind="stable")
    owner, neighbour = owner[order], neighbour[order]
    return Prompts.from_points(
        positives.yx[neighbour],
        object_id=positives.object_id[owner],
        sign=NEGATIVE,
        score=positives.score[owner],
        state=PromptState.AUTO.value,
    )


def first_positives(prompts: Prompts) -> Prompts:
    """Return the first positive row of each nucleus, in order of ``object_id``."""
    positives = prompts.select(prompts.sign == POSITIVE)
    _, first = np.unique(positives.object_id, return_index=True)
    return positives.select(first)


def surroundings(
    prompts: Prompts, places: npt.NDArray[np.float64], reach: float
) -> Prompts:
    """Return all rows of the nuclei within reach of some places, and of some others.

    What follows from neighbours is the same there as among all. It is found sooner: on
    many rows numpy lets go of the interpreter in every operation, and while the
    window's thread is busy each waits its turn to get it back.

    Parameters
    ----------
    prompts : Prompts
    places : (N, 2) float64
        At least one, (y, x) in pixels of the image.
    reach : float
        In pixels of the image.
    """
    slack = reach * (1 + _ROUNDING)
    low, high = places.min(0) - slack, places.max(0) + slack
    inside = ((prompts.yx >= low) & (prompts.yx <= high)).all(1)
    return prompts.select(np.isin(prompts.object_id, prompts.object_id[inside]))


def _nearest(
    points: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    count: int,
    reach: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs of one of ``rows`` and one of the ``count`` nearest of ``others``.

    Which of two equally near points counts must not depend on how many rows are asked
    for, or an edit would give other labels than decoding everything.
    """
    if len(rows) * len(others) <= _FEW_PAIRS:
        return _nearest_of_all(points, rows, others, count, reach)
    wanted = min(count + _SPARE, len(others))
    # numbers, not one alone: with k=1 the answer would have one axis less
    distance, near = KDTree(points[others]).query(
        points[rows],
        k=range(1, wanted + 1),
        distance_upper_bound=reach * (1 + _ROUNDING),
    )
    tied = distance[:, -1] <= distance[:, min(count, wanted - 1)] * (1 + _ROUNDING)
    unsure = np.isfinite(distance[:, -1]) & tied & (wanted < len(others))
    found = np.isfinite(distance) & ~unsure[:, None]
    owner, neighbour = np.repeat(rows, found.sum(1)), others[near[found]]
    owner, neighbour = _rank(points, owner, neighbour, count, reach)
    parts = [(owner, neighbour)]
    parts += [
        _nearest_of_all(points, rows[[i]], others, count, reach)
        for i in unsure.nonzero()[0]
    ]
    owner, neighbour = (np.concatenate(column) for column in zip(*parts, strict=True))
    return owner, neighbour


def _nearest_of_all(
    points: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    count: int,
    reach: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    away = np.abs(points[rows, None] - points[others]).max(-1)
    owner, neighbour = np.nonzero(away <= reach)
    return _rank(points, rows[owner], others[neighbour], count, reach)


def _rank(
    points: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    neighbour: npt.NDArray[np.int64],
    count: int,
    reach: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the ``count`` nearest pairs of each owner within reach, nearest first."""
    squared = ((points[owner] - points[neighbour]) ** 2).sum(1)
    # a point that is there twice must not speak against itself
    valid = (owner != neighbour) & (squared > 0) & (squared <= reach**2)
    owner, neighbour, squared = owner[valid], neighbour[valid], squared[valid]
    order = np.lexsort((neighbour, squared, owner))
    owner, neighbour = owner[order], neighbour[order]
    first = np.searchsorted(owner, owner)
    best = np.arange(len(owner)) - first < count
    return owner[best], neighbour[best]


def active_prompts(prompts: Prompts) -> Prompts:
    """Return the prompts that nobody rejected."""
    return prompts.select(~prompts.rejected)


def decode_prompts(
    embedding: Embedding,
    prompts: Prompts,
    model: Model,
    config: DecodeConfig,
    *,
    reuse: Mapping[int, ObjectMask] | None = None,
    only: Collection[int] | None = None,
    progress: Progress = ignore_progress,
) -> list[ObjectMask]:
    """Return the mask of every nucleus that has a positive prompt.

    On one machine a nucleus gets the same numbers to the last bit, alone and in
    company.

    Parameters
    ----------
    embedding : Embedding
        Of the image the prompts lie on, by the same model.
    prompts : Prompts
        Rejected ones are passed over.
    model : Model
    config : DecodeConfig
    reuse : mapping of int to ObjectMask, optional
        Masks by ``object_id``; one made from the same prompts by the same model is
        returned as it is, so after an edit only the touched nuclei are decoded.
    only : collection of int, optional
        The nuclei whose masks are wanted. The others still serve as neighbours.
    progress : Progress, optional

    Returns
    -------
    list of ObjectMask
        In order of ``object_id``. A mask may be empty (all logits below zero).
    """
    known = reuse or {}
    queries = list(_queries(embedding, prompts, model, config, only))
    fresh = [
        q
        for q in queries
        if q.object_id not in known or known[q.object_id].prompt_key != q.key
    ]
    decoded = {q.object_id: known[q.object_id] for q in queries if q.object_id in known}
    progress("decoding", 0, len(fresh))
    done = 0
    window = model.spec.window
    grid = model.spec.architecture.grid_size
    patch = model.spec.architecture.patch_size
    pending = fresh
    while pending:
        # a window that is too small for its positives shows something else
        most = np.inf if window == grid else (window - 1) * patch
        grown = [query for query in pending if query.extent > most]
        fitting = [query for query in pending if query.extent <= most]
        for batch in _batches(fitting, window, model):
            for query, mask in _decode_batch(
                batch, window, embedding, model, config.generator_weight
            ):
                if mask is None:
                    grown.append(query)
                else:
                    decoded[query.object_id] = mask
                    done += 1
            progress("decoding", done, len(fresh))
        pending = grown
        window = min(2 * window, grid)
    return [decoded[k] for k in sorted(decoded)]


def _queries(
    embedding: Embedding,
    prompts: Prompts,
    model: Model,
    config: DecodeConfig,
    only: Collection[int] | None,
) -> Iterator[_Query]:
    reach = neighbour_reach(embedding, model)
    if only is not None:
        places = prompts.yx[np.isin(prompts.object_id, list(only))]
        if len(places) == 0:
            return
        prompts = surroundings(prompts, places, reach)
    active = own_rows = active_prompts(prompts)
    if only is not None:
        own_rows = active.select(np.isin(active.object_id, list(only)))
    count = config.neighbour_negatives
    negatives = neighbour_negatives(active, count, reach, only=only)
    together = Prompts.concatenate([own_rows, negatives])
    if len(together) == 0:
        return
    order = np.argsort(together.object_id, kind="stable")
    table = together.select(order)
    points = embedding.to_input(table.yx)
    starts = np.flatnonzero(np.diff(table.object_id, prepend=-1))
    is_own = order < len(own_rows)
    base = f"{model.key}|{embedding.key}|{config.generator_weight:g}".encode()
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        signs = table.sign[start:end].astype(np.int64)
        if not (signs == POSITIVE).any():
            continue
        own = points[start:end]
        first = own[signs == POSITIVE][:1]
        digest = hashlib.blake2b(base, digest_size=16)
        digest.update(own.tobytes() + signs.tobytes())
        own_end = start + np.count_nonzero(is_own[start:end])
        where = table.yx[start:own_end].tobytes() + table.sign[start:own_end].tobytes()
        yield _Query(
            int(table.object_id[start]),
            own,
            signs,
            int(embedding.owners(first)[0]),
            digest.digest(),
            hashlib.blake2b(where, digest_size=16).digest(),
        )


def _batch_size(window: int, model: Model) -> int:
    """Return how many queries are decoded at once, whatever their number."""
    size = model.device.batch_tokens // window**2
    # in batches of two or three the place within the batch changes the rounding
    return size if size >= _LEAST_BATCH else 1


def _batches(
    queries: Iterable[_Query], window: int, model: Model
) -> Iterator[list[_Query]]:
    """Return queries with equally many points, of one batch at most.

    A point more, even one that says "no point", changes SAM's answer a little; with
    equal numbers a nucleus gets the same mask alone and in company.
    """
    by_length: dict[int, list[_Query]] = {}
    for query in queries:
        by_length.setdefault(len(query.points), []).append(query)
    size = _batch_size(window, model)
    for group in by_length.values():
        # a batch copies the embeddings of all tiles that its queries lie in
        group.sort(key=lambda query: query.tile)
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _decode_batch(
    batch: list[_Query],
    window: int,
    embedding: Embedding,
    model: Model,
    generator_weight: float,
) -> list[tuple[_Query, ObjectMask | None]]:
    """Decode one batch; None for a mask that needs a larger window.

    Matrix products round differently in batches of different size, so every batch is
    filled up to the same.
    """
    count = len(batch)
    batch = batch + batch[:1] * (_batch_size(window, model) - len(batch))
    architecture = model.spec.architecture
    grid, patch = architecture.grid_size, architecture.patch_size
    device = model.device.torch_device
    tiles = np.array([q.tile for q in batch])
    corners = embedding.tile_origins()[tiles]
    points = np.stack([q.points for q in batch]) - corners[:, None]
    centres = np.stack([q.centre for q in batch]) - corners
    origins = window_origins(torch.from_numpy(centres), window, grid, patch)
    used, position = np.unique(tiles, return_inverse=True)
    with torch.inference_mode(), model.device.autocast():
        features = embedding.features[torch.from_numpy(used)].to(device)
        origins_there = origins.to(device)
        windows = gather_windows(
            features, torch.from_numpy(position).to(device), origins_there, window
        )
        logits, predicted_iou = decode_windows(
            model.sam,
            windows,
            origins_there,
            torch.from_numpy(points).float().to(device),
            torch.from_numpy(np.stack([q.signs for q in batch])).to(device),
            local_frame=model.spec.local_frame,
        )
        logits, predicted_iou = logits.float().cpu(), predicted_iou.float().cpu()
    first = origins.numpy() * patch + corners
    seen = _to_image(logits, first, window * patch, embedding, generator_weight)
    # a side of the tile ends there because nothing more is known, not by choice
    cut = np.stack([origins.numpy() > 0, origins.numpy() + window < grid], axis=1)
    result: list[tuple[_Query, ObjectMask | None]] = []
    for i, query in enumerate(batch[:count]):
        start, values = seen[i]
        positives = embedding.to_image(query.points[query.signs == POSITIVE])
        own = keep_own_part(values, positives - start)
        if window < grid and _touches(own, cut[i], start, embedding):
            result.append((query, None))
            continue
        origin, cropped = _crop(own, start)
        mask = ObjectMask(
            object_id=query.object_id,
            origin_yx=origin,
            logits=cropped,
            predicted_iou=float(predicted_iou[i].clamp(0, 1)),
            prompt_key=query.key,
            points_key=query.points_key,
        )
        result.append((query, mask))
    return result


def keep_own_part(
    logits: npt.NDArray[np.float32], positives: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Return the logits with 0 in the parts of a mask that hold none of its positives.

    What SAM leaves open between nuclei the generator may lift above 0, so a window can
    show neighbours beside the nucleus that was meant.

    Parameters
    ----------
    logits : (h, w) float32
    positives : (N, 2) float64
        (y, x) of the nucleus's positives, in pixels of ``logits``; they may lie beside.

    Returns
    -------
    (h, w) float32
        If no positive lies in a part, the largest is kept.
    """
    parts, count = ndimage.label(logits > 0)
    if count < 2:
        return logits
    y, x = np.clip(np.rint(positives).astype(int), 0, np.subtract(logits.shape, 1)).T
    own = set(parts[y, x].tolist()) - {0}
    own = own or {int(np.argmax(np.bincount(parts.ravel())[1:])) + 1}
    return np.where((parts == 0) | np.isin(parts, list(own)), logits, np.float32(0))


def _touches(
    logits: npt.NDArray[np.float32],
    cut: npt.NDArray[np.bool_],
    start: npt.NDArray[np.int64],
    embedding: Embedding,
) -> bool:
    """Return whether a mask reaches a side of its window beyond which more is known.

    Parameters
    ----------
    logits : (h, w) float32
        Of the pixels of the window that lie in the image.
    cut : (2, 2) bool
        Whether the tile goes on before the first and behind the last row, and likewise
        for the columns.
    start : (2,) int
        Pixel of the image at ``logits[0, 0]``.
    embedding : Embedding
    """
    inside = logits > 0
    end = start + logits.shape
    sides = np.array(
        [
            [inside[0].any(), inside[:, 0].any()],
            [inside[-1].any(), inside[:, -1].any()],
        ]
    )
    goes_on = np.array([start > 0, end < embedding.image_shape])
    return bool((sides & cut & goes_on).any())


def _to_image(
    logits: Tensor,
    first: npt.NDArray[np.int64],
    side: int,
    embedding: Embedding,
    generator_weight: float,
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Return the logits at the pixels of the image, and where these begin.

    Parameters
    ----------
    logits : (P, n, n) float tensor
        Of windows of ``side`` pixels of the encoder's input.
    first : (P, 2) int
        First pixel (y, x) of each window in the encoder's input.
    side : int
    embedding : Embedding
    generator_weight : float
        How much of the generator's logits is added.
    """
    scale = embedding.scale
    shape = np.array(embedding.image_shape)
    start = np.ceil(np.maximum(first, 0) / scale - 0.5).astype(np.int64)
    start = np.clip(start, 0, shape - 1)
    count = int(np.ceil(side / scale)) + 1
    steps = np.arange(count)
    # a window's pixel edges lie at -1 and 1: grid_sample without aligned corners
    grid = [
        ((start[:, i, None] + steps + 0.5) * scale - first[:, i, None]) / side * 2 - 1
        for i in (0, 1)
    ]
    y, x = (torch.from_numpy(g).float() for g in grid)
    places = torch.stack(
        [x[:, None, :].expand(-1, count, -1), y[:, :, None].expand(-1, -1, count)],
        dim=-1,
    )
    sampled = F.grid_sample(
        logits[:, None], places, padding_mode="border", align_corners=False
    )
    values = sampled[:, 0].numpy()
    if generator_weight:
        values = values + generator_weight * embedding.foreground.windows(start, count)
    end = np.minimum(np.floor((first + side) / scale - 0.5).astype(np.int64) + 1, shape)
    sizes = np.maximum(end - start, 1)
    return [
        (at, one[:height, :width])
        for at, one, (height, width) in zip(start, values, sizes, strict=True)
    ]


def _crop(
    logits: npt.NDArray[np.float32], start: npt.NDArray[np.int64]
) -> tuple[tuple[int, int], npt.NDArray[np.float32]]:
    """Return where a mask begins in the image, and its logits around what is inside."""
    inside = logits > 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) == 0:
        return (int(start[0]), int(start[1])), logits[:1, :1].copy()
    top, left = rows[0], columns[0]
    cropped = logits[top : rows[-1] + 1, left : columns[-1] + 1].copy()
    return (int(start[0] + top), int(start[1] + left)), cropped


def decode_semantic(
    embedding: Embedding,
    prompts: Prompts,
    model: Model,
    config: DecodeConfig,
    *,
    progress: Progress = ignore_progress,
) -> npt.NDArray[np.float32]:
    """Return one map of mask logits: all prompts of a tile in one decoding.

    Parameters
    ----------
    embedding : Embedding
    prompts : Prompts
        Rejected ones are passed over.
    model : Model
    config : DecodeConfig
    progress : Progress, optional

    Returns
    -------
    (H, W) float32
        Positive inside nuclei. Tiles without a positive prompt are negative.

    References
    ----------
    The output of Segment Any Cell as published is this one binary mask.
    """
    table = active_prompts(prompts)
    points = embedding.to_input(table.yx)
    architecture = model.spec.architecture
    grid, size = architecture.grid_size, architecture.image_size
    device = model.device.torch_device
    result = np.full(embedding.image_shape, -np.inf, np.float32)
    corners = embedding.tile_origins()
    for tile, corner in enumerate(corners):
        progress("decoding", tile, len(corners))
        local = points - corner
        # the first pixel's edge lies before its middle, which is 0
        inside = ((local > -1) & (local < size)).all(1)
        signs = torch.from_numpy(table.sign[inside].astype(np.int64))[None].to(device)
        if not bool((signs == POSITIVE).any()):
            continue
        with torch.inference_mode(), model.device.autocast():
            logits, _ = decode_windows(
                model.sam,
                embedding.features[tile][None].to(device),
                torch.zeros(1, 2, dtype=torch.int64, device=device),
                torch.from_numpy(local[inside]).float()[None].to(device),
                signs,
                local_frame=model.spec.local_frame,
            )
        _write_core(
            result,
            logits.float().cpu(),
            tile,
            corner,
            embedding,
            grid * architecture.patch_size,
            config.generator_weight,
        )
    progress("decoding", len(corners), len(corners))
    return result


def _write_core(
    result: npt.NDArray[np.float32],
    logits: Tensor,
    tile: int,
    corner: npt.NDArray[np.int64],
    embedding: Embedding,
    side: int,
    generator_weight: float,
) -> None:
    """Write the part of a tile's logits that the tile owns."""
    height, width = embedding.image_shape
    rows = np.arange(height)
    columns = np.arange(width)
    row_index, column_index = divmod(tile, len(embedding.columns.origins))
    row_input = (rows + 0.5) * embedding.scale - 0.5
    column_input = (columns + 0.5) * embedding.scale - 0.5
    rows = rows[embedding.rows.owner(row_input) == row_index]
    columns = columns[embedding.columns.owner(column_input) == column_index]
    if len(rows) == 0 or len(columns) == 0:
        return
    y = ((rows + 0.5) * embedding.scale - corner[0]) / side * 2 - 1
    x = ((columns + 0.5) * embedding.scale - corner[1]) / side * 2 - 1
    places = np.stack(np.meshgrid(x, y), axis=-1)[None]
    sampled = F.grid_sample(
        logits[:, None],
        torch.from_numpy(places).float(),
        padding_mode="border",
        align_corners=False,
    )
    seen = embedding.foreground.at(rows[None], columns[None])[0]
    result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = (
        sampled[0, 0].numpy() + generator_weight * seen
    )
