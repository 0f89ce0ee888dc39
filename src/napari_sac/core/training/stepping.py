"""One step of a fine-tuning, and its row of the curve."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_sac.core.device import is_out_of_memory
from napari_sac.core.errors import DeviceError
from napari_sac.core.training.events import Stepped
from napari_sac.core.training.joint_step import PARTS, add_gradients, draw_batch
from napari_sac.core.training.memory import smaller_plans
from napari_sac.core.training.optimization import (
    averaging_decay,
    clip_gradients,
    learning_rate,
    mean_row,
)
from napari_sac.core.training.run import (
    adapter_parameters,
    learn_in_last,
    learning_parameters,
)
from napari_sac.core.training.run_folder import CURVE
from napari_sac.core.training.tables import append_row

if TYPE_CHECKING:
    from napari_sac.core.config import TrainingConfig
    from napari_sac.core.training.run import Run

LOG_EVERY = 5
"""Steps to a row of ``curve.csv``."""

_FULL_RATE_STEPS = 400


def rates_of(run: Run, steps: int) -> TrainingConfig:
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


def gradients(run: Run) -> list[float]:
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


def do_step(run: Run, done: float) -> None:
    """Do one step, with less at once if memory runs out under it."""
    state = run.state
    rate = learning_rate(state.step, done, run.rates)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    parts = None
    while parts is None:
        state.optimizer.zero_grad()
        try:
            parts = gradients(run)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _step_down(run)
    learning = learning_parameters(run)
    parts = run.team.sum_gradients(learning.values(), parts)
    clip_gradients(state)
    state.optimizer.step()
    state.optimizer.zero_grad()
    decay = averaging_decay(state.step, run.rates.averaging)
    for name, parameter in adapter_parameters(run).items():
        state.averages[name].lerp_(parameter.detach(), 1 - decay)
    state.step += 1
    run.row.append(dict(zip(PARTS, parts, strict=True)) | {"rate": rate})


def _step_down(run: Run) -> None:
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
                "the run (on the command line: --resume)."
            )
        run.plan = found
        learn_in_last(run, found.blocks)
    if run.team.device.name == "cuda":
        torch.cuda.empty_cache()
    run.tell(run.plan.describe_change(before) + ".")


def log(run: Run) -> None:
    """Write a row of the curve, of the steps since the last one."""
    if not run.team.leads:
        run.row.clear()
        return
    rate = run.row[-1]["rate"]
    rows = [{k: v for k, v in one.items() if k != "rate"} for one in run.row]
    row = mean_row(run.state.step, run.state.seconds, rate, rows)
    append_row(run.folder / CURVE, row)
    run.row.clear()
    pace = run.state.seconds / run.state.step
    left = min(
        (run.rates.steps - run.state.step) * pace,
        run.train_seconds - run.state.seconds,
    )
    run.listen(Stepped(run.state.step, run.rates.steps, row, left))
