"""The command line that trains the shipped adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from synthetic import build_tiny_model

from napari_sac.core.models.adapter import read_adapter_info
from napari_sac.core.models.weight_files import write_weights
from napari_sac.core.training import adapter
from napari_sac.core.training.trainer import load_training_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.training.sampling import TrainingImage

Weights = dict[str, dict[str, torch.Tensor]]
PARTS = ("adapter_model", "mask_decoder", "prompt_generator")


def weights_of(folder: Path) -> Weights:
    return {part: load_file(folder / f"{part}.safetensors") for part in PARTS}


def differs(one: Weights, other: Weights, part: str) -> bool:
    assert one[part].keys() == other[part].keys()
    return any(not torch.equal(one[part][key], other[part][key]) for key in one[part])


@pytest.fixture
def command(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AdapterInfo]:
    """Train ``name``, two steps, and return what is known of it."""
    monkeypatch.setattr(adapter, "load_model", lambda name, device: build_tiny_model())
    monkeypatch.setattr(adapter, "weights_sha256", lambda spec: "ab" * 32)

    def run(name: str, *flags: str) -> AdapterInfo:
        output = tmp_path / f"{name}_run"
        fixed = ["--data", str(labelled_folder), "--output", str(output)]
        assert adapter.main([*fixed, "--name", name, "--steps", "2", *flags]) == 0
        return read_adapter_info(output / name)

    return run


def test_a_fresh_adapter_says_what_it_is(command: Callable[..., AdapterInfo]) -> None:
    words = ("--title", "Mine", "--tissue", "liver", "--trained-on", "2 drawn images")
    info = command("mine", "--rank", "3", "--licence", "CC0-1.0", *words)
    assert (info.tissue, info.data) == ("liver", "2 drawn images")
    assert info.created
    assert (info.name, info.title, info.licence) == ("mine", "Mine", "CC0-1.0")
    assert (info.base, info.base_sha256, info.parent) == ("sac_tiny", "ab" * 32, "")
    lora = weights_of(info.path)["adapter_model"]
    assert {len(t) for name, t in lora.items() if "lora_A" in name} == {3}
    assert any(t.any() for name, t in lora.items() if "lora_B" in name), "it learned"


def test_it_learns_from_images_that_are_stained_brown(
    command: Callable[..., AdapterInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(folders: list[Path], size: float, seed: int) -> list[TrainingImage]:
        asked.append(seed)
        return load_training_images(folders, size)

    monkeypatch.setattr(adapter, "load_brown_images", load)
    command("plain")
    assert not asked
    command("brown", "--brown", "--seed", "8")
    assert asked == [8]


def test_an_adapter_learns_on_from_another(
    command: Callable[..., AdapterInfo],
) -> None:
    first = command("first", "--rank", "3", "--licence", "CC0-1.0")
    start = weights_of(first.path)
    # a rate of nothing: what comes out is what it started from
    same = command("same", "--start", str(first.path), "--rate", "0")
    assert (same.licence, same.parent) == ("CC0-1.0", "first")
    assert not any(differs(weights_of(same.path), start, part) for part in PARTS)
    after = weights_of(command("on", "--start", str(first.path)).path)
    assert all(differs(after, start, part) for part in PARTS)


def test_what_the_base_has_learned_since_is_added_to_the_decoder(
    tmp_path: Path,
) -> None:
    sam = build_tiny_model().sam
    weights = {
        f"mask_decoder.{name}": tensor.clone()
        for name, tensor in sam.mask_decoder.state_dict().items()
    }
    later = {name: tensor + 0.25 for name, tensor in weights.items()}
    write_weights(tmp_path / "before.safetensors", weights)
    write_weights(tmp_path / "now.safetensors", later)
    with torch.no_grad():
        for parameter in sam.mask_decoder.parameters():
            parameter.add_(1)
    files = (tmp_path / "before.safetensors", tmp_path / "now.safetensors")
    adapter.follow_base(sam, *files)
    for name, tensor in sam.mask_decoder.named_parameters():
        torch.testing.assert_close(tensor, weights[f"mask_decoder.{name}"] + 1.25)


def test_masks_only_keeps_the_generator_of_the_adapter(
    command: Callable[..., AdapterInfo],
) -> None:
    first = command("first")
    second = command("second", "--start", str(first.path), "--masks-only")
    before, after = weights_of(first.path), weights_of(second.path)
    assert not differs(before, after, "prompt_generator")
    assert differs(before, after, "adapter_model")
    assert differs(before, after, "mask_decoder")
