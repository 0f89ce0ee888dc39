"""A step of fine-tuning teaches masks as they are used: weighed with the generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import build_tiny_model, draw_nuclei

from napari_sac.core.config import DecodeConfig, FinetuneConfig, TrainingConfig
from napari_sac.core.inference.generator_maps import SUREST
from napari_sac.core.training import joint_step
from napari_sac.core.training.joint_step import (
    Batch,
    Pool,
    add_gradients,
    cache_crops,
    draw_batch,
)
from napari_sac.core.training.memory import Plan
from napari_sac.core.training.optimization import TrainingState, make_optimizer
from napari_sac.core.training.sampling import prepare_image

FULL = FinetuneConfig(batch_size=4, prompts_per_crop=4)
QUICK = replace(FULL, quick=True)
PLAN = Plan(64, 4, False, 2)
OF_MASKS = ("masks", "corrected", "semantic")
SURE = DecodeConfig.generator_weight * SUREST


def state_with(level: float) -> TrainingState:
    """Return a model whose generator says the same everywhere."""
    model = build_tiny_model()
    with torch.no_grad():
        model.generator.head.weight.zero_()
        model.generator.head.bias.fill_(level)
    networks = (
        model.sam.eval().requires_grad_(True),
        model.generator.requires_grad_(True),
    )
    optimizer = make_optimizer(networks, TrainingConfig())
    return TrainingState(model.spec, *networks, None, optimizer)


@pytest.fixture
def pool() -> Pool:
    drawn = [draw_nuclei((90, 100), 6, 9, seed) for seed in range(2)]
    images = [prepare_image(d.image, d.labels, 24.0) for d in drawn]
    return Pool(images, np.full(2, 0.5))


def parts_of(level: float, batch: Batch, config: FinetuneConfig) -> dict[str, float]:
    return add_gradients(state_with(level), batch, config, PLAN)


def test_every_mask_is_weighed_with_the_generator(pool: Pool) -> None:
    batch = draw_batch(pool, range(4), 0, 64, FULL)
    low, high = (parts_of(level, batch, FULL) for level in (-9.0, 9.0))
    for name in OF_MASKS:
        assert low[name] != pytest.approx(high[name], rel=0.01), name


def test_a_correction_is_of_the_mask_that_a_person_would_see(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = joint_step.corrective_clicks

    def note(logits: torch.Tensor, *rest: object) -> object:
        seen.append(logits.detach().clone())
        return real(logits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(joint_step, "corrective_clicks", note)
    batch = draw_batch(pool, range(4), 0, 64, FULL)
    for level in (-9.0, 9.0):
        parts_of(level, batch, FULL)
    torch.testing.assert_close(seen[1] - seen[0], torch.full_like(seen[0], 2 * SURE))


def test_masks_teach_the_generator_nothing(pool: Pool) -> None:
    # crop 1 is not the generator's turn
    state = state_with(0.0)
    batch = draw_batch(pool, [1], 0, 64, QUICK)
    add_gradients(state, batch, QUICK, PLAN)
    assert all(p.grad is None for p in state.generator.parameters())
    assert any(p.grad is not None for p in state.sam.mask_decoder.parameters())


def test_quick_keeps_what_the_generator_said_at_first(pool: Pool) -> None:
    cached = cache_crops(state_with(9.0), pool, 3, QUICK, 64)
    for one in cached.cached:
        assert one.cells.shape == (1, 32, 32)
        assert one.cells.unique().tolist() == pytest.approx([SURE])
    at_first = draw_batch(cached, [1], 0, 64, QUICK)
    never = replace(at_first, cells=None)
    # not its turn: what it says now is not asked, unless nothing is known
    assert parts_of(-9.0, at_first, QUICK) == parts_of(9.0, never, QUICK)
    assert parts_of(-9.0, at_first, QUICK) != parts_of(-9.0, never, QUICK)
    # its turn: what it says now is there
    turn = draw_batch(cached, [0], 0, 64, QUICK)
    now, then = (
        parts_of(-9.0, one, QUICK) for one in (turn, replace(turn, cells=None))
    )
    assert now == then


def test_quick_takes_new_and_old_maps_each_for_their_crop(pool: Pool) -> None:
    cached = cache_crops(state_with(9.0), pool, 3, QUICK, 64)
    batch = draw_batch(cached, range(4), 0, 64, QUICK)
    together = parts_of(-9.0, batch, QUICK)
    alone = [
        parts_of(-9.0, draw_batch(cached, [i], 0, 64, QUICK), QUICK) for i in range(4)
    ]
    for name in OF_MASKS:
        total = sum(one[name] for one in alone)
        assert together[name] == pytest.approx(total, rel=1e-3), name
    before = batch.cells
    assert before is not None
    assert before.unique().tolist() == pytest.approx([SURE]), "the cache is not changed"
