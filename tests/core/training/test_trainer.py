"""Training learns, can be stopped and taken up, and leaves what should not learn."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from skimage.io import imsave
from synthetic import build_tiny_model, draw_nuclei

from napari_sac.core.config import TrainingConfig
from napari_sac.core.errors import LabelFormatError, OutputError
from napari_sac.core.io import normalise_image
from napari_sac.core.models.lora import inject_lora, set_trainable
from napari_sac.core.models.registry import load_model
from napari_sac.core.models.weight_files import write_generator
from napari_sac.core.training import trainer
from napari_sac.core.training.base_model import write_sam
from napari_sac.core.training.optimization import TrainingState, make_optimizer
from napari_sac.core.training.sampling import (
    Crops,
    TrainingImage,
    draw_crops,
    draw_prompts,
    prepare_image,
)
from napari_sac.core.training.trainer import (
    generator_step,
    load_brown_images,
    load_training_images,
    save_checkpoint,
    train,
    train_step,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = TrainingConfig(
    steps=60,
    batch_size=2,
    prompts_per_crop=4,
    learning_rate=4e-3,
    warm_up_steps=1,
    bfloat16=False,
)


@pytest.fixture
def images() -> list[TrainingImage]:
    drawn = [draw_nuclei((80, 90), 5, 8, seed) for seed in range(3)]
    return [prepare_image(d.image, d.labels, 24.0) for d in drawn]


def base_state() -> TrainingState:
    model = build_tiny_model()
    sam, generator = (
        model.sam.requires_grad_(True),
        model.generator.requires_grad_(True),
    )
    auxiliary = torch.nn.Conv2d(16, 4 * 16, 1)
    optimizer = make_optimizer((sam, generator, auxiliary), CONFIG)
    return TrainingState(
        model.spec, sam.train(), generator.train(), auxiliary, optimizer
    )


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_loss_falls(images: list[TrainingImage], tmp_path: Path) -> None:
    train(base_state(), images, tmp_path, CONFIG)
    rows = rows_of(tmp_path)
    assert [int(r["step"]) for r in rows] == [20, 40, 60]
    for part in ("maps", "masks", "auxiliary"):
        assert float(rows[-1][part]) < float(rows[0][part]), part


def test_a_stopped_training_goes_on(
    images: list[TrainingImage], tmp_path: Path
) -> None:
    train(base_state(), images, tmp_path, replace(CONFIG, steps=20))
    again = base_state()
    steps = []

    def count(*given: object) -> dict[str, float]:
        steps.append(again.step)
        return train_step(*given)

    train(again, images, tmp_path, replace(CONFIG, steps=40), count)
    assert steps == list(range(20, 40))
    assert [int(r["step"]) for r in rows_of(tmp_path)] == [20, 40]


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(OutputError, match="could not be written"):
        save_checkpoint(base_state(), tmp_path / "checkpoint.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_minutes_end_a_training(images: list[TrainingImage], tmp_path: Path) -> None:
    state = base_state()
    train(state, images, tmp_path, replace(CONFIG, steps=10**6, max_minutes=0.02))
    assert 0 < state.step < 10**4


def test_an_adapter_changes_lora_decoder_and_generator_only(
    images: list[TrainingImage], tmp_path: Path
) -> None:
    model = build_tiny_model()
    inject_lora(model.sam, rank=2)
    set_trainable(model.sam)
    model.generator.requires_grad_(True)
    optimizer = make_optimizer((model.sam, model.generator), CONFIG)
    state = TrainingState(model.spec, model.sam, model.generator, None, optimizer)
    before = {k: v.clone() for k, v in state.networks().state_dict().items()}
    train(state, images, tmp_path, replace(CONFIG, steps=4))
    after = state.networks().state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert any("lora_" in k for k in changed)
    allowed = ("generator.", "sam.mask_decoder.")
    assert all("lora_" in k or k.startswith(allowed) for k in changed)
    assert not any("running_" in k for k in changed)


def test_masks_are_taught_with_the_generators_say(images: list[TrainingImage]) -> None:
    rng = np.random.default_rng(0)
    crops = draw_crops(images, 2, 64, rng)
    prompts = draw_prompts(crops, 4, rng)
    parts = []
    for level in (-9.0, 9.0):
        state = base_state()
        with torch.no_grad():
            state.generator.head.weight.zero_()
            state.generator.head.bias.fill_(level)
        parts.append(train_step(state, crops, prompts, CONFIG))
    for name in ("masks", "semantic"):
        assert parts[0][name] != pytest.approx(parts[1][name], rel=0.01), name
    assert parts[0]["auxiliary"] == parts[1]["auxiliary"]


def test_neighbours_weigh_if_that_is_wanted(images: list[TrainingImage]) -> None:
    rng = np.random.default_rng(0)
    crops = draw_crops(images, 2, 64, rng)
    prompts = draw_prompts(crops, 4, rng)
    weighed, plain = (
        train_step(base_state(), crops, prompts, replace(CONFIG, weigh_neighbours=w))
        for w in (True, False)
    )
    assert weighed["masks"] != plain["masks"]
    assert weighed["semantic"] == plain["semantic"]


def test_the_generator_can_be_trained_alone(
    images: list[TrainingImage], tmp_path: Path
) -> None:
    state = base_state()
    before = {k: v.clone() for k, v in state.networks().state_dict().items()}
    train(state, images, tmp_path, CONFIG, generator_step)
    after = state.networks().state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all(k.startswith("generator.") for k in changed)
    rows = rows_of(tmp_path)
    assert float(rows[-1]["maps"]) < float(rows[0]["maps"])


def test_some_crops_are_altered_only_mildly(
    images: list[TrainingImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(
        images: list[TrainingImage],
        count: int,
        size: int,
        rng: np.random.Generator,
        *,
        weights: None,
        mild: bool,
    ) -> Crops:
        assert weights is None, "each image is as likely as the others"
        drawn.append((count, mild))
        return draw_crops(images, count, size, rng, mild=mild)

    monkeypatch.setattr(trainer, "draw_crops", draw)
    config = replace(CONFIG, steps=1, batch_size=4, mild=0.25)
    train(base_state(), images, tmp_path, config, generator_step)
    assert drawn == [(3, False), (1, True)]


def test_shipped_weights_load_as_the_averages(
    images: list[TrainingImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = base_state()
    train(state, images, tmp_path / "run", replace(CONFIG, steps=3))
    name = "sam.mask_decoder.iou_token.weight"
    assert not torch.equal(state.averages[name], state.networks().state_dict()[name])
    state.use_averages()
    assert torch.equal(state.averages[name], state.networks().state_dict()[name])
    write_sam(state, tmp_path)
    write_generator(tmp_path / "prompt_generator.safetensors", state.generator)
    monkeypatch.setattr(
        "napari_sac.core.models.registry.get_spec", lambda _: state.spec
    )
    model = load_model("sac_tiny", device="cpu", shipped=tmp_path)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = state.sam.eval().image_encoder(x)
        difference = (model.sam.image_encoder(x) - expected).norm() / expected.norm()
    assert difference < 1e-2, "half precision, no more"
    assert (tmp_path / "sac_tiny.safetensors").stat().st_size > 0


def test_training_images_follow_the_splits(tmp_path: Path) -> None:
    drawn = draw_nuclei((40, 40), 2, 8)
    for folder in ("with", "without"):
        for part in ("images", "labels"):
            (tmp_path / folder / part).mkdir(parents=True)
        for name in ("\u00e4", "b", "test_c"):
            path = tmp_path / folder / "images" / f"{name}.png"
            imsave(path, drawn.image, check_contrast=False)
            labels = drawn.labels.astype(np.uint16)
            imsave(
                tmp_path / folder / "labels" / path.name, labels, check_contrast=False
            )
    # an accented letter is the same in one sign or two
    splits = "id,split\na\u0308,train\nb,val\ntest_c,train\n"
    (tmp_path / "with" / "splits.csv").write_text(splits, encoding="utf-8")
    assert len(load_training_images([tmp_path / "with"], 24.0)) == 2
    assert len(load_training_images([tmp_path / "without"], 24.0)) == 2
    (tmp_path / "with" / "splits.csv").write_text("id,split\n")
    with pytest.raises(LabelFormatError, match="no training images"):
        load_training_images([tmp_path / "with"], 24.0)


def write_pairs(
    folder: Path, images: dict[str, np.ndarray], labels: np.ndarray
) -> None:
    for name, pixels in images.items():
        for part, plane in (("images", pixels), ("labels", labels.astype(np.uint16))):
            (folder / part).mkdir(exist_ok=True)
            imsave(folder / part / f"{name}.png", plane, check_contrast=False)


def test_most_are_stained_brown_if_one_wants(tmp_path: Path) -> None:
    grey = draw_nuclei((80, 90), 5, 8, 0)
    tissue = grey.image.copy()
    tissue[..., 0] //= 2
    images = {f"grey_{i}": grey.image for i in range(6)} | {"tissue": tissue}
    write_pairs(tmp_path, images, grey.labels)
    found = load_brown_images([tmp_path], 24.0, seed=5)
    # two of six grey ones, brown; that in colour as it is and three times brown
    assert len(found) == 2 + 1 + 3
    as_it_is = prepare_image(normalise_image(tissue), grey.labels, 24.0)
    assert torch.equal(found[2].image, as_it_is.image)
    assert all(torch.equal(one.labels, as_it_is.labels) for one in found)
    pictures = {one.image.numpy().tobytes() for one in found}
    assert len(pictures) == 6
    again = load_brown_images([tmp_path], 24.0, seed=5)
    assert {one.image.numpy().tobytes() for one in again} == pictures
    other = load_brown_images([tmp_path], 24.0, seed=6)
    assert len({one.image.numpy().tobytes() for one in other} & pictures) == 1


def test_images_in_colour_are_there_once_more_as_a_stain(tmp_path: Path) -> None:
    grey = draw_nuclei((80, 90), 5, 8, 0)
    tissue = grey.image.copy()
    tissue[..., 0] //= 2
    write_pairs(tmp_path, {"grey": grey.image, "tissue": tissue}, grey.labels)
    assert len(load_training_images([tmp_path], 24.0)) == 2
    found = load_training_images([tmp_path], 24.0, stains=["haematoxylin"])
    assert len(found) == 3
    alone = prepare_image(
        normalise_image(tissue, stain="haematoxylin"), grey.labels, 24.0
    )
    assert torch.equal(found[2].image, alone.image)
    assert torch.equal(found[2].labels, found[1].labels)
    assert not torch.equal(found[1].image, alone.image)
