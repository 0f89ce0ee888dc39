"""The sample images that must be downloaded, without stopping the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.viewer import sample_data
from napari_sac.widgets._worker import wait_for

if TYPE_CHECKING:
    from napari_sac.viewer.sample_data import LayerData

_TITLE = "Downloading sample images"


def dsb2018_samples() -> list[LayerData]:
    """Return the samples of the 2018 Data Science Bowl; none if that fails."""
    return wait_for(_TITLE, sample_data.dsb2018_samples) or []


def monuseg_samples() -> list[LayerData]:
    """Return the samples of MoNuSeg 2018; none if that fails."""
    return wait_for(_TITLE, sample_data.monuseg_samples) or []
