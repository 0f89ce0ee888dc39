"""What a fine-tuning tells while it runs, and what it can be asked for.

Nothing here needs torch, so a dock may import it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_sac.core.evaluation.metrics import ImageScores
    from napari_sac.core.types import IntArray


class Wish(Enum):
    """What the user wants of a run at the moment."""

    GO = "go"
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Told:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class Began:
    """All is planned: the steps come now, from ``step`` on, of ``steps``."""

    step: int
    steps: int


@dataclass(frozen=True)
class Stepped:
    """The training is at ``step`` of ``steps``; ``row`` is the new one of the curve.

    ``seconds_left`` is until the last step.
    """

    step: int
    steps: int
    row: dict[str, float]
    seconds_left: float


@dataclass(frozen=True, eq=False)
class Validated:
    """The weights that would be kept were looked at on the held-out part.

    ``image`` (h, w, 3) uint8, ``labels`` and ``truth`` (h, w) are of its first window,
    to be shown: what is found now, and what is true.
    """

    step: int
    scores: ImageScores
    best: bool
    image: npt.NDArray[np.uint8]
    labels: IntArray
    truth: IntArray


@dataclass(frozen=True)
class Working:
    """Something beside the steps takes its time; the numbers are those of a Progress.

    The held-out part is being segmented, or the training images looked through.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Comparing:
    """The training is over, and the best weights are being compared."""


Event = Told | Began | Stepped | Validated | Working | Comparing
Listen = Callable[[Event], None]
Ask = Callable[[], Wish]


def ignore_event(event: Event) -> None:
    """Do nothing: the default listener."""


def always_go() -> Wish:
    """Return that nobody wants anything: the default."""
    return Wish.GO
