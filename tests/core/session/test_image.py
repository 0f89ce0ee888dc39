"""What a session knows of its image: also which stain of it is looked at."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.io import imsave

from napari_sac.core.config import DecodeConfig
from napari_sac.core.errors import SessionError
from napari_sac.core.inference.segment import segment_image
from napari_sac.core.io import normalise_image
from napari_sac.core.session.changes import find_change
from napari_sac.core.session.history import History
from napari_sac.core.session.image import ImageReference, hash_pixels, load_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.session.replay import replay
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import Prompts

if TYPE_CHECKING:
    from pathlib import Path

    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model


def stained(nuclei: Nuclei) -> np.ndarray:
    """Return blue nuclei on paper of which the left part is brown."""
    colour = np.full((*nuclei.labels.shape, 3), 255, np.uint8)
    colour[nuclei.labels > 0] = (110, 90, 160)
    colour[:, :80] = np.minimum(colour[:, :80], (150, 90, 50))
    return colour


def test_a_stain_is_written_only_where_one_is_looked_at() -> None:
    plain = ImageReference("a.png", "tissue", "0" * 64, (24, 31))
    old = asdict(plain)
    del old["stain"]
    assert plain.to_json() == json.dumps(old), "as an older version writes and reads it"
    assert ImageReference.from_json(json.dumps(old)) == plain
    blue = replace(plain, stain="haematoxylin")
    assert ImageReference.from_json(blue.to_json()) == blue
    for nonsense in ("iron", 1, []):
        with pytest.raises(ValueError, match="impossible"):
            ImageReference.from_json(json.dumps(old | {"stain": nonsense}))


def test_the_stain_is_taken_out_of_the_file_again(
    tmp_path: Path, nuclei: Nuclei
) -> None:
    colour = stained(nuclei)
    file = tmp_path / "tissue.png"
    imsave(file, colour, check_contrast=False)
    pixels = normalise_image(colour, stain="haematoxylin")
    shape = nuclei.labels.shape
    image = ImageReference(
        str(file), "tissue", hash_pixels(pixels), shape, stain="haematoxylin"
    )
    np.testing.assert_array_equal(load_pixels(image, tmp_path, tmp_path)[0], pixels)
    with pytest.raises(SessionError, match="other pixels"):
        load_pixels(replace(image, stain=None), tmp_path, tmp_path)


def test_a_replay_looks_at_the_stain(
    tmp_path: Path, nuclei: Nuclei, disc_model: Model
) -> None:
    colour = stained(nuclei)
    file = tmp_path / "tissue.png"
    imsave(file, colour, check_contrast=False)
    pixels = normalise_image(colour, stain="haematoxylin")
    config = DecodeConfig(minimum_iou=0.0)
    found = segment_image(pixels, disc_model, None, config, diameter=20.0)
    assert found.labels.any()
    settings = Settings(
        model="tiny", diameter=20.0, decode=config, model_key=disc_model.key
    )
    empty = Prompts.empty()
    state = AnnotationState(found.prompts, empty, found.labels, settings=settings)
    image = ImageReference(
        str(file),
        "tissue",
        hash_pixels(pixels),
        nuclei.labels.shape,
        stain="haematoxylin",
    )
    journal = Journal.create(tmp_path / "a.sac")
    before = AnnotationState(empty, empty, np.zeros_like(state.labels))
    number = journal.add_annotation(image, before)
    history = History()
    drawn = PixelChange.between(before.labels, state.labels)
    history.push(number, find_change("segment", before, state, drawn))
    journal.push(history.done[-1])
    journal.close(clean=True)
    (result,) = replay(tmp_path / "a.sac", load=lambda *_, **__: disc_model)
    np.testing.assert_array_equal(result.labels, state.labels)


def test_the_same_bytes_in_another_shape_are_another_image(tmp_path: Path) -> None:
    pixels = np.arange(72, dtype=np.uint8).reshape(6, 4, 3)
    imsave(tmp_path / "a.png", pixels, check_contrast=False)
    known = ImageReference(None, "a", hash_pixels(pixels), (6, 4), kept=True)
    assert load_pixels(known, tmp_path / "a.png", tmp_path)[0].shape == (6, 4, 3)
    turned = replace(known, shape=(4, 6))
    with pytest.raises(SessionError, match="other pixels"):
        load_pixels(turned, tmp_path / "a.png", tmp_path)


def test_one_plane_is_known_by_its_place_and_its_pixels_or_name() -> None:
    first = ImageReference("a.nd2", "DAPI", "1" * 64, (4, 5), (2, 7))
    same = replace(first, name="blue")
    assert first.is_plane_of(same)
    # other channels of it, in a layer that napari has numbered
    other = replace(
        first, name="DAPI [1]", sha256="2" * 64, index=(2, 3, 7), channel_axis=1
    )
    assert first.is_plane_of(replace(other, channels=(0,)))
    assert not first.is_plane_of(other)
    assert not first.is_plane_of(replace(first, name="GFP", sha256="2" * 64))
    assert not first.is_plane_of(replace(first, path="b.nd2"))
    # without a file a name says nothing
    nameless = replace(first, path=None)
    assert nameless.is_plane_of(replace(nameless, name="GFP"))
    assert not nameless.is_plane_of(replace(nameless, sha256="2" * 64))
