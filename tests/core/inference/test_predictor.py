"""Prompts become masks: each nucleus by its own window, only what changed again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from synthetic import Nuclei, build_tiny_model

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference import predictor
from napari_sac.core.inference.embedding import Embedding, embed_image
from napari_sac.core.inference.predictor import (
    decode_prompts,
    decode_semantic,
    keep_own_part,
    neighbour_negatives,
    surroundings,
)
from napari_sac.core.inference.segment import embedding_scale
from napari_sac.core.types import NEGATIVE, Prompts

if TYPE_CHECKING:
    from torch import Tensor

    from napari_sac.core.models.registry import Model

ALONE = DecodeConfig(neighbour_negatives=0)


@pytest.fixture
def embedding(tiny_model: Model, nuclei: Nuclei) -> Embedding:
    return embed_image(nuclei.image, tiny_model, scale=1.0)


@pytest.fixture
def prompts(nuclei: Nuclei) -> Prompts:
    middles = [
        np.argwhere(nuclei.labels == k).mean(0)
        for k in range(1, nuclei.labels.max() + 1)
    ]
    return Prompts.from_points(np.array(middles))


def test_one_mask_for_each_nucleus_with_a_positive(
    tiny_model: Model, embedding: Embedding, prompts: Prompts
) -> None:
    state, sign = prompts.state.copy(), prompts.sign.copy()
    state[2], sign[3] = "rejected", NEGATIVE
    edited = replace(prompts, state=state, sign=sign)
    masks = decode_prompts(embedding, edited, tiny_model, ALONE)
    ids = [m.object_id for m in masks]
    assert ids == [k for k in range(1, 13) if k not in (3, 4)]
    for mask in masks:
        end = np.add(mask.origin_yx, mask.logits.shape)
        assert (np.array(mask.origin_yx) >= 0).all()
        assert (end <= embedding.image_shape).all()
        assert 0 <= mask.predicted_iou <= 1


def test_alone_and_in_company_a_nucleus_gets_the_same_mask(
    tiny_model: Model, embedding: Embedding, prompts: Prompts
) -> None:
    together = decode_prompts(embedding, prompts, tiny_model, ALONE)
    for row in (0, 7):
        (alone,) = decode_prompts(embedding, prompts.select([row]), tiny_model, ALONE)
        assert alone.origin_yx == together[row].origin_yx
        np.testing.assert_allclose(alone.logits, together[row].logits, atol=1e-4)
        assert alone.prompt_key == together[row].prompt_key


def test_batches_are_of_few_tiles(
    tiny_model: Model, embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = len(embedding.features)
    rng = np.random.default_rng(0)
    everywhere = rng.uniform((5, 5), (155, 195), (100, 2))
    copied = []
    gather = predictor.gather_windows

    def counted(features: Tensor, *args: Any) -> Tensor:
        copied.append(len(features))
        return gather(features, *args)

    monkeypatch.setattr(predictor, "gather_windows", counted)
    monkeypatch.setattr(predictor, "_batch_size", lambda *_: 10)
    prompts = Prompts.from_points(everywhere)
    masks = decode_prompts(embedding, prompts, tiny_model, ALONE)
    assert [m.object_id for m in masks] == list(range(1, 101))
    # each tile once, and once more where it goes on in the next batch
    assert sum(copied) <= 2 * (tiles + len(copied))


def test_only_what_changed_is_decoded_again(
    tiny_model: Model, embedding: Embedding, prompts: Prompts
) -> None:
    before = {
        m.object_id: m for m in decode_prompts(embedding, prompts, tiny_model, ALONE)
    }
    moved = replace(prompts, yx=prompts.yx + np.eye(12)[4][:, None] * 3)
    told: list[tuple[int, int]] = []
    after = decode_prompts(
        embedding,
        moved,
        tiny_model,
        ALONE,
        reuse=before,
        progress=lambda stage, done, total: told.append((done, total)),
    )
    assert told[0] == (0, 1)
    assert told[-1] == (1, 1)
    same = [m.object_id for m in after if m is before[m.object_id]]
    assert same == [k for k in range(1, 13) if k != 5]


def test_another_model_or_image_reuses_nothing(
    tiny_model: Model, embedding: Embedding, prompts: Prompts
) -> None:
    before = {
        m.object_id: m for m in decode_prompts(embedding, prompts, tiny_model, ALONE)
    }
    other = build_tiny_model(1)
    after = decode_prompts(embedding, prompts, other, ALONE, reuse=before)
    assert not any(m is before[m.object_id] for m in after)


def test_deleting_a_neighbour_frees_the_nucleus_beside_it(
    tiny_model: Model, embedding: Embedding
) -> None:
    prompts = Prompts.from_points([[50, 50], [50, 70], [120, 150]], state="added")
    config = DecodeConfig(neighbour_negatives=1)
    before = {
        m.object_id: m for m in decode_prompts(embedding, prompts, tiny_model, config)
    }
    after = decode_prompts(
        embedding, prompts.select([0, 2]), tiny_model, config, reuse=before
    )
    assert [m is before[m.object_id] for m in after] == [False, True]


def test_neighbours_become_negatives() -> None:
    prompts = Prompts.from_points([[0, 0], [0, 10], [0, 18], [90, 90]], state="added")
    added = neighbour_negatives(prompts, 1, reach=12)
    assert (added.sign == NEGATIVE).all()
    pairs = {int(k): tuple(p) for k, p in zip(added.object_id, added.yx, strict=True)}
    assert pairs == {1: (0, 10), 2: (0, 18), 3: (0, 10)}


def test_only_what_a_person_placed_pushes_and_is_pushed() -> None:
    states = ["auto", "accepted", "added", "auto"]
    prompts = Prompts.from_points([[0, 0], [0, 4], [0, 10], [0, 13]], state=states)
    added = neighbour_negatives(prompts, 1, reach=12)
    pairs = {int(k): tuple(p) for k, p in zip(added.object_id, added.yx, strict=True)}
    assert pairs == {1: (0, 10), 2: (0, 10), 3: (0, 13), 4: (0, 10)}
    found = Prompts.from_points([[0, 0], [0, 4]], state=["auto", "accepted"])
    assert len(neighbour_negatives(found, 1, reach=12)) == 0


def test_a_point_that_is_there_twice_is_no_neighbour_of_itself() -> None:
    # a row of a table that came twice would take away its own nucleus
    prompts = Prompts.from_points([[5, 5], [5, 5], [9, 5]], state="moved")
    added = neighbour_negatives(prompts, 1, reach=12)
    assert added.object_id.tolist() == [1, 2, 3]
    assert added.yx.tolist() == [[9, 5], [9, 5], [5, 5]]


def test_a_mask_that_fills_its_window_grows(
    tiny_model: Model,
    embedding: Embedding,
    prompts: Prompts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every mask is everywhere: windows must double up to the tile, and then stop."""
    sizes: list[int] = []
    stock = predictor.decode_windows

    def everywhere(sam, windows, *rest, **options):  # type: ignore[no-untyped-def]
        sizes.append(windows.shape[-1])
        logits, iou = stock(sam, windows, *rest, **options)
        return logits.abs() + 1, iou

    monkeypatch.setattr(predictor, "decode_windows", everywhere)
    (mask,) = decode_prompts(embedding, prompts.select([0]), tiny_model, ALONE)
    assert sizes == [4, 8]
    assert min(mask.logits.shape) > 32


@pytest.mark.parametrize(("apart", "window"), [(10, 4), (40, 8), (300, 8)])
def test_a_window_holds_all_positives_of_a_nucleus(
    tiny_model: Model,
    embedding: Embedding,
    monkeypatch: pytest.MonkeyPatch,
    apart: int,
    window: int,
) -> None:
    sizes: list[int] = []
    stock = predictor.decode_windows

    def note(sam, windows, *rest, **options):  # type: ignore[no-untyped-def]
        sizes.append(windows.shape[-1])
        return stock(sam, windows, *rest, **options)

    monkeypatch.setattr(predictor, "decode_windows", note)
    monkeypatch.setattr(predictor, "_touches", lambda *_: False)
    both = Prompts.from_points([(60, 20), (60, 20 + apart)], object_id=[1, 1])
    (_,) = decode_prompts(embedding, both, tiny_model, ALONE)
    assert sizes == [window]


@pytest.mark.parametrize("scale", [0.37, 1.0, 2.6])
def test_logits_land_where_they_belong(
    tiny_model: Model, nuclei: Nuclei, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disc in the window comes out as that disc in the image, at any scale."""
    import torch

    centre = np.array([71.0, 93.0])
    embedding = embed_image(nuclei.image, tiny_model, scale=scale)
    radius = 9.0

    def disc(sam, windows, origins, points, signs, **options):  # type: ignore[no-untyped-def]
        side = windows.shape[-1] * 4
        cells = (torch.arange(side) + 0.5) * 2 - 0.5
        y = origins[:, 0, None] * 8 + cells - points[:, 0, 0, None]
        x = origins[:, 1, None] * 8 + cells - points[:, 0, 1, None]
        away = (y[:, :, None] ** 2 + x[:, None, :] ** 2).sqrt()
        return radius - away, torch.ones(len(windows))

    monkeypatch.setattr(predictor, "decode_windows", disc)
    (mask,) = decode_prompts(embedding, Prompts.from_points(centre), tiny_model, ALONE)
    y, x = np.nonzero(mask.logits > 0)
    middle = np.array([y.mean(), x.mean()]) + mask.origin_yx
    np.testing.assert_allclose(middle, centre, atol=0.3)
    diameter = 2 * np.sqrt(len(y) / np.pi)
    assert diameter == pytest.approx(2 * radius / scale, rel=0.1)


def test_prompts_outside_the_image_are_no_crash(
    tiny_model: Model, embedding: Embedding
) -> None:
    far = Prompts.from_points([[-30.0, 5.0], [500.0, 500.0], [159.4, 199.4]])
    masks = decode_prompts(embedding, far, tiny_model, DecodeConfig())
    assert [mask.object_id for mask in masks] == [1, 2, 3]
    for mask in masks:
        assert (
            np.add(mask.origin_yx, mask.logits.shape) <= embedding.image_shape
        ).all()


def test_nothing_to_decode_gives_nothing(
    tiny_model: Model, embedding: Embedding, prompts: Prompts
) -> None:
    rejected = replace(prompts, state=np.full(len(prompts), "rejected"))
    for none in (Prompts.empty(), rejected):
        assert decode_prompts(embedding, none, tiny_model, DecodeConfig()) == []


def test_semantic_mode_decodes_all_prompts_of_a_tile_at_once(
    tiny_model: Model, embedding: Embedding, prompts: Prompts
) -> None:
    calls: list[str] = []
    logits = decode_semantic(
        embedding,
        prompts,
        tiny_model,
        DecodeConfig(),
        progress=lambda *a: calls.append(a[0]),
    )
    assert logits.shape == embedding.image_shape
    assert np.isfinite(logits).all()
    # one for each tile, and that it is done
    assert len(calls) == len(embedding.features) + 1
    nothing = decode_semantic(embedding, Prompts.empty(), tiny_model, DecodeConfig())
    assert (nothing < 0).all()


def test_surroundings_are_whole_nuclei_and_no_far_ones() -> None:
    places = [[10, 10], [10, 90], [10, 40], [90, 90], [10, 20]]
    prompts = Prompts.from_points(places, object_id=[7, 7, 3, 4, 9])
    around = surroundings(prompts, np.array([[10.0, 15.0]]), 5.0)
    assert around.object_id.tolist() == [7, 7, 9]
    assert around.yx.tolist() == [[10, 10], [10, 90], [10, 20]]


def two_parts() -> np.ndarray:
    """Logits with a large part on the left and a small one on the right."""
    logits = np.full((10, 20), -1, np.float32)
    logits[1:9, 1:8] = 2
    logits[4:6, 15:18] = 1
    return logits


@pytest.mark.parametrize(
    ("positives", "kept"),
    [
        ([[5, 3]], {2}),
        ([[5, 16]], {1}),
        ([[5, 3], [5, 16]], {1, 2}),
        ([[0, 11]], {2}),
        ([[-3, 40]], {2}),
    ],
    ids=["large", "small", "both", "beside: largest", "outside"],
)
def test_a_mask_is_the_part_that_was_meant(
    positives: list[list[float]], kept: set[int]
) -> None:
    logits = two_parts()
    result = keep_own_part(logits, np.array(positives, float))
    assert set(result[result > 0].tolist()) == kept
    assert (result[logits <= 0] == logits[logits <= 0]).all()
    assert (result[result > 0] == logits[result > 0]).all()


@pytest.mark.parametrize("diameter", [20, 80])
def test_semantic_mode_takes_a_prompt_on_the_first_pixel(
    tiny_model: Model, nuclei: Nuclei, diameter: float
) -> None:
    embedding = embed_image(
        nuclei.image, tiny_model, scale=embedding_scale(tiny_model, diameter)
    )
    prompts = Prompts.from_points([[0, 0]])
    logits = decode_semantic(embedding, prompts, tiny_model, DecodeConfig())
    assert np.isfinite(logits[0, 0])


@pytest.mark.parametrize(
    ("start", "cut", "grows"),
    [
        ((10, 10), [[True, True], [True, True]], True),
        ((10, 10), [[False, True], [True, True]], False),
        ((0, 10), [[True, True], [True, True]], False),
    ],
    ids=["in the tile", "edge of the tile", "edge of the image"],
)
def test_a_mask_at_a_side_grows_only_where_more_is_known(
    embedding: Embedding, start: tuple[int, int], cut: list[list[bool]], *, grows: bool
) -> None:
    logits = np.full((20, 20), -1, np.float32)
    logits[0:5, 8:12] = 1
    found = predictor._touches(logits, np.array(cut), np.array(start), embedding)
    assert found is grows


def test_what_the_generator_adds_decides_whether_a_mask_grows(
    tiny_model: Model,
    embedding: Embedding,
    prompts: Prompts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def note(logits: np.ndarray, *_: object) -> bool:
        asked.append(logits)
        return False

    monkeypatch.setattr(predictor, "_touches", note)
    masks = decode_prompts(
        embedding, prompts, tiny_model, DecodeConfig(generator_weight=2)
    )
    assert len(asked) == len(masks) > 0
    for logits, mask in zip(asked, masks, strict=True):
        # what is asked about is what is drawn, not what the decoder said alone
        assert (logits > 0).sum() == (mask.logits > 0).sum()
