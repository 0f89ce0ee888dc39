"""The sample images, with and without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Layer

from napari_sac.core.datasets import dsb2018, monuseg
from napari_sac.core.datasets.pairs import LabelledImage
from napari_sac.core.errors import DownloadError
from napari_sac.viewer import sample_data

if TYPE_CHECKING:
    from pathlib import Path

# Nothing listens there.
NOWHERE = "http://127.0.0.1:9/"


def test_stained_tissue_needs_no_network() -> None:
    (tissue,) = (Layer.create(*x) for x in sample_data.immunohistochemistry())
    assert tissue.rgb
    assert tissue.data.shape == (512, 512, 3)


def test_without_a_network_the_message_says_so_and_what_to_do(tmp_path: Path) -> None:
    archive = replace(dsb2018.DSB2018, url=NOWHERE)
    with pytest.raises(DownloadError, match=r"no network.*browser"):
        sample_data.dsb2018_samples(cache=tmp_path, archive=archive)
    archive = replace(monuseg.MONUSEG_TRAINING, url=NOWHERE)
    with pytest.raises(DownloadError, match=r"no network.*browser"):
        sample_data.monuseg_samples(cache=tmp_path, archive=archive)
    assert not any(p.is_dir() for p in tmp_path.iterdir())


def test_of_several_samples_the_one_is_shown_that_the_dock_looks_at() -> None:
    pixels, labels = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int32)
    samples = tuple(LabelledImage(name, pixels, labels) for name in "abc")
    layers = sample_data._as_layers(samples, {n: n for n in "abc"}, {})
    shown = [kwargs["name"] for _, kwargs, _ in layers if kwargs["visible"]]
    # the dock takes the newest image
    images = [kwargs["name"] for _, kwargs, kind in layers if kind == "image"]
    assert shown == images[-1:]
