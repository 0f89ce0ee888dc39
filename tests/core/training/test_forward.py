"""What the generator adds to masks in training is what decoding adds in use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import build_tiny_model, draw_nuclei

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference.generator_maps import SUREST, as_logits, generator_maps
from napari_sac.core.models.prompt_generator import generator_input
from napari_sac.core.training.forward import foreground_cells, windows_of_cells
from napari_sac.core.training.sampling import PromptBatch

WEIGHT = DecodeConfig.generator_weight


def test_cells_are_the_foreground_up_to_a_bound_and_weighed() -> None:
    maps = torch.zeros(2, 2, 64, 64, requires_grad=True) + torch.tensor(
        [[-9.0, 50.0], [1.0, 50.0]]
    ).view(2, 2, 1, 1)
    cells = foreground_cells(maps, 8)
    assert cells.shape == (2, 32, 32)
    assert not cells.requires_grad
    assert cells[0].unique().tolist() == pytest.approx([-SUREST * WEIGHT])
    assert cells[1].unique().tolist() == pytest.approx([WEIGHT])
    # a generator that works at its own scale
    ramp = torch.linspace(-1, 1, 48).expand(1, 2, 48, 48)
    cells = foreground_cells(ramp, 8)
    expected = WEIGHT * torch.linspace(-1, 1, 32)
    torch.testing.assert_close(cells[0, 5, 1:-1], expected[1:-1], atol=0.02, rtol=0)


def test_cells_are_what_an_embedding_holds() -> None:
    model = build_tiny_model()
    image = draw_nuclei((64, 64), 2).image
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        maps = model.generator(generator_input(pixels))
    rows = np.arange(64)[None]
    # in training the generator looks at a crop once, for crops are mirrored anyway
    once = generator_maps(image, model, 1.0, mirrored=False)
    held = as_logits(once).at(rows, rows)[0]
    assert np.ptp(held) > 0
    # so fine a grid that a cell is a pixel
    cells = foreground_cells(maps, 16)[0].numpy()
    np.testing.assert_allclose(cells, WEIGHT * held, atol=0.01)


def test_a_mask_is_given_its_part_of_the_cells() -> None:
    cells = torch.arange(2 * 32 * 32.0).view(2, 32, 32)
    prompts = PromptBatch(
        torch.tensor([1, 0]),
        torch.tensor([1, 2]),
        torch.zeros(2, 1, 2),
        torch.ones(2, 1, dtype=torch.int64),
    )
    origins = torch.tensor([[0, 4], [2, 1]])
    windows = windows_of_cells(cells, prompts, origins, 4)
    assert torch.equal(windows[0], cells[1, :16, 16:])
    assert torch.equal(windows[1], cells[0, 8:24, 4:20])
