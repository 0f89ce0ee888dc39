"""An image in a viewer without a window, and a model that finds bright discs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.progress import ignore_progress
from napari_sac.viewer import keys
from napari_sac.viewer.inference import (
    FindRequest,
    LoadedModel,
    ModelChoice,
    SegmentRequest,
    find_nuclei,
    segment,
)
from napari_sac.viewer.live import decode_live
from napari_sac.viewer.planes import current_plane
from napari_sac.viewer.relabelling import KnownLabels
from napari_sac.viewer.session import AnnotationSession

if TYPE_CHECKING:
    from napari.layers import Image
    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.inference import Segmented
    from napari_sac.viewer.planes import ImagePlane


@pytest.fixture(autouse=True)
def same_keys_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl mean Ctrl on a Mac too; a test of its own looks at Cmd."""
    monkeypatch.setattr(keys, "_is_mac", lambda: False)


class Bench:
    """A session with an image of twelve nuclei, and what the buttons would do."""

    def __init__(self, image: Nuclei, model: Model) -> None:
        self.viewer = ViewerModel()
        self.layer: Image = self.viewer.add_image(
            image.image,
            rgb=True,
            name="field",
            scale=(0.5, 0.25),
            translate=(10, 20),
            units=("um", "um"),
            axis_labels=("y", "x"),
        )
        self.loaded = LoadedModel(ModelChoice("tiny"), model)
        self.session = AnnotationSession.of(self.viewer)
        # a random model thinks little of its masks
        self.session.decode_config = DecodeConfig(minimum_iou=0)

    @property
    def plane(self) -> ImagePlane:
        return current_plane(self.layer, self.viewer.dims.point)

    def find(self, **options: Any) -> Annotation:
        # below the lowest of the scores given further down
        config = ProposalConfig(**({"score_threshold": 0.3} | options))
        request = FindRequest(
            self.plane, self.loaded.choice, self.loaded, config, diameter=20
        )
        found = find_nuclei(request, ignore_progress)
        # the model is as sure of each, where a threshold wants differences
        found.prompts.score[:] = np.linspace(0.4, 0.95, len(found.prompts))
        return self.session.show_proposals(self.plane, found, config.score_threshold)

    def ask_for_labels(
        self, annotation: Annotation, mode: str = "instance", overlap: float = 1
    ) -> SegmentRequest:
        self.session.sync(annotation)
        return SegmentRequest(
            self.plane,
            annotation.prompts,
            self.loaded.choice,
            self.loaded,
            # a random model thinks little of its masks
            DecodeConfig(mode=mode, minimum_iou=0, overlap_threshold=overlap),
            annotation.diameter,
            annotation.embedding,
            annotation.masks,
            KnownLabels.of(annotation),
            annotation.painted,
            foreground=annotation.foreground,
        )

    def segment(
        self, annotation: Annotation, mode: str = "instance", overlap: float = 1
    ) -> Segmented:
        request = self.ask_for_labels(annotation, mode, overlap)
        segmented = segment(request, ignore_progress)
        self.session.show_labels(annotation, self.plane, segmented)
        return segmented

    def decode(self, limit: int = 100) -> int:
        """Serve the live queue as the dock's worker would; return how often."""
        served = 0
        while (request := self.session.live.next_request()) is not None:
            assert served < limit
            self.session.live.take(decode_live(request, ignore_progress))
            served += 1
        return served


@pytest.fixture
def bench(nuclei: Nuclei, disc_model: Model) -> Bench:
    return Bench(nuclei, disc_model)


@pytest.fixture
def undisturbed(nuclei: Nuclei, disc_model: Model) -> Bench:
    """Another viewer with the same image, to compare with."""
    return Bench(nuclei, disc_model)
