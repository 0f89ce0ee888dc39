"""The embedding: a value with a key, one tile or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from synthetic import Nuclei, build_tiny_model

from napari_sac.core.errors import Cancelled, ImageFormatError
from napari_sac.core.inference import memory
from napari_sac.core.inference.embedding import embed_image, embedding_key
from napari_sac.core.inference.generator_maps import (
    GENERATOR_DIAMETER,
    as_logits,
    generator_maps,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sac.core.models.registry import Model


def test_a_small_image_is_padded_into_one_tile_as_sam_pads(tiny_model: Model) -> None:
    image = np.full((40, 50, 3), 200, np.uint8)
    embedding = embed_image(image, tiny_model, scale=1.0)
    sam = tiny_model.sam
    with torch.inference_mode():
        pixels = sam.preprocess(torch.from_numpy(image).permute(2, 0, 1).float())
        expected = sam.image_encoder(pixels[None])
    torch.testing.assert_close(embedding.features, expected)


def test_every_tile_is_the_encoding_of_its_part(
    tiny_model: Model, nuclei: Nuclei
) -> None:
    embedding = embed_image(nuclei.image, tiny_model, scale=1.0)
    origins = embedding.tile_origins()
    assert len(origins) == len(embedding.features) > 1
    y, x = origins[-1]
    alone = embed_image(nuclei.image[y : y + 64, x : x + 64], tiny_model, scale=1.0)
    torch.testing.assert_close(
        embedding.features[-1], alone.features[0], rtol=1e-4, atol=1e-5
    )


def test_what_the_generator_saw_is_not_computed_again(
    tiny_model: Model, nuclei: Nuclei, monkeypatch: pytest.MonkeyPatch
) -> None:
    finer = GENERATOR_DIAMETER / tiny_model.spec.nucleus_diameter
    maps = generator_maps(nuclei.image, tiny_model, 1.5 * finer)
    seen = as_logits(maps)
    expected = embed_image(nuclei.image, tiny_model, scale=1.5)
    other = embed_image(nuclei.image, tiny_model, scale=1.0)
    scales = []

    def count(
        image: npt.NDArray[np.uint8], model: Model, scale: float, **_: object
    ) -> object:
        scales.append(scale)
        return generator_maps(image, model, scale)

    place = "napari_sac.core.inference.embedding.generator_maps"
    monkeypatch.setattr(place, count)
    again = embed_image(nuclei.image, tiny_model, scale=1.5, foreground=seen)
    assert scales == []
    assert again.foreground is seen
    np.testing.assert_array_equal(again.foreground.logits, expected.foreground.logits)
    again = embed_image(nuclei.image, tiny_model, scale=1.0, foreground=seen)
    assert scales == [finer], "it is of another scale"
    np.testing.assert_array_equal(again.foreground.logits, other.foreground.logits)
    turned = np.ascontiguousarray(nuclei.image[::-1])
    again = embed_image(turned, tiny_model, scale=1.5, foreground=seen)
    assert len(scales) == 2, "it is of another image"
    assert again.foreground.key != seen.key
    other_model = build_tiny_model(seed=1)
    embed_image(nuclei.image, other_model, scale=1.5, foreground=seen)
    assert len(scales) == 3, "it is of another model"
    once = generator_maps(nuclei.image, tiny_model, 1.5 * finer, mirrored=False)
    assert once.key != maps.key, "one look is not four"


def test_looking_for_nuclei_can_be_cancelled(tiny_model: Model, nuclei: Nuclei) -> None:
    stages = []
    embed_image(
        nuclei.image, tiny_model, scale=1.0, progress=lambda *r: stages.append(r[0])
    )
    assert stages[-1] == "finding nuclei", "told, so it can be stopped"


def test_positions_scale_about_pixel_edges(tiny_model: Model) -> None:
    embedding = embed_image(np.zeros((8, 8, 3), np.uint8), tiny_model, scale=2.0)
    positions = np.array([[0.0, -0.5], [7.5, 3.0]])
    np.testing.assert_allclose(
        embedding.to_input(positions), [[0.5, -0.5], [15.5, 6.5]]
    )


def test_the_key_tells_pixels_model_and_scale_apart(nuclei: Nuclei) -> None:
    model, other = build_tiny_model(0), build_tiny_model(1)
    key = embed_image(nuclei.image, model, scale=1.0).key
    assert key == embedding_key(nuclei.image, model.key, 1.0)
    changed = nuclei.image.copy()
    changed[0, 0, 0] ^= 1
    assert (
        len(
            {
                key,
                embedding_key(changed, model.key, 1.0),
                embedding_key(nuclei.image, other.key, 1.0),
                embedding_key(nuclei.image, model.key, 1.5),
                embedding_key(nuclei.image.reshape(200, 160, 3), model.key, 1.0),
            }
        )
        == 5
    )


def test_progress_can_cancel(tiny_model: Model, nuclei: Nuclei) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        # not before the first tile, nor when the generator looks
        if stage == "embedding" and done > 0:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        embed_image(nuclei.image, tiny_model, scale=1.0, progress=stop)


def test_what_would_fill_the_memory_is_refused_before(
    tiny_model: Model, nuclei: Nuclei, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system would end the whole program."""
    monkeypatch.setattr(memory, "available_memory", lambda: 200_000_000)
    embed_image(nuclei.image, tiny_model, scale=1.0)
    with pytest.raises(ImageFormatError, match=r"GB are free\. Nothing was changed"):
        embed_image(nuclei.image, tiny_model, scale=40.0)
