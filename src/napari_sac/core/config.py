"""Every default of the program: frozen dataclasses whose fields describe themselves.

The dock's forms and the command line's flags are built from these fields, so a label,
a tooltip, a range and a default are written once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol

Strategy = Literal["centroid", "probability"]
Mode = Literal["instance", "semantic"]
Stain = Literal["haematoxylin"]

STAINS: tuple[Stain, ...] = ("haematoxylin",)
"""The stains of tissue that can be looked at alone."""

DEFAULT_MODEL = "sac_tiny"


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def _option(
    default: Any,
    label: str,
    tooltip: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Return a dataclass field with what a form and a command line need to know."""
    metadata = {
        "label": label,
        "tooltip": tooltip,
        "min": minimum,
        "max": maximum,
        "step": step,
        "choices": choices,
    }
    known = {k: v for k, v in metadata.items() if v is not None}
    return field(default=default, metadata=known)


@dataclass(frozen=True)
class ProposalConfig:
    """How the prompt generator's maps become point prompts.

    The strategies are the two of Segment Any Cell (arXiv 2401.13220); the numbers are
    our choice, set on validation images.
    """

    strategy: Strategy = _option(
        "centroid",
        "Strategy",
        "centroid: one point in each nucleus, from the distance map. "
        "probability: the most certain pixels.",
        choices=("centroid", "probability"),
    )
    score_threshold: float = _option(
        0.65,
        "Minimum score",
        "Proposals that the generator is less sure of are hidden.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    foreground_threshold: float = _option(
        0.5,
        "Foreground threshold",
        "Pixels at least this probable belong to a nucleus.",
        minimum=0.05,
        maximum=0.95,
        step=0.05,
    )
    prominence: float = _option(
        0.1,
        "Prominence",
        "How far the distance map must fall between two nuclei that touch. "
        "Smaller splits more.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )
    minimum_area: float = _option(
        0.05,
        "Minimum area",
        "Smallest nucleus, as a part of the typical nucleus's area.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DecodeConfig:
    """How prompts become masks, and masks become labels."""

    mode: Mode = _option(
        "instance",
        "Mode",
        "instance: each nucleus from its own prompts. "
        "semantic: all prompts in one decoding, one binary mask.",
        choices=("instance", "semantic"),
    )
    neighbour_negatives: int = _option(
        1,
        "Neighbours as negatives",
        "How many of the nearest other nuclei serve as negative prompts, where a "
        "person placed one of the two.",
        minimum=0,
        maximum=4,
    )
    minimum_iou: float = _option(
        0.3,
        "Minimum predicted IoU",
        "Masks of proposals that the model thinks worse than this are dropped; "
        "points set or accepted by a person are always kept.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
    )
    generator_weight: float = _option(
        0.5,
        "Weight of the generator",
        "How much the generator's view of what is nucleus counts beside the model's "
        "mask; 0 for the mask alone.",
        minimum=0.0,
        maximum=2.0,
        step=0.1,
    )
    overlap_threshold: float = _option(
        0.4,
        "Duplicate overlap",
        "Of two masks that overlap more than this (IoU), or of which one lies in the "
        "other, the less certain is dropped, unless a person set or accepted it.",
        minimum=0.1,
        maximum=1.0,
        step=0.05,
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train.

    Parameters
    ----------
    steps : int
        The training ends after so many steps, or after ``max_minutes``.
    max_minutes : float
        0 for no limit. The learning rate falls with whichever is used up sooner.
    batch_size, prompts_per_crop : int
        Crops a step, and prompts on each at most.
    mild : float
        Part of the crops whose scale and colours stay near the image's own.
    weigh_neighbours : bool
        Whether pixels of other nuclei weigh as much as those of a mask's own.
    learning_rate : float
        Highest rate, after ``warm_up_steps``; it falls along a cosine.
    weight_decay : float
        On weight matrices.
    averaging : float
        The weights that are kept are running averages with this decay.
    seed : int
    bfloat16 : bool
        Whether to compute in bfloat16 where that is safe: several times faster on
        processors that have it.
    """

    steps: int = 6000
    max_minutes: float = 0.0
    batch_size: int = 8
    prompts_per_crop: int = 16
    mild: float = 0.0
    weigh_neighbours: bool = True
    learning_rate: float = 8e-4
    warm_up_steps: int = 150
    weight_decay: float = 0.03
    averaging: float = 0.998
    seed: int = 0
    bfloat16: bool = True


@dataclass(frozen=True)
class FinetuneConfig:
    """How a model is fine-tuned to somebody's own images."""

    quick: bool = _option(
        False,
        "Quick",
        "Train the mask decoder and the prompt generator only, the image encoder "
        "stays as it is: about a minute. Full also adapts the encoder (LoRA).",
    )
    max_minutes: float = _option(
        0.0,
        "Minutes at most",
        "The training is planned so that all is done in this time; 0 for no limit, or "
        "for Quick's own 45 seconds.",
        minimum=0.0,
        maximum=100_000.0,
        step=1.0,
    )
    epochs: int = _option(
        0,
        "Epochs",
        "How often the training looks at all of the images; 0 chooses by their size, "
        "or as many as fit into the minutes.",
        minimum=0,
        maximum=100_000,
    )
    rank: int = _option(
        8,
        "Rank",
        "Width of the LoRA layers: more can learn more, and forgets more.",
        minimum=1,
        maximum=256,
    )
    alpha: float = _option(
        0.0,
        "Alpha",
        "LoRA's update is multiplied by alpha / rank; 0 takes the rank itself.",
        minimum=0.0,
        maximum=1024.0,
    )
    blocks: int = _option(
        0,
        "Blocks",
        "How many of the image encoder's last blocks learn; 0 for all.",
        minimum=0,
        maximum=64,
    )
    learning_rate: float = _option(
        5e-4,
        "Learning rate",
        "The highest rate; it rises at the start and falls to the end.",
        minimum=1e-7,
        maximum=1.0,
        step=1e-5,
    )
    batch_size: int = _option(
        4,
        "Batch",
        "Crops in each step, over all processes together.",
        minimum=1,
        maximum=4096,
    )
    prompts_per_crop: int = _option(
        16,
        "Prompts",
        "Nuclei of each crop that are decoded in a step, at most.",
        minimum=1,
        maximum=256,
    )
    original_part: float = _option(
        0.1,
        "Original data",
        "Part of the crops that come from the original data, where they are given, "
        "against forgetting.",
        minimum=0.0,
        maximum=0.9,
        step=0.05,
    )
    seed: int = _option(
        0,
        "Seed",
        "The same seed and the same number of epochs give the same adapter on the same "
        "machine, unless its speed changes how often it is compared.",
        minimum=0,
        maximum=2**31 - 1,
    )

    def __post_init__(self) -> None:
        check_ranges(self)


def check_ranges(config: _Dataclass) -> None:
    """Raise ``ValueError`` if a field is outside its range or not among its choices."""
    for f in fields(config):
        value = getattr(config, f.name)
        choices = f.metadata.get("choices")
        if choices is not None and value not in choices:
            raise ValueError(f"{f.name} must be one of {choices}, got {value!r}")
        low, high = f.metadata.get("min"), f.metadata.get("max")
        # written so that not-a-number is outside every range
        if low is not None and not value >= low:
            raise ValueError(f"{f.name} must be at least {low}, got {value}")
        if high is not None and not value <= high:
            raise ValueError(f"{f.name} must be at most {high}, got {value}")
