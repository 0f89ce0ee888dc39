"""The values that the parts of the program hand to each other.

Coordinates are (y, x) in pixels of the image, with pixel centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]

POSITIVE = 1
NEGATIVE = 0


class PromptState(StrEnum):
    """What has been decided about a prompt, and by whom."""

    AUTO = "auto"
    ACCEPTED = "accepted"
    ADDED = "added"
    MOVED = "moved"
    REJECTED = "rejected"


@dataclass(frozen=True, eq=False)
class Prompts:
    """Point prompts, one row a point; rows with one ``object_id`` prompt one nucleus.

    Parameters
    ----------
    object_id : (N,) int64
        The nucleus that the point belongs to; 1 or larger.
    yx : (N, 2) float64
        Position in pixels of the image.
    sign : (N,) int8
        ``POSITIVE`` (1, inside the nucleus) or ``NEGATIVE`` (0, outside it).
    score : (N,) float32
        How sure the prompt generator is, in [0, 1]; 1 for points set by a person.
    state : (N,) str
        A :class:`PromptState` each.
    """

    object_id: npt.NDArray[np.int64]
    yx: npt.NDArray[np.float64]
    sign: npt.NDArray[np.int8]
    score: npt.NDArray[np.float32]
    state: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        n = len(self.object_id)
        columns = (self.object_id, self.sign, self.score, self.state)
        if self.yx.shape != (n, 2) or any(c.shape != (n,) for c in columns):
            raise ValueError(
                f"columns of unequal length: {[c.shape for c in (*columns, self.yx)]}"
            )

    def __len__(self) -> int:
        return len(self.object_id)

    @classmethod
    def from_points(
        cls,
        yx: npt.ArrayLike,
        *,
        object_id: npt.ArrayLike | None = None,
        sign: npt.ArrayLike = POSITIVE,
        score: npt.ArrayLike = 1.0,
        state: npt.ArrayLike = PromptState.AUTO.value,
    ) -> Prompts:
        """Return prompts at ``yx`` (N, 2); without ids each is its own nucleus."""
        points = np.asarray(yx, dtype=np.float64).reshape(-1, 2)
        n = len(points)
        ids = np.arange(1, n + 1) if object_id is None else object_id
        return cls(
            object_id=np.array(np.broadcast_to(ids, n), dtype=np.int64),
            yx=points.copy(),
            sign=np.array(np.broadcast_to(sign, n), dtype=np.int8),
            score=np.array(np.broadcast_to(score, n), dtype=np.float32),
            state=np.array(np.broadcast_to(state, n), dtype="<U8"),
        )

    @classmethod
    def empty(cls) -> Prompts:
        """Return no prompts."""
        return cls.from_points(np.empty((0, 2)))

    @property
    def rejected(self) -> BoolArray:
        """Which rows (N,) a person rejected: they stay, and prompt nothing."""
        return np.asarray(self.state == PromptState.REJECTED.value)

    @property
    def placed(self) -> BoolArray:
        """Which rows (N,) a person added or moved."""
        states = (PromptState.ADDED.value, PromptState.MOVED.value)
        return np.isin(self.state, states)

    @property
    def usable(self) -> BoolArray:
        """Which rows (N,) are positives that nobody rejected: they make a nucleus."""
        return np.asarray((self.sign == POSITIVE) & ~self.rejected)

    def equals(self, other: Prompts) -> bool:
        """Return whether the other table has the same rows in the same order."""
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
        )

    def select(self, rows: BoolArray | IntArray) -> Prompts:
        """Return the given rows, by boolean mask or by index."""
        return Prompts(
            self.object_id[rows],
            self.yx[rows],
            self.sign[rows],
            self.score[rows],
            self.state[rows],
        )

    @staticmethod
    def concatenate(parts: Iterable[Prompts]) -> Prompts:
        """Return the rows of all parts, in order."""
        tables = list(parts) or [Prompts.empty()]
        return Prompts(
            np.concatenate([p.object_id for p in tables]),
            np.concatenate([p.yx for p in tables]),
            np.concatenate([p.sign for p in tables]),
            np.concatenate([p.score for p in tables]),
            np.concatenate([p.state for p in tables]),
        )


@dataclass(frozen=True)
class ObjectClass:
    """The class of a nucleus, as QuPath calls a classification.

    Parameters
    ----------
    name : str
        "Tumor"; a class within another one is "Tumor: Positive".
    colour : (int, int, int) or None
        Red, green and blue, 0 to 255; None leaves it to QuPath.
    """

    name: str
    colour: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a class without a name")
        if self.colour is not None and not (
            len(self.colour) == 3 and all(0 <= c <= 255 for c in self.colour)
        ):
            raise ValueError(f"{self.colour} is no colour")


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """The decoded mask of one nucleus, cropped to where it lies in the image.

    Parameters
    ----------
    object_id : int
        The nucleus, as in :class:`Prompts`.
    origin_yx : (int, int)
        Image pixel of ``logits[0, 0]``; the crop lies inside the image.
    logits : (h, w) float32
        Mask logits at image resolution; the mask is ``logits > 0``.
    predicted_iou : float
        SAM's own estimate of the mask's IoU.
    prompt_key : bytes
        Identifies the prompts and model that made the mask, so that it can be reused.
    points_key : bytes
        Identifies the nucleus's own points, whatever its neighbours and the model.
    """

    object_id: int
    origin_yx: tuple[int, int]
    logits: npt.NDArray[np.float32]
    predicted_iou: float
    prompt_key: bytes
    points_key: bytes = b""
