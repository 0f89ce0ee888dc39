"""The command line that trains the shipped networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from synthetic import build_tiny_model

from napari_sac.core.config import TrainingConfig
from napari_sac.core.models.weight_files import read_generator
from napari_sac.core.training import base_model, trainer
from napari_sac.core.training.sampling import draw_crops, prepare_image
from napari_sac.core.training.trainer import load_training_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sac.core.training.sampling import TrainingImage


@pytest.fixture
def tiny_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model in the place of the shipped one."""
    monkeypatch.setattr(
        base_model, "load_model", lambda name, device: build_tiny_model()
    )


def test_generator_only_goes_on_from_what_is_shipped(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(name: str, device: str) -> object:
        loaded.append((name, device))
        return build_tiny_model()

    monkeypatch.setattr(base_model, "load_model", load)
    output = tmp_path / "run"
    flags = [
        "--data",
        str(labelled_folder),
        "--output",
        str(output),
        "--generator-only",
    ]
    assert base_model.main([*flags, "--steps", "20"]) == 0
    assert loaded == [("sac_tiny", "cpu")]
    written = {file.name for file in output.iterdir()}
    assert written == {"prompt_generator.safetensors", "checkpoint.pt", "curve.csv"}
    trained = read_generator(output / "prompt_generator.safetensors").state_dict()
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 20
    before = build_tiny_model()
    for name, tensor in before.sam.state_dict().items():
        assert torch.equal(saved["networks"][f"sam.{name}"], tensor), name
    changed = 0
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            average = saved["averages"][f"generator.{name}"]
            torch.testing.assert_close(tensor, average, rtol=1e-3, atol=1e-3)
            changed += not torch.equal(tensor, before.generator.state_dict()[name])
    assert changed > 10


def test_masks_only_leaves_the_generator_as_it_is(
    labelled_folder: Path,
    tmp_path: Path,
    tiny_shipped: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = build_tiny_model()
    marked = []
    real = base_model.mark_proposals
    monkeypatch.setattr(
        base_model, "mark_proposals", lambda *a: marked.append(a[0]) or real(*a)
    )
    output = tmp_path / "run"
    flags = ["--data", str(labelled_folder), "--output", str(output), "--masks-only"]
    assert base_model.main([*flags, "--steps", "2"]) == 0
    assert len(marked) > 0
    written = {file.name for file in output.iterdir()}
    name = f"{before.spec.name}.safetensors"
    assert written == {name, "checkpoint.pt"}, "no curve of fewer than 20 steps"
    saved = torch.load(output / "checkpoint.pt", weights_only=True)["networks"]
    for key, tensor in before.generator.state_dict().items():
        assert torch.equal(saved[f"generator.{key}"], tensor), key
    learned = before.sam.state_dict()
    for part in ("image_encoder.patch_embed", "image_encoder.neck", "mask_decoder"):
        keys = [key for key in learned if key.startswith(part)]
        assert any(not torch.equal(saved[f"sam.{k}"], learned[k]) for k in keys), part
    shipped = load_file(output / name)
    assert all(
        value.dtype in (torch.float16, torch.int64) for value in shipped.values()
    )
    assert any("attn.qkv" in key for key in shipped), "SAM's own names"


def test_the_generator_can_be_widened_first(
    labelled_folder: Path, tmp_path: Path, tiny_shipped: None
) -> None:
    widths = [2 * width for width in build_tiny_model().generator.widths]
    output = tmp_path / "run"
    flags = [
        "--data",
        str(labelled_folder),
        "--output",
        str(output),
        "--generator-only",
    ]
    wider = ["--widths", *map(str, widths), "--mild", "0.5", "--steps", "2"]
    assert base_model.main([*flags, *wider]) == 0
    generator = read_generator(output / "prompt_generator.safetensors")
    assert list(generator.widths) == widths


def test_a_part_of_the_weights_before_is_kept(
    labelled_folder: Path, tmp_path: Path, tiny_shipped: None
) -> None:
    before = build_tiny_model().generator.state_dict()
    flags = ["--data", str(labelled_folder), "--generator-only", "--steps", "3"]
    written = {}
    for keep in ("0", "0.25", "1"):
        output = tmp_path / keep
        command = [*flags, "--output", str(output), "--keep", keep]
        assert base_model.main(command) == 0
        file = output / "prompt_generator.safetensors"
        written[keep] = read_generator(file).state_dict()
    for name, tensor in before.items():
        if tensor.is_floating_point():
            mixed = torch.lerp(written["0"][name], tensor, 0.25)
            torch.testing.assert_close(
                written["0.25"][name], mixed, rtol=2e-3, atol=2e-3
            )
            torch.testing.assert_close(written["1"][name], tensor, rtol=1e-3, atol=1e-3)
    weight = "head.weight"
    assert not torch.allclose(written["0"][weight], before[weight], atol=1e-5)


def test_what_learns_lies_on_the_device_that_was_asked_for(
    tiny_shipped: None,
) -> None:
    # "meta" is a device that every machine has
    state = base_model.build_generator_state(TrainingConfig(), device="meta")
    assert state.device.type == "meta"
    assert all(p.device.type == "meta" for p in state.generator.parameters())
    state = base_model.build_state(TrainingConfig(), device="meta")
    for module in (state.sam, state.generator, state.auxiliary):
        assert all(p.device.type == "meta" for p in module.parameters())


def test_images_in_colour_can_be_drawn_more_often() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[5:20, 5:20] = 1
    grey = np.full((30, 40, 3), 90, np.uint8)
    coloured = grey.copy()
    coloured[..., 2] = 200
    images = [prepare_image(pixels, labels, 24) for pixels in (grey, coloured, grey)]
    even = base_model.weigh_coloured(images, 1)
    np.testing.assert_allclose(even, [1 / 3] * 3)
    np.testing.assert_allclose(base_model.weigh_coloured(images, 3), [0.2, 0.6, 0.2])


def test_stains_alone_are_learned_from_where_they_are_asked_for(
    labelled_folder: Path,
    tmp_path: Path,
    tiny_shipped: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def load(*places: object, stains: Sequence[str]) -> list[TrainingImage]:
        asked.append(list(stains))
        return load_training_images(*places, stains=stains)

    monkeypatch.setattr(base_model, "load_training_images", load)
    flags = ["--data", str(labelled_folder), "--generator-only", "--steps", "1"]
    base_model.main([*flags, "--output", str(tmp_path / "a")])
    stains = ["--stains", "haematoxylin"]
    base_model.main([*flags, *stains, "--output", str(tmp_path / "b")])
    assert asked == [[], ["haematoxylin"]]


def test_what_is_weighed_is_what_is_drawn(
    labelled_folder: Path,
    tmp_path: Path,
    tiny_shipped: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []

    def draw(
        images: list[TrainingImage], *rest: object, **options: object
    ) -> tuple[object, ...]:
        drawn.append(options["weights"])
        return draw_crops(images, *rest, **options)

    monkeypatch.setattr(
        base_model, "weigh_coloured", lambda images, times: np.array([0.0, times / 7])
    )
    monkeypatch.setattr(trainer, "draw_crops", draw)
    output = tmp_path / "run"
    flags = ["--data", str(labelled_folder), "--output", str(output), "--masks-only"]
    assert base_model.main([*flags, "--steps", "1", "--coloured", "7"]) == 0
    assert [weights.tolist() for weights in drawn] == [[0, 1]]
