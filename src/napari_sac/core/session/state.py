"""What is known about one plane of one image at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.config import DEFAULT_MODEL, DecodeConfig, ProposalConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from napari_sac.core.types import FloatArray, ObjectClass, Prompts


@dataclass(frozen=True)
class Settings:
    """What the labels are made with.

    Parameters
    ----------
    model : str
        A name of the registry.
    adapter : str or None
        Name of an adapter, or its folder.
    diameter : float
        Typical nucleus diameter in pixels of the image.
    threshold : float
        Proposals with a lower score are hidden.
    decode : DecodeConfig
    model_key : str or None
        The ``key`` of the loaded model, which tells other weights under the same name;
        None until a model was loaded.
    """

    model: str = DEFAULT_MODEL
    adapter: str | None = None
    diameter: float = 24.0
    threshold: float = ProposalConfig.score_threshold
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    model_key: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.diameter < float("inf"):
            raise ValueError(f"a diameter of {self.diameter} is not above 0")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"a threshold of {self.threshold} is not in [0, 1]")


@dataclass(frozen=True, eq=False)
class AnnotationState:
    """The prompts, labels and decisions of one plane of one image.

    Parameters
    ----------
    prompts : Prompts
        The points that are shown.
    hidden : Prompts
        Proposals below the score threshold.
    labels : (H, W) uint32
        0 background, otherwise an ``object_id``; contiguous. The one part that is not
        copied: :func:`~napari_sac.core.session.changes.forward` and ``backward`` write
        into it.
    painted : frozenset of int
        Ids of nuclei drawn by hand, which are never computed again.
    reviewed : tuple of (N, 2) float64
        Polygons (y, x) in pixels: what was looked at, and may serve for training.
    settings : Settings
    classes : mapping of int to ObjectClass
        Of the nuclei that have one, by ``object_id``; never changed in place. A nucleus
        of which no point is left has none, for its id may be given again.
    """

    prompts: Prompts
    hidden: Prompts
    labels: npt.NDArray[np.uint32]
    painted: frozenset[int] = frozenset()
    reviewed: tuple[FloatArray, ...] = ()
    settings: Settings = field(default_factory=Settings)
    classes: Mapping[int, ObjectClass] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.classes:
            tables = (self.prompts, self.hidden)
            known = {k for table in tables for k in table.object_id.tolist()}
            if not self.classes.keys() <= known:
                kept = {k: c for k, c in self.classes.items() if k in known}
                object.__setattr__(self, "classes", kept)
        if self.labels.dtype != np.uint32 or self.labels.ndim != 2:
            raise ValueError(
                "labels must be (H, W) uint32, "
                f"got {self.labels.shape} {self.labels.dtype}"
            )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found, drawn or reviewed, or all of that was undone."""
        said = len(self.prompts) or len(self.hidden) or self.reviewed
        return not (said or self.labels.any())
