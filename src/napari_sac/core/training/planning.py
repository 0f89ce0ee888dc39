"""Before the first step: what is drawn from, and how it fits into memory and time."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sac.core.device import is_out_of_memory
from napari_sac.core.errors import DeviceError
from napari_sac.core.progress import format_bytes
from napari_sac.core.training.joint_step import Pool, add_gradients, draw_batch
from napari_sac.core.training.memory import (
    USABLE_PART,
    Cost,
    Plan,
    free_memory,
    measure_memory,
    smaller_plans,
)
from napari_sac.core.training.preparation import (
    mark_proposals,
    own_diameter,
    prepare,
)
from napari_sac.core.training.reviewed_image import crop_to_known
from napari_sac.core.training.run import as_model, learn_in_last
from napari_sac.core.training.stepping import LOG_EVERY, gradients, rates_of
from napari_sac.core.training.validation import held_out_parts

if TYPE_CHECKING:
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.training.run import Run

QUICK_STEPS, QUICK_CROPS, QUICK_MINUTES = 30, 24, 0.75
"""Quick mode without other wishes: steps, crops embedded beforehand, and the time that
it aims at on a slow computer; but see :data:`_LEAST_STEPS`."""

_REACH = 1.5
"""How far crops see from a reviewed pixel, in their sides: they are turned, zoomed and
moved a little."""

_LEAST_STEPS = 20
"""Quick mode takes so many, however long it got ready: of fewer nothing comes."""

_EPOCHS, _FEWEST_STEPS, _MOST_STEPS = 20, 120, 2000
_VALIDATION_PART = 0.15
_PLANNED_PART = 0.92
_CLOCKED_PART = 1.1
"""Measured steps are often slower than those that follow. Where only minutes are asked
for, more steps are planned than fit, and the clock ends the run."""

_TIMED_STEPS, _TIMING_SECONDS = 3, 4.0
"""The first step is slow, others where something else goes on: so many are measured, or
for so long."""


def make_pool(run: Run) -> Pool:
    """Return the images with the generator's own proposals on them."""
    spec = run.state.spec
    typical = run.job.data.diameter
    seen = [_as_far_as_seen(run, one, typical) for one in run.job.data.training]
    own = prepare(seen, spec.nucleus_diameter)
    other = prepare(run.job.original, spec.nucleus_diameter)
    areas = np.array([float(one.known.sum()) for one in own])
    if not areas.any():
        areas = np.ones(len(own))
    weights = areas / areas.sum()
    if other:
        part = run.job.config.original_part
        rest = np.full(len(other), part / len(other))
        weights = np.concatenate([weights * (1 - part), rest])
    model = as_model(run)
    images = [mark_proposals(one, model, run.watch) for one in (*own, *other)]
    return Pool(images, weights)


def _as_far_as_seen(run: Run, one: ReviewedImage, typical: float) -> ReviewedImage:
    """Return what crops can see of an image: they are drawn where it was reviewed."""
    diameter = own_diameter(one) or typical
    side = run.plan.crop * diameter / run.state.spec.nucleus_diameter
    return crop_to_known(one, math.ceil(_REACH * side))


def fit_memory(run: Run) -> None:
    """Choose the first plan that fits, from the run's own on, and measure its step.

    Raises
    ------
    DeviceError
        If not even the smallest fits.
    """
    wanted = run.plan
    smaller = smaller_plans(wanted, run.state.spec.architecture)
    plan: Plan | None = wanted
    while plan is not None:
        learn_in_last(run, plan.blocks)
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
    # how many at once is each process's own affair
    crop, _, checkpointing, blocks = (
        int(v) for v in run.team.agree([float(v) for v in asdict(plan).values()])
    )
    plan = Plan(crop, plan.at_once, bool(checkpointing), blocks)
    learn_in_last(run, plan.blocks)
    if plan != wanted:
        run.tell(plan.describe_change(wanted) + ".")
    run.plan = plan
    # quick mode's steps are others, and measured when their crops are there
    seconds = 0.0 if run.job.config.quick else time_step(run)
    run.cost = Cost(seconds, needed * plan.at_once)


def _try_memory(run: Run, plan: Plan) -> int | None:
    """Return the bytes that a crop's gradients take, or None if there are too few."""
    batch = draw_batch(run.pool, [0], 0, plan.crop, run.job.config)

    def step() -> None:
        add_gradients(run.state, batch, run.job.config, plan)

    try:
        parameters = list(run.state.networks().parameters())
        return measure_memory(run.team.device, parameters, step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        run.state.optimizer.zero_grad()


def time_step(run: Run) -> float:
    """Return the seconds of a step, of this process's share: the least of a few."""
    times: list[float] = []
    while len(times) < _TIMED_STEPS and sum(times) < _TIMING_SECONDS:
        begun = time.monotonic()
        gradients(run)
        run.state.optimizer.zero_grad()
        times.append(time.monotonic() - begun)
    return min(times)


def fit_time(run: Run, evaluation: float, spent: float) -> None:
    """Choose the number of steps and of validations, and tell the estimate."""
    config = run.job.config
    step = max(run.cost.seconds, 1e-4)
    validation = (
        evaluation
        * sum(w.image[..., 0].size for w in run.windows)
        / max(1, sum(one.known.size for one in held_out_parts(run)))
    )
    steps = _wished_steps(run)
    minutes = config.max_minutes
    if config.quick and not (minutes or config.epochs):
        minutes = QUICK_MINUTES
    seconds = math.inf
    if minutes:
        # the last comparison takes as long as the first, and the report a little
        left = 60 * minutes - spent - 1.2 * evaluation - validation - 2
        # what nobody has asked for is not kept at the price of learning nothing
        least = LOG_EVERY if config.max_minutes else _LEAST_STEPS
        # half as long again, for the validations and for steps that are slower
        seconds = max(1.5 * least * step, left)
        fitting = seconds * (1 - _VALIDATION_PART) / step
        free = bool(config.max_minutes) and not config.epochs
        if free:
            steps = int(_CLOCKED_PART * fitting)
        else:
            steps = min(steps, int(_PLANNED_PART * fitting))
    steps = max(LOG_EVERY, steps // LOG_EVERY * LOG_EVERY)
    affordable = int(_VALIDATION_PART * steps * step / max(validation, 1e-3))
    times = min(10, max(2, affordable))
    every = max(1, math.ceil(steps / times))
    agreed = run.team.agree([steps, every, min(seconds, 1e12)])
    steps, every = int(agreed[0]), int(agreed[1])
    run.train_seconds = agreed[2]
    run.validate_every = every
    run.rates = rates_of(run, steps)
    told = min(steps * step + (steps / every) * validation, seconds) + evaluation
    run.tell(
        f"Estimate: {steps} steps of {step:.2f} s, done in about "
        f"{_format_seconds(told)}; a step takes {format_bytes(run.cost.memory_bytes)}."
    )


def _wished_steps(run: Run) -> int:
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
