"""Maps become one prompt for each nucleus, at any scale, tiled or not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from synthetic import Nuclei, draw_nuclei

from napari_sac.core.config import ProposalConfig
from napari_sac.core.errors import ImageFormatError
from napari_sac.core.inference import memory
from napari_sac.core.inference import proposals as module
from napari_sac.core.inference.generator_maps import GeneratorMaps
from napari_sac.core.inference.proposals import (
    Proposals,
    estimate_diameter,
    find_proposals,
    generator_labels,
)
from napari_sac.core.progress import ignore_progress
from napari_sac.core.types import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model
    from napari_sac.core.types import Prompts


def assert_one_point_in_each(proposals: Proposals, nuclei: Nuclei) -> None:
    positives = proposals.prompts.select(proposals.prompts.sign == POSITIVE)
    rows, columns = np.round(positives.yx).astype(int).T
    hit = nuclei.labels[rows, columns]
    assert sorted(hit) == list(range(1, nuclei.labels.max() + 1))


def test_what_would_fill_the_memory_is_refused_before(
    disc_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system would end the whole program."""
    nuclei = draw_nuclei((200, 260), count=6, radius=11)
    monkeypatch.setattr(memory, "available_memory", lambda: 80_000_000)
    config = ProposalConfig()
    assert len(find_proposals(nuclei.image, disc_model, config, diameter=22).prompts)
    with pytest.raises(ImageFormatError, match="nuclei of 6 pixels in 200 x 260"):
        find_proposals(nuclei.image, disc_model, config, diameter=6)


def test_a_slide_is_cut_into_nuclei_part_by_part(
    disc_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    nuclei = draw_nuclei((300, 400), count=25, radius=10)
    config = ProposalConfig()
    told: list[str] = []
    whole = find_proposals(nuclei.image, disc_model, config, diameter=20).prompts
    monkeypatch.setattr(module, "_PART", 64)
    parts = find_proposals(
        nuclei.image,
        disc_model,
        config,
        diameter=20,
        progress=lambda stage, done, total: told.append(stage),
    ).prompts

    def rows(prompts: Prompts) -> list[tuple[float, ...]]:
        columns = np.column_stack([prompts.yx, prompts.score])
        return sorted(map(tuple, columns.tolist()))

    assert rows(whole) == rows(parts)
    assert sorted(parts.object_id) == list(range(1, 26))
    # so it can be cancelled in between
    assert told.count("setting points") > 10


@pytest.mark.parametrize("strategy", ["centroid", "probability"])
@pytest.mark.parametrize("radius", [7.0, 11.0, 24.0])
def test_one_positive_in_each_nucleus(
    disc_model: Model, strategy: str, radius: float
) -> None:
    nuclei = draw_nuclei((200, 260), count=6, radius=radius)
    config = ProposalConfig(strategy=strategy)
    found = find_proposals(nuclei.image, disc_model, config, diameter=2 * radius)
    assert_one_point_in_each(found, nuclei)
    assert (found.prompts.score > 0.3).all()


def test_negatives_of_the_probability_strategy_lie_in_the_background(
    disc_model: Model, nuclei: Nuclei
) -> None:
    config = ProposalConfig(strategy="probability")
    prompts = find_proposals(nuclei.image, disc_model, config, diameter=20).prompts
    negatives = prompts.select(prompts.sign == NEGATIVE)
    assert set(negatives.object_id) == set(prompts.object_id)
    rows, columns = np.round(negatives.yx).astype(int).T
    assert (nuclei.labels[rows, columns] == 0).all()


@pytest.mark.parametrize("radius", [8.0, 12.0, 22.0])
def test_the_diameter_is_estimated(disc_model: Model, radius: float) -> None:
    nuclei = draw_nuclei((240, 240), count=8, radius=radius)
    found = estimate_diameter(nuclei.image, disc_model)
    assert found == pytest.approx(1.8 * radius, rel=0.15)


def test_a_large_image_is_measured_where_there_is_something(disc_model: Model) -> None:
    nuclei = draw_nuclei((400, 400), count=30, radius=18)
    image = np.full((2600, 2600, 3), nuclei.image[0, 0], np.uint8)
    image[570:970, 1600:2000] = nuclei.image
    found = estimate_diameter(image, disc_model, ProposalConfig())
    there = estimate_diameter(nuclei.image, disc_model, ProposalConfig())
    assert found == pytest.approx(there, rel=0.1)


def test_specks_of_noise_in_large_nuclei_are_not_gone_after(
    monkeypatch: pytest.MonkeyPatch, disc_model: Model
) -> None:
    """Nor is the image looked at ever closer."""
    image = np.zeros((200, 200, 3), np.uint8)
    looked_at: list[float] = []

    def measure(*given: object) -> object:
        # large nuclei of 60 pixels, of which one sees a speck from near
        scale = float(given[3])
        looked_at.append(scale)
        far = scale <= 0.5
        return module._Measured(60.0 if far else 2.0, 0.2 if far else 1e-5)

    monkeypatch.setattr(module, "_measure", measure)
    assert estimate_diameter(image, disc_model) == 60
    assert max(looked_at) == 1


def test_what_is_ever_smaller_is_measured_once_at_the_finest_scale(
    monkeypatch: pytest.MonkeyPatch, disc_model: Model
) -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    looked_at: list[float] = []

    def measure(*given: object) -> object:
        looked_at.append(float(given[3]))
        return module._Measured(1.0, 0.1)

    monkeypatch.setattr(module, "_measure", measure)
    assert estimate_diameter(image, disc_model) == 1
    # and once more, as ever at the end
    assert looked_at == [1.0, 6.0, 6.0]


def test_touching_nuclei_are_split_where_the_distance_map_falls() -> None:
    y, x = np.mgrid[:40, :80]
    depths = [
        np.clip(top - np.hypot(y - 20, x - c) / 14, 0, 1)
        for c, top in ((28, 1.0), (52, 0.98))
    ]
    distance = np.maximum(*depths).astype(np.float32)
    maps = GeneratorMaps((distance > 0).astype(np.float32), distance, 1.0)
    assert generator_labels(maps, ProposalConfig(prominence=0.1)).max() == 2
    assert generator_labels(maps, ProposalConfig(prominence=0.9)).max() == 1


def test_a_component_without_a_peak_still_gets_a_prompt() -> None:
    foreground = np.zeros((40, 40), np.float32)
    foreground[10:30, 10:30] = 1
    maps = GeneratorMaps(foreground, np.zeros_like(foreground), 1.0)
    labels = generator_labels(maps, ProposalConfig())
    assert (labels > 0).sum() == 400


def test_a_field_without_background_loses_no_nucleus() -> None:
    y, x = np.mgrid[:30, :60]
    depths = [np.clip(1 - np.hypot(y - 15, x - c) / 40, 0, 1) for c in (15, 45)]
    distance = np.maximum(*depths).astype(np.float32)
    maps = GeneratorMaps(np.ones((30, 60), np.float32), distance, 1.0)
    found = module._centroids(maps, ProposalConfig(prominence=0.1), ignore_progress)
    assert len(found) == 2
    one = GeneratorMaps(maps.foreground[:, :30], distance[:, :30], 1.0)
    config = ProposalConfig(prominence=0.1)
    assert len(module._centroids(one, config, ignore_progress)) == 1


def test_the_threshold_only_hides() -> None:
    """All down to a low score is kept: a slider needs no recomputation."""
    foreground = np.zeros((40, 80), np.float32)
    foreground[10:30, 10:30] = 0.9
    foreground[10:30, 50:70] = 0.4
    maps = GeneratorMaps(foreground, (foreground > 0).astype(np.float32), 1.0)
    found = Proposals(
        module._centroids(maps, ProposalConfig(), ignore_progress), 20.0, maps
    )
    assert len(found.prompts) == 2
    assert len(found.above(0.6)) == 1
    assert len(found.above(0.0)) == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (17, 33)])
def test_any_size(disc_model: Model, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    found = find_proposals(image, disc_model, ProposalConfig())
    assert len(found.prompts) == 0
    assert found.diameter > 0


def test_a_uniform_bright_image_is_no_crash(disc_model: Model) -> None:
    image = np.full((50, 60, 3), 255, np.uint8)
    for strategy in ("centroid", "probability"):
        config = replace(ProposalConfig(), strategy=strategy)
        assert isinstance(find_proposals(image, disc_model, config), Proposals)
