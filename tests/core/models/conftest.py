"""Weights as the package ships them, with random values, and a home of its own."""

import pytest
import torch

from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.sam import SAC_TINY, build_sam
from napari_sac.core.models.weight_files import write_generator, write_weights


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """A folder like ``core/models/weights``; must not be written to."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam(SAC_TINY, split=False)
        generator = PromptGenerator((8, 12, 16))
    half = {
        n: t.half() if t.is_floating_point() else t for n, t in sam.state_dict().items()
    }
    write_weights(folder / "sac_tiny.safetensors", half)
    write_generator(folder / "prompt_generator.safetensors", generator)
    return folder
