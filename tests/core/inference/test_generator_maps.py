"""Tests for napari_sac.core.inference.generator_maps."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import build_tiny_model, draw_nuclei

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference import generator_maps as module
from napari_sac.core.inference.embedding import embed_image
from napari_sac.core.inference.generator_maps import (
    SUREST,
    ForegroundLogits,
    as_logits,
    generator_maps,
)
from napari_sac.core.inference.predictor import decode_prompts, decode_semantic
from napari_sac.core.types import Prompts


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_tiny_model()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (150, 700, 3), dtype=np.uint8)
    whole = generator_maps(image, model, 1.0)
    monkeypatch.setattr(module, "_TILE", 64)
    tiled = generator_maps(image, model, 1.0)
    np.testing.assert_allclose(tiled.foreground, whole.foreground, atol=1e-5)
    np.testing.assert_allclose(tiled.distance, whole.distance, atol=1e-5)


def test_logits_are_read_at_the_pixels_of_the_image() -> None:
    logits = np.arange(12, dtype=np.float16).reshape(3, 4)
    same = ForegroundLogits(logits, 1.0)
    assert np.array_equal(same.at(np.arange(3)[None], np.arange(4)[None])[0], logits)
    # half as fine: a pixel lies a quarter of a sample from its own
    fine = ForegroundLogits(logits, 0.5)
    assert fine.at(np.array([[2]]), np.array([[3]])) == pytest.approx(0.75 * 4 + 1.25)
    corners = fine.at(np.array([[-5, 50]]), np.array([[-5, 50]]))[0]
    assert np.array_equal(corners, [[0, 3], [8, 11]])
    windows = same.windows(np.array([[0, 1], [1, 2]]), 2)
    assert np.array_equal(windows, [[[1, 2], [5, 6]], [[6, 7], [10, 11]]])


def test_logits_are_those_of_the_maps_up_to_a_bound() -> None:
    model = build_tiny_model()
    image = draw_nuclei().image
    maps = generator_maps(image, model, 1.0)
    found = as_logits(maps)
    foreground = maps.foreground.astype(np.float64)
    expected = np.clip(np.log(foreground / (1 - foreground)), -SUREST, SUREST)
    assert np.abs(found.logits - expected).max() < 0.01
    assert found.scale == 1.0


def test_masks_and_the_generator_are_weighed() -> None:
    model = build_tiny_model()
    nuclei = draw_nuclei()
    embedding = embed_image(nuclei.image, model, scale=1.0)
    prompts = Prompts.from_points(np.argwhere(nuclei.labels == 1).mean(0)[None])
    alone, both = (
        decode_prompts(embedding, prompts, model, DecodeConfig(generator_weight=w))[0]
        for w in (0.0, 2.0)
    )
    assert alone.prompt_key != both.prompt_key
    assert alone.predicted_iou == both.predicted_iou
    top, left = np.maximum(alone.origin_yx, both.origin_yx)
    bottom, right = np.minimum(
        np.add(alone.origin_yx, alone.logits.shape),
        np.add(both.origin_yx, both.logits.shape),
    )
    parts = [
        m.logits[
            top - m.origin_yx[0] : bottom - m.origin_yx[0],
            left - m.origin_yx[1] : right - m.origin_yx[1],
        ]
        for m in (alone, both)
    ]
    seen = embedding.foreground.at(
        np.arange(top, bottom)[None], np.arange(left, right)[None]
    )[0]
    assert seen.size > 0
    assert np.allclose(parts[1] - parts[0], 2 * seen, atol=1e-4)
    whole = [
        decode_semantic(embedding, prompts, model, DecodeConfig(generator_weight=w))
        for w in (0.0, 1.0)
    ]
    rows, columns = (np.arange(n)[None] for n in nuclei.image.shape[:2])
    seen = embedding.foreground.at(rows, columns)[0]
    decoded = np.isfinite(whole[0])
    more = whole[1][decoded] - whole[0][decoded]
    assert np.allclose(more, seen[decoded], atol=1e-4)


def test_a_mirrored_image_has_mirrored_maps() -> None:
    model = build_tiny_model()
    rng = np.random.default_rng(0)
    # multiples of the stride: else padding lies on the other side of the mirrored one
    image = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    one, other = (generator_maps(i, model, 1.0) for i in (image, turned))
    np.testing.assert_allclose(one.distance, other.distance[::-1, ::-1], atol=1e-5)
    np.testing.assert_allclose(one.foreground, other.foreground[::-1, ::-1], atol=1e-5)
    once, other = (
        generator_maps(i, model, 1.0, mirrored=False) for i in (image, turned)
    )
    assert np.abs(once.distance - other.distance[::-1, ::-1]).max() > 1e-3
