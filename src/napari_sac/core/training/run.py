"""A fine-tuning under way: what is fixed, how far it is, and what learns in it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_sac.core.config import FinetuneConfig, TrainingConfig
from napari_sac.core.errors import Cancelled
from napari_sac.core.models.adapter import check_base, find_adapter, restore_adapter
from napari_sac.core.models.lora import inject_lora, set_trainable
from napari_sac.core.models.registry import Model, load_model, weights_sha256
from napari_sac.core.progress import ignore_progress
from napari_sac.core.training.events import Told, Wish, Working
from napari_sac.core.training.memory import Plan
from napari_sac.core.training.optimization import TrainingState, make_optimizer
from napari_sac.core.training.run_folder import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.progress import Progress
    from napari_sac.core.training.events import Ask, Listen
    from napari_sac.core.training.joint_step import Pool
    from napari_sac.core.training.memory import Cost
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.training.team import Team
    from napari_sac.core.training.training_set import TrainingSet


QUICK_PART, FULL_PART = 0.5, 0.75
"""How far from the weights before to those after those lie that are kept."""

CANCELLED = "The fine-tuning was cancelled. No adapter was made."


@dataclass(frozen=True, eq=False)
class Job:
    """One fine-tuning.

    Parameters
    ----------
    model : str
        Name of the base model.
    adapter : str, Path or None
        The adapter to go on from, as for
        :func:`~napari_sac.core.models.adapter.find_adapter`.
    data : TrainingSet
    output : Path
        Folder of the result.
    config : FinetuneConfig
    original : tuple of ReviewedImage
        A little of what the model was trained on before, against forgetting.
    title, description, tissue, licence : str
        For the adapter.
    """

    model: str
    adapter: str | Path | None
    data: TrainingSet
    output: Path
    config: FinetuneConfig
    original: tuple[ReviewedImage, ...] = ()
    title: str = ""
    description: str = ""
    tissue: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run ended with; ``report`` is the content of ``report.json``."""

    adapter: AdapterInfo
    report: dict[str, Any]


@dataclass(eq=False)
class Run:
    """A run under way: what is fixed, and how far it is."""

    job: Job
    team: Team
    state: TrainingState
    parent: AdapterInfo | None
    pool: Pool
    plan: Plan
    rates: TrainingConfig
    cost: Cost
    listen: Listen
    train_seconds: float
    validate_every: int
    windows: tuple[ReviewedImage, ...]
    ask: Ask
    first: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = -1.0
    best_step: int = 0
    notes: list[str] = field(default_factory=list)
    row: list[dict[str, float]] = field(default_factory=list)
    saved_at: float = 0.0

    @property
    def folder(self) -> Path:
        """Where what the run needs lies."""
        return self.job.output / RUN

    @property
    def base_sha256(self) -> str:
        """Hash of the base model's weights."""
        return weights_sha256(self.state.spec)

    def tell(self, text: str) -> None:
        """Note a sentence for the user."""
        self.notes.append(text)
        if self.team.leads:
            self.listen(Told(text))

    def watch(self, stage: str, done: int, total: int) -> None:
        """Say how far something is that is no step, a ``Progress``; stop it if asked.

        Raises
        ------
        Cancelled
        """
        report_work(self.team, self.listen, self.ask, stage, done, total)


def report_work(
    team: Team, listen: Listen, ask: Ask, stage: str, done: int, total: int
) -> None:
    """Say how far something is, also before there is a run; stop it if asked.

    Raises
    ------
    Cancelled
    """
    if ask() is Wish.CANCEL:
        raise Cancelled(CANCELLED)
    if team.leads:
        listen(Working(stage, done, total))


def build_state(
    model: str,
    adapter: str | Path | None,
    config: FinetuneConfig,
    team: Team,
    progress: Progress = ignore_progress,
) -> tuple[TrainingState, AdapterInfo | None]:
    """Return a model ready to be fine-tuned, and the adapter that it goes on from.

    A fresh LoRA changes nothing, so before the first step it is the base itself. Batch
    normalisations keep the statistics of the base: crops of a few images are too much
    alike to replace them.

    Raises
    ------
    NapariSacError
        As :func:`~napari_sac.core.models.registry.load_model`.
    """
    base = load_model(model, device=team.device.name, progress=progress)
    parent = None
    torch.manual_seed(config.seed)
    generator = base.generator
    if adapter is None:
        depth = base.spec.architecture.depth
        alpha = config.alpha or config.rank
        inject_lora(base.sam, config.rank, alpha=alpha, blocks=range(depth))
    else:
        parent = find_adapter(adapter)
        check_base(parent, base.spec.name, weights_sha256(base.spec))
        generator = restore_adapter(base.sam, parent)
    device = team.device.torch_device
    sam = base.sam.to(device).eval()
    generator = generator.to(device).eval()
    generator.to(memory_format=torch.channels_last)
    set_trainable(sam, lora=not config.quick)
    generator.requires_grad_(True)
    settings = TrainingConfig(learning_rate=config.learning_rate, weight_decay=0.01)
    optimizer = make_optimizer((sam, generator), settings)
    return TrainingState(base.spec, sam, generator, None, optimizer), parent


def first_plan(state: TrainingState, config: FinetuneConfig, team: Team) -> Plan:
    """Return how a step is computed where there is memory enough."""
    architecture = state.spec.architecture
    blocks = min(config.blocks or architecture.depth, architecture.depth)
    at_once = len(team.share(config.batch_size)) or 1
    return Plan(architecture.image_size, at_once, False, blocks)


def as_model(run: Run) -> Model:
    """Return the networks as they are now, to segment with."""
    return Model(
        run.state.spec,
        run.state.sam,
        run.state.generator,
        run.team.device,
        run.parent,
        f"fine-tuning at step {run.state.step}",
    )


def learning_parameters(run: Run) -> dict[str, torch.nn.Parameter]:
    """Return what learns at the moment."""
    networks = run.state.networks()
    return {n: p for n, p in networks.named_parameters() if p.requires_grad}


def adapter_parameters(run: Run) -> dict[str, torch.nn.Parameter]:
    """Return what an adapter consists of, whether it learns at the moment or not."""
    own = ("generator.", "sam.mask_decoder.")
    return {
        name: parameter
        for name, parameter in run.state.networks().named_parameters()
        if ".lora_" in name or name.startswith(own)
    }


def learn_in_last(run: Run, blocks: int) -> None:
    """Let LoRA learn in so many of the last blocks only."""
    if run.job.config.quick:
        return
    encoder = run.state.sam.image_encoder
    first = len(encoder.blocks) - blocks
    for i, block in enumerate(encoder.blocks):
        for name, parameter in block.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(i >= first)


def kept_weights(run: Run) -> dict[str, Tensor]:
    """Return what would be kept at the moment: some way from the first to the averages.

    What is learned from a few images makes a model better on them, and often worse on
    others. Weights between those before and after keep most of the one and lose much
    of the other (M. Wortsman et al., Robust fine-tuning of zero-shot models, CVPR
    2022).
    """
    part = QUICK_PART if run.job.config.quick else FULL_PART
    return {
        # a fresh LoRA adds B @ A with B = 0: it has a part of its effect where B has
        name: average.clone()
        if ".lora_A." in name and run.parent is None
        else torch.lerp(run.first[name], average, part)
        for name, average in run.state.averages.items()
    }


@contextmanager
def weights_in_place(run: Run, weights: dict[str, Tensor]) -> Iterator[None]:
    """Put other weights in the place of those that learn, for a while."""
    tracked = adapter_parameters(run)
    before = {name: p.detach().clone() for name, p in tracked.items()}
    with torch.no_grad():
        for name, parameter in tracked.items():
            parameter.copy_(weights[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in tracked.items():
                parameter.copy_(before[name])
