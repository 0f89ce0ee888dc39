"""Fine-tune a model to reviewed images, and prove on a held-out part that it helped.

The base model is never changed: what is learned is an adapter. A run is a folder; what
is needed to go on after a kill lies in its ``run`` subfolder.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_sac.core.config import FinetuneConfig, ProposalConfig, TrainingConfig
from napari_sac.core.errors import Cancelled, DeviceError, OutputError
from napari_sac.core.evaluation.metrics import (
    ImageScores,
    evaluate_labels,
    mean_scores,
)
from napari_sac.core.inference.proposals import find_proposals
from napari_sac.core.inference.segment import segment_image
from napari_sac.core.io import atomic_path
from napari_sac.core.models.adapter import (
    INFO_FILE,
    AdapterInfo,
    check_base,
    fill_adapter,
    find_adapter,
    restore_adapter,
)
from napari_sac.core.models.lora import inject_lora, set_trainable
from napari_sac.core.models.registry import Model, load_model, weights_sha256
from napari_sac.core.training.comparison import (
    Compared,
    Comparison,
    compare,
    limit_to_known,
)
from napari_sac.core.training.joint_step import (
    PARTS,
    Pool,
    add_gradients,
    cache_crops,
    draw_batch,
)
from napari_sac.core.training.memory import (
    USABLE_PART,
    Cost,
    Plan,
    format_bytes,
    free_memory,
    is_out_of_memory,
    measure_memory,
    smaller_plans,
)
from napari_sac.core.training.report import RunRecord, write_report
from napari_sac.core.training.sampling import (
    MarkedPoints,
    PointKind,
    TrainingImage,
)
from napari_sac.core.training.trainer import (
    TrainingState,
    append_row,
    clip_gradients,
    drop_rows_after,
    learning_rate,
    make_optimizer,
    mean_row,
)
from napari_sac.core.training.training_set import (
    ReviewedImage,
    TrainingSet,
    crop_to_known,
    prepare,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sac.core.training.team import Team

LOG_EVERY = 5
"""Steps to a row of ``curve.csv``."""

QUICK_STEPS, QUICK_CROPS, QUICK_MINUTES = 80, 24, 0.75
"""Quick mode without other wishes: steps, crops embedded beforehand, and the time that
it keeps to on a slow computer."""

_EPOCHS, _FEWEST_STEPS, _MOST_STEPS = 20, 120, 2000
_FULL_RATE_STEPS = 400
_VALIDATION_PART = 0.15
_PLANNED_PART = 0.92
_CHECKPOINT_SECONDS = 20.0
_VALIDATION_IMAGES = 4
_MARGIN = 2.0
_RUN, _CHECKPOINT, _SETTINGS, _BEFORE = "run", "checkpoint.pt", "job.json", "before.npz"


class Request(Enum):
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
class Stepped:
    """The training is at ``step`` of ``steps``; ``row`` is the new one of the curve.

    ``seconds_left`` is until the last step, ``memory_bytes`` what a step takes.
    """

    step: int
    steps: int
    row: dict[str, float]
    seconds_left: float
    memory_bytes: int


@dataclass(frozen=True, eq=False)
class Validated:
    """The running averages were looked at on the held-out part.

    ``image``, ``labels`` and ``truth`` (h, w) are of its first window, to be shown.
    """

    step: int
    scores: ImageScores
    best: bool
    image: Any
    labels: Any
    truth: Any


Event = Told | Stepped | Validated
Listen = Callable[[Event], None]
Ask = Callable[[], Request]


@dataclass(frozen=True, eq=False)
class Job:
    """One fine-tuning.

    Parameters
    ----------
    model : str
        Name of the base model.
    adapter : str or None
        Name or folder of the adapter to go on from.
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
    adapter: str | None
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
class _Run:
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
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = -1.0
    best_step: int = 0
    notes: list[str] = field(default_factory=list)
    row: list[dict[str, float]] = field(default_factory=list)
    saved_at: float = 0.0

    @property
    def folder(self) -> Path:
        return self.job.output / _RUN

    def tell(self, text: str) -> None:
        self.notes.append(text)
        if self.team.leads:
            self.listen(Told(text))


def ignore_event(event: Event) -> None:
    """Do nothing: the default listener."""


def always_go() -> Request:
    """Return that nobody wants anything: the default."""
    return Request.GO


def finetune(
    job: Job,
    team: Team,
    *,
    resume: bool = False,
    started: float | None = None,
    listen: Listen = ignore_event,
    ask: Ask = always_go,
) -> Outcome:
    """Train, compare with what it started from, write adapter and report.

    Parameters
    ----------
    job : Job
    team : Team
        As :func:`~napari_sac.core.training.team.join_team` returns it.
    resume : bool
        Whether to go on where a run in the same folder was ended; it is an error if
        there is something in the folder and this is False.
    started : float, optional
        ``time.monotonic()`` from which the minutes count; by default now.
    listen : callable, optional
        Told what happens, from the thread that trains.
    ask : callable, optional
        Asked before every step.

    Raises
    ------
    NapariSacError
        ``TrainingDataError``, ``OutputError``, ``DeviceError``,
        ``IncompatibleAdapterError``, ``ModelNotFoundError``; ``Cancelled`` if ``ask``
        wanted that.
    """
    begun = time.monotonic() if started is None else started
    report = _check_folder(job, resume)
    if report is not None:
        return Outcome(find_adapter(job.output), report)
    with _repeatable(team):
        run = _prepare(job, team, listen, begun)
        stopped = _train(run, ask)
        outcome = _finish(run, begun, stopped)
    return outcome


def _check_folder(job: Job, resume: bool) -> dict[str, Any] | None:
    """Return the report of a run that is finished already, if it is to be resumed."""
    finished = job.output / "report.json"
    used = (job.output / INFO_FILE).exists() or (job.output / _RUN).exists()
    if resume and finished.is_file() and (job.output / INFO_FILE).is_file():
        report: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return report
    if used and not resume:
        raise OutputError(
            f"There is a run in {job.output} already, and it was kept. Add --resume to "
            "go on with it, or choose another folder."
        )
    return None


@contextmanager
def _repeatable(team: Team) -> Iterator[None]:
    """Have torch compute the same again from the same numbers, at a small price."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if team.device.name == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # not everything has such a form on a GPU
    torch.use_deterministic_algorithms(True, warn_only=team.device.name != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)


def _prepare(job: Job, team: Team, listen: Listen, begun: float) -> _Run:
    """Load, look at the held-out part with the old weights, measure a step, plan."""
    state, parent = build_state(job.model, job.adapter, job.config, team)
    if team.leads:
        (job.output / _RUN).mkdir(parents=True, exist_ok=True)
        _check_settings(job, state)
    run = _Run(
        job,
        team,
        state,
        parent,
        Pool((), np.empty(0)),
        _first_plan(state, job.config, team),
        TrainingConfig(
            learning_rate=job.config.learning_rate, averaging=0.97, weight_decay=0.01
        ),
        Cost(0.0, 0),
        listen,
        math.inf,
        1,
        _windows(job.data, state),
    )
    run.tell(_describe_start(run))
    seconds = time.monotonic()
    if team.leads:
        _predict_before(run)
    evaluation = time.monotonic() - seconds
    run.pool = _make_pool(run)
    run.plan, run.cost = _fit_memory(run)
    if job.config.quick:
        # a larger input shows more of the image at once
        count = max(6, QUICK_CROPS * 256**2 // max(256, run.plan.crop) ** 2)
        run.pool = cache_crops(state, run.pool, count, job.config, run.plan.crop)
        run.cost = replace(run.cost, seconds=_time_step(run))
    _fit_time(run, evaluation, time.monotonic() - begun)
    _take_up(run)
    return run


def build_state(
    model: str, adapter: str | None, config: FinetuneConfig, team: Team
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
    base = load_model(model, device=team.device.name)
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


def _describe_start(run: _Run) -> str:
    data, job = run.job.data, run.job
    nuclei = sum(one.count for one in data.training)
    aside = sum(one.count for one in data.held_out)
    kinds = {
        "images": f"{len(data.held_out)} whole images",
        "regions": f"{len(data.held_out)} whole regions",
        "block": "a block of each image",
        "folder": f"{len(data.held_out)} images given",
        "none": "nothing, there are too few nuclei",
    }
    of = f" with {run.parent.name}" if run.parent else ""
    mode = "quick" if job.config.quick else "full"
    return (
        f"{job.model}{of}, {mode}, on {run.team.device.title}: {nuclei} nuclei of "
        f"{len(data.training)} images to learn from; held out: {kinds[data.kind]}"
        + (f" ({aside} nuclei)" if aside else "")
    )


def _check_settings(job: Job, state: TrainingState) -> None:
    """Note what the run is, or refuse to go on with another one."""
    settings = {
        "model": job.model,
        "adapter": job.adapter or "",
        "base_sha256": weights_sha256(state.spec),
        "data_sha256": job.data.digest(),
        "config": asdict(job.config),
    }
    file = job.output / _RUN / _SETTINGS
    if not file.exists():
        with atomic_path(file) as partial:
            partial.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    before["config"]["max_minutes"] = settings["config"]["max_minutes"]  # type: ignore[index]
    different = [name for name in settings if settings[name] != before.get(name)]
    if different:
        raise OutputError(
            f"The run in {job.output} was begun with another "
            f"{', '.join(different)}, and was kept. Go on with the same, or choose "
            "another folder."
        )


def _first_plan(state: TrainingState, config: FinetuneConfig, team: Team) -> Plan:
    architecture = state.spec.architecture
    blocks = min(config.blocks or architecture.depth, architecture.depth)
    at_once = len(team.share(config.batch_size)) or 1
    return Plan(architecture.image_size, at_once, False, blocks)


def _make_pool(run: _Run) -> Pool:
    """Return the images with the generator's own proposals on them."""
    spec = run.state.spec
    own = prepare(run.job.data.training, spec.nucleus_diameter)
    other = prepare(run.job.original, spec.nucleus_diameter)
    areas = np.array([float(one.known.sum()) for one in own])
    if not areas.any():
        areas = np.ones(len(own))
    weights = areas / areas.sum()
    if other:
        part = run.job.config.original_part
        rest = np.full(len(other), part / len(other))
        weights = np.concatenate([weights * (1 - part), rest])
    model = _as_model(run)
    images = [_with_proposals(one, model) for one in (*own, *other)]
    return Pool(images, weights)


def _with_proposals(image: TrainingImage, model: Model) -> TrainingImage:
    pixels = np.ascontiguousarray(image.image.permute(1, 2, 0).numpy())
    config = ProposalConfig()
    found = find_proposals(
        pixels, model, config, diameter=model.spec.nucleus_diameter
    ).above(config.score_threshold)
    zeros = np.zeros(len(found), np.int64)
    proposals = MarkedPoints(found.yx, zeros + PointKind.PROPOSAL, zeros)
    points = MarkedPoints.concatenate([image.points, proposals])
    return replace(
        image, points=points.inside((image.labels.shape[0], image.labels.shape[1]))
    )


def _as_model(run: _Run) -> Model:
    """Return the networks as they are now, to segment with."""
    return Model(
        run.state.spec,
        run.state.sam,
        run.state.generator,
        run.team.device,
        run.parent,
        f"fine-tuning at step {run.state.step}",
    )


def _learning(run: _Run) -> dict[str, torch.nn.Parameter]:
    networks = run.state.networks()
    return {n: p for n, p in networks.named_parameters() if p.requires_grad}


def _tracked(run: _Run) -> dict[str, torch.nn.Parameter]:
    """Return what an adapter consists of, whether it learns at the moment or not."""
    own = ("generator.", "sam.mask_decoder.")
    return {
        name: parameter
        for name, parameter in run.state.networks().named_parameters()
        if ".lora_" in name or name.startswith(own)
    }


def _learn_in_last(run: _Run, blocks: int) -> None:
    """Let LoRA learn in so many of the last blocks only."""
    if run.job.config.quick:
        return
    encoder = run.state.sam.image_encoder
    first = len(encoder.blocks) - blocks
    for i, block in enumerate(encoder.blocks):
        for name, parameter in block.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(i >= first)


def _fit_memory(run: _Run) -> tuple[Plan, Cost]:
    """Return the first plan whose step fits, and what one step of it takes.

    Raises
    ------
    DeviceError
        If not even the smallest fits.
    """
    wanted = run.plan
    smaller = smaller_plans(wanted, run.state.spec.architecture)
    plan: Plan | None = wanted
    while plan is not None:
        _learn_in_last(run, plan.blocks)
        needed = _try_memory(run, plan)
        free = USABLE_PART * free_memory(run.team.device)
        if needed is not None and needed <= free:
            break
        plan = next(smaller, None)
    if plan is None or needed is None:
        raise DeviceError(
            f"{run.team.device.title} has too little free memory to fine-tune "
            f"{run.state.spec.name}, even in small pieces. Nothing was changed. Close "
            "other programs, or choose a smaller model, --quick, or another device."
        )
    plan = replace(plan, at_once=max(1, min(wanted.at_once, int(free / needed))))
    crop, at_once, checkpointing, blocks = (
        int(v) for v in run.team.agree([float(v) for v in asdict(plan).values()])
    )
    # how many at once is each process's own affair
    plan = Plan(crop, plan.at_once, bool(checkpointing), blocks)
    del at_once
    _learn_in_last(run, plan.blocks)
    if plan != wanted:
        run.tell(plan.describe_change(wanted) + ".")
    run.plan = plan
    return plan, Cost(_time_step(run), needed * plan.at_once)


def _try_memory(run: _Run, plan: Plan) -> int | None:
    """Return the bytes that a crop's gradients take, or None if there are too few."""
    batch = draw_batch(run.pool, [0], 0, plan.crop, run.job.config)

    def step() -> None:
        add_gradients(run.state, batch, run.job.config, plan)

    try:
        return measure_memory(run.team.device, list(_learning(run).values()), step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        run.state.optimizer.zero_grad()


def _time_step(run: _Run) -> float:
    """Return the seconds of a step, of this process's share, measured once."""
    begun = time.monotonic()
    _gradients(run)
    run.state.optimizer.zero_grad()
    return time.monotonic() - begun


def _fit_time(run: _Run, evaluation: float, spent: float) -> None:
    """Choose the number of steps and of validations, and tell the estimate."""
    config = run.job.config
    step = max(run.cost.seconds, 1e-4)
    validation = (
        evaluation
        * sum(w.image[..., 0].size for w in run.windows)
        / max(1, sum(one.known.size for one in run.job.data.held_out))
    )
    steps = _wished_steps(run)
    minutes = config.max_minutes or (QUICK_MINUTES if config.quick else 0.0)
    seconds = math.inf
    if minutes:
        # the last comparison takes as long as the first, and the report a little
        seconds = max(5 * step, 60 * minutes - spent - 1.2 * evaluation - 2)
        fitting = int(seconds * (1 - _VALIDATION_PART) * _PLANNED_PART / step)
        free = bool(config.max_minutes) and not config.epochs
        steps = fitting if free else min(steps, fitting)
    steps = max(LOG_EVERY, steps // LOG_EVERY * LOG_EVERY)
    affordable = int(_VALIDATION_PART * steps * step / max(validation, 1e-3))
    times = min(10, max(2, affordable))
    every = max(1, math.ceil(steps / times))
    agreed = run.team.agree([steps, every, min(seconds, 1e12)])
    steps, every = int(agreed[0]), int(agreed[1])
    run.train_seconds = agreed[2]
    run.validate_every = every
    run.rates = _rates(run, steps)
    told = steps * step + (steps / every) * validation + evaluation
    run.tell(
        f"Estimate: {steps} steps of {step:.2f} s, done in about "
        f"{_format_seconds(told)}; a step takes {format_bytes(run.cost.memory_bytes)}."
    )


def _rates(run: _Run, steps: int) -> TrainingConfig:
    """Return the schedule of so many steps.

    AdamW's first steps move every weight by the rate, whatever the gradient: in a short
    training a high rate does harm that there is no time to mend.
    """
    short = min(1.0, math.sqrt(steps / _FULL_RATE_STEPS))
    return replace(
        run.rates,
        steps=steps,
        learning_rate=run.job.config.learning_rate * short,
        warm_up_steps=max(1, min(20, steps // 5)),
    )


def _wished_steps(run: _Run) -> int:
    config = run.job.config
    crop = run.plan.crop**2 * config.batch_size
    per_epoch = max(
        1, math.ceil(sum(one.known.sum().item() for one in run.pool.images) / crop)
    )
    if config.epochs:
        return config.epochs * per_epoch
    if config.quick:
        return QUICK_STEPS
    return min(_MOST_STEPS, max(_FEWEST_STEPS, _EPOCHS * per_epoch))


def _format_seconds(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def _gradients(run: _Run) -> list[float]:
    """Add up the gradients of this process's crops, as many at once as fit."""
    config = run.job.config
    share = run.team.share(config.batch_size)
    totals = dict.fromkeys(PARTS, 0.0)
    for start in range(0, len(share), run.plan.at_once):
        numbers = list(share[start : start + run.plan.at_once])
        batch = draw_batch(run.pool, numbers, run.state.step, run.plan.crop, config)
        parts = add_gradients(run.state, batch, config, run.plan)
        totals = {name: totals[name] + parts[name] for name in PARTS}
    return list(totals.values())


def _train(run: _Run, ask: Ask) -> bool:
    """Do the steps; return whether the user stopped them.

    Raises
    ------
    Cancelled
        If the user wanted that.
    """
    state, steps = run.state, run.rates.steps
    if state.step == 0:
        _validate(run)
        _checkpoint(run)
    last = time.monotonic()
    while state.step < steps:
        request = ask()
        while request is Request.PAUSE:
            time.sleep(0.1)
            request, last = ask(), time.monotonic()
        done = max(state.step / steps, state.seconds / run.train_seconds)
        done, wish = run.team.agree([done, float(_WISHES.index(request))])
        if _WISHES[int(wish)] is Request.CANCEL:
            raise Cancelled("The fine-tuning was cancelled. No adapter was made.")
        if _WISHES[int(wish)] is Request.STOP or done >= 1:
            break
        _step(run, done)
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % LOG_EVERY == 0:
            _log(run)
        if state.step % run.validate_every == 0 or state.step == steps:
            _validate(run)
        if state.step % LOG_EVERY == 0 and run.team.leads:
            late = time.monotonic() - run.saved_at > _CHECKPOINT_SECONDS
            if late or state.step % run.validate_every == 0:
                _checkpoint(run)
    if run.best_step < state.step and state.step % run.validate_every:
        _validate(run)
    return state.step < steps


_WISHES = (Request.GO, Request.STOP, Request.CANCEL)


def _step(run: _Run, done: float) -> None:
    """Do one step, with less at once if memory runs out under it."""
    state = run.state
    rate = learning_rate(state.step, done, run.rates)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    parts = None
    while parts is None:
        state.optimizer.zero_grad()
        try:
            parts = _gradients(run)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _step_down(run)
    learning = _learning(run)
    parts = run.team.sum_gradients(learning.values(), parts)
    clip_gradients(state)
    state.optimizer.step()
    state.optimizer.zero_grad()
    decay = min(run.rates.averaging, (1 + state.step) / (10 + state.step))
    for name, parameter in _tracked(run).items():
        state.averages[name].lerp_(parameter.detach(), 1 - decay)
    state.step += 1
    run.row.append(dict(zip(PARTS, parts, strict=True)) | {"rate": rate})


def _step_down(run: _Run) -> None:
    """Take the next smaller plan, and say so.

    Raises
    ------
    DeviceError
        If there is none, or other processes would have to follow.
    """
    before = run.plan
    if before.at_once > 1:
        run.plan = replace(before, at_once=before.at_once // 2)
    else:
        architecture = run.state.spec.architecture
        found = next(smaller_plans(before, architecture), None)
        if found is None or run.team.count > 1 or run.pool.cached:
            raise DeviceError(
                f"Memory ran out on {run.team.device.title}. What was learned so far "
                f"is kept in {run.job.output}: close other programs, and go on with "
                "--resume."
            )
        run.plan = found
        _learn_in_last(run, found.blocks)
    if run.team.device.name == "cuda":
        torch.cuda.empty_cache()
    run.tell(run.plan.describe_change(before) + ".")


def _log(run: _Run) -> None:
    if not run.team.leads:
        run.row.clear()
        return
    rate = run.row[-1]["rate"]
    rows = [{k: v for k, v in one.items() if k != "rate"} for one in run.row]
    row = mean_row(run.state.step, run.state.seconds, rate, rows)
    append_row(run.folder / "curve.csv", row)
    run.row.clear()
    pace = run.state.seconds / run.state.step
    left = min(
        (run.rates.steps - run.state.step) * pace,
        run.train_seconds - run.state.seconds,
    )
    run.listen(
        Stepped(run.state.step, run.rates.steps, row, left, run.cost.memory_bytes)
    )


@contextmanager
def _weights(run: _Run, weights: dict[str, Tensor]) -> Iterator[None]:
    """Put other weights in the place of those that learn, for a while."""
    tracked = _tracked(run)
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


def _windows(data: TrainingSet, state: TrainingState) -> tuple[ReviewedImage, ...]:
    """Return a few windows of the held-out part, to look at while it trains."""
    spec = state.spec
    side = round(2 * spec.architecture.image_size * data.diameter)
    side = max(32, round(side / spec.nucleus_diameter))
    return tuple(
        _fullest_window(crop_to_known(one, round(_MARGIN * data.diameter)), side)
        for one in data.held_out[:_VALIDATION_IMAGES]
    )


def _fullest_window(one: ReviewedImage, side: int) -> ReviewedImage:
    """Return the window with the most nuclear pixels, of at most ``side`` pixels."""
    corners = [
        (y, x)
        for y in range(0, max(1, one.labels.shape[0] - side // 2), max(1, side // 2))
        for x in range(0, max(1, one.labels.shape[1] - side // 2), max(1, side // 2))
    ]
    y, x = max(
        corners,
        key=lambda c: (
            (one.labels[c[0] : c[0] + side, c[1] : c[1] + side] > 0).sum().item()
        ),
    )
    box = (slice(y, y + side), slice(x, x + side))
    return replace(
        one, image=one.image[box], labels=one.labels[box], known=one.known[box]
    )


def _validate(run: _Run) -> None:
    """Look at the averages on the held-out part, and keep them if they are the best."""
    state = run.state
    if not run.team.leads:
        return
    if not run.windows:
        run.best, run.best_step = _copied(state.averages), state.step
        return
    diameter = run.job.data.diameter
    with _weights(run, state.averages):
        model = _as_model(run)
        found = [
            limit_to_known(
                segment_image(one.image, model, diameter=diameter).labels, one.known
            )
            for one in run.windows
        ]
    scores = mean_scores(
        [
            evaluate_labels(labels, one.labels)
            for labels, one in zip(found, run.windows, strict=True)
        ]
    )
    score = (scores.f1 + scores.pq) / 2
    # of equals the later one: it has learned more
    best = score >= run.best_score
    if best:
        run.best_score, run.best_step = score, state.step
        run.best = _copied(state.averages)
    row = {"step": float(state.step), "seconds": round(state.seconds, 1)}
    row |= {name: round(value, 4) for name, value in asdict(scores).items()}
    drop_rows_after(run.folder / "validation.csv", state.step - 1)
    append_row(run.folder / "validation.csv", row)
    first = run.windows[0]
    run.listen(Validated(state.step, scores, best, first.image, found[0], first.labels))


def _copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _checkpoint(run: _Run) -> None:
    """Write all that is needed to go on, atomically."""
    if not run.team.leads:
        return
    state = run.state
    networks = {n: p.detach() for n, p in _tracked(run).items()}
    with atomic_path(run.folder / _CHECKPOINT) as partial:
        torch.save(
            {
                "weights": networks,
                "optimizer": state.optimizer.state_dict(),
                "averages": state.averages,
                "best": run.best,
                "best_score": run.best_score,
                "best_step": run.best_step,
                "step": state.step,
                "seconds": state.seconds,
                "steps": run.rates.steps,
                "validate_every": run.validate_every,
                "plan": list(asdict(run.plan).values()),
                "notes": run.notes,
            },
            partial,
        )
    run.saved_at = time.monotonic()


def _take_up(run: _Run) -> None:
    """Go on from a checkpoint, if there is one; else begin."""
    for name, parameter in _tracked(run).items():
        run.state.averages[name] = parameter.detach().clone()
    file = run.folder / _CHECKPOINT
    if not file.exists():
        return
    saved = torch.load(file, weights_only=True, map_location=run.state.device)
    crop, at_once, checkpointing, blocks = saved["plan"]
    plan = Plan(crop, min(at_once, run.plan.at_once), bool(checkpointing), blocks)
    run.plan = plan
    _learn_in_last(run, plan.blocks)
    tracked = _tracked(run)
    with torch.no_grad():
        for name, tensor in saved["weights"].items():
            tracked[name].copy_(tensor)
    state = run.state
    state.optimizer.load_state_dict(saved["optimizer"])
    state.averages, state.step = saved["averages"], saved["step"]
    state.seconds = saved["seconds"]
    run.best, run.best_score = saved["best"], saved["best_score"]
    run.best_step = saved["best_step"]
    run.validate_every = saved["validate_every"]
    run.rates = _rates(run, saved["steps"])
    run.train_seconds += state.seconds
    if run.team.leads:
        for name in ("curve.csv", "validation.csv"):
            drop_rows_after(run.folder / name, state.step)
    run.tell(f"Going on at step {state.step} of {run.rates.steps}.")


def _held_out(run: _Run) -> list[ReviewedImage]:
    margin = round(_MARGIN * run.job.data.diameter)
    return [crop_to_known(one, margin) for one in run.job.data.held_out]


def _predict(run: _Run) -> list[Any]:
    """Return the labels of the held-out images, found as in use."""
    model = _as_model(run)
    return [
        limit_to_known(segment_image(one.image, model).labels, one.known)
        for one in _held_out(run)
    ]


def _predict_before(run: _Run) -> None:
    """Keep what the model finds before it learns, for the comparison."""
    file = run.folder / _BEFORE
    if file.exists():
        return
    found = {str(i): labels for i, labels in enumerate(_predict(run))}
    with atomic_path(file) as partial, partial.open("wb") as opened:
        np.savez_compressed(opened, **found)


def _finish(run: _Run, begun: float, stopped: bool) -> Outcome:
    """Compare, and write the adapter and the report."""
    job = run.job
    if not run.team.leads:
        run.team.close()
        return _outcome_of_others(run)
    with _weights(run, run.best or run.state.averages):
        tuned = _predict(run)
        with np.load(run.folder / _BEFORE) as saved:
            before = [saved[str(i)] for i in range(len(tuned))]
        compared = [
            Compared(*parts)
            for parts in zip(_held_out(run), before, tuned, strict=True)
        ]
        comparison = compare(compared, job.config.seed)
        info = _describe_adapter(run, comparison)
        report = write_report(
            job.output,
            _record(run, comparison, time.monotonic() - begun, stopped),
            comparison,
            compared,
        )
        adapter = fill_adapter(job.output, run.state.sam, run.state.generator, info)
    (run.folder / _CHECKPOINT).unlink(missing_ok=True)
    (run.folder / _BEFORE).unlink(missing_ok=True)
    run.team.close()
    return Outcome(adapter, report)


def _outcome_of_others(run: _Run) -> Outcome:
    """Return what the first process wrote."""
    report = json.loads((run.job.output / "report.json").read_text(encoding="utf-8"))
    return Outcome(find_adapter(run.job.output), report)


def _describe_adapter(run: _Run, comparison: Comparison) -> AdapterInfo:
    job = run.job
    metrics = {}
    if comparison.base is not None and comparison.tuned is not None:
        metrics = {
            "before": asdict(comparison.base),
            "after": asdict(comparison.tuned),
        }
    nuclei = sum(one.count for one in job.data.training)
    return AdapterInfo(
        name=job.output.resolve().name,
        path=job.output,
        title=job.title or job.output.resolve().name,
        description=job.description,
        base=job.model,
        base_sha256=weights_sha256(run.state.spec),
        licence=job.licence,
        data_sha256=job.data.digest(),
        metrics=metrics,
        versions={p: version(p) for p in ("napari-sac", "torch", "peft")},
        parent=run.parent.name if run.parent else "",
        data=f"{nuclei} nuclei of {len(job.data.training)} images",
        tissue=job.tissue,
        created=datetime.now(UTC).date().isoformat(),
        promoted=comparison.promoted,
    )


def _record(
    run: _Run, comparison: Comparison, seconds: float, stopped: bool
) -> RunRecord:
    job, device = run.job, run.team.device
    return RunRecord(
        model=job.model,
        parent=run.parent.name if run.parent else "",
        mode="quick" if job.config.quick else "full",
        seconds=seconds,
        training_seconds=run.state.seconds,
        device=device.name,
        device_title=device.title,
        processes=run.team.count,
        step_seconds=run.cost.seconds,
        step_memory_bytes=run.cost.memory_bytes,
        steps=run.state.step,
        steps_planned=run.rates.steps,
        best_step=run.best_step,
        stopped=stopped,
        crop=run.plan.crop,
        checkpointing=run.plan.checkpointing,
        blocks=run.plan.blocks,
        held_out=job.data.kind,
        held_out_names=tuple(one.name for one in job.data.held_out),
        training_names=tuple(one.name for one in job.data.training),
        training_nuclei=sum(one.count for one in job.data.training),
        notes=tuple(run.notes),
        config=asdict(job.config),
        run_folder=run.folder,
    )


def remove_run(output: Path) -> None:
    """Delete what a cancelled run left, and the folder if nothing else is in it."""
    shutil.rmtree(output / _RUN, ignore_errors=True)
    if output.is_dir() and not any(output.iterdir()):
        output.rmdir()
