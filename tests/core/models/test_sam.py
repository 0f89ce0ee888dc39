"""build_sam gives SAMs of any size out of the package's own parts."""

from __future__ import annotations

import pytest
import segment_anything
import torch
from segment_anything.modeling import Sam

from napari_sac.core.models.sam import (
    SAC_TINY,
    VIT_B,
    VIT_H,
    VIT_L,
    SamArchitecture,
    build_sam,
)


@pytest.mark.parametrize(
    ("architecture", "name"), [(VIT_B, "vit_b"), (VIT_L, "vit_l"), (VIT_H, "vit_h")]
)
def test_same_parameters_as_the_package_builds(
    architecture: SamArchitecture, name: str
) -> None:
    with torch.device("meta"):
        ours = build_sam(architecture, split=False).state_dict()
        theirs = segment_anything.sam_model_registry[name]().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in theirs.items()
    }


def test_sac_tiny_is_a_sam_with_a_small_grid() -> None:
    sam = build_sam(SAC_TINY)
    assert type(sam) is Sam
    with torch.inference_mode():
        features = sam.image_encoder(torch.zeros(1, 3, 256, 256))
    assert features.shape == (1, 128, 32, 32)
    assert not sam.training


def test_position_scale_spreads_the_frequencies() -> None:
    torch.manual_seed(0)
    sam = build_sam(SAC_TINY)
    matrix = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    assert float(matrix.std()) == pytest.approx(SAC_TINY.position_scale, rel=0.2)
