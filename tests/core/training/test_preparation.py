"""Images as training draws crops of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from synthetic import Nuclei, draw_nuclei

from napari_sac.core.training.preparation import mark_proposals
from napari_sac.core.training.sampling import (
    Crops,
    PointKind,
    draw_crops,
    draw_prompts,
    prepare_image,
)

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model


def test_prompts_lie_on_proposals_and_false_ones_ask_for_nothing(
    disc_model: Model,
) -> None:
    nuclei: Nuclei = draw_nuclei((120, 150), count=8, radius=9)
    image = prepare_image(nuclei.image, nuclei.labels, 24.0)
    # a bright disc that nobody calls a nucleus
    number = int(image.labels.max())
    labels = torch.where(image.labels == number, 0, image.labels)
    marked = mark_proposals(replace(image, labels=labels), disc_model)
    assert set(marked.points.kind.tolist()) == {PointKind.PROPOSAL}
    y, x = np.rint(marked.points.yx).astype(int).T
    found = image.labels[y, x].tolist()
    assert sorted(found) == list(range(1, number + 1))
    whole = max(image.labels.shape)
    crops: Crops = draw_crops([marked], 8, whole, np.random.default_rng(0), mild=True)
    prompts = draw_prompts(crops, 32, np.random.default_rng(0), background=0.0)
    nothing = prompts.label == 0
    assert nothing.sum() >= 4
    for i, (py, px) in zip(
        prompts.image_index[nothing].tolist(),
        prompts.points_yx[nothing, 0].round().long().tolist(),
        strict=True,
    ):
        shown = crops.image[i, 0]
        assert shown[py, px] > shown.median() + 20, "on the disc, not anywhere"
