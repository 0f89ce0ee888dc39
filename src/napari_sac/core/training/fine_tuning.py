"""Fine-tune a model to reviewed images, and prove on a held-out part that it helped.

The base model is never changed: what is learned is an adapter. A run is a folder; what
is needed to go on after a kill lies in its ``run`` subfolder.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sac.core.config import TrainingConfig
from napari_sac.core.errors import Cancelled, OutputError
from napari_sac.core.models.adapter import find_adapter
from napari_sac.core.progress import count
from napari_sac.core.training import checkpoint
from napari_sac.core.training.events import (
    Began,
    Told,
    Wish,
    always_go,
    ignore_event,
)
from napari_sac.core.training.finishing import finish
from napari_sac.core.training.joint_step import Pool, cache_crops
from napari_sac.core.training.memory import Cost
from napari_sac.core.training.planning import (
    QUICK_CROPS,
    fit_memory,
    fit_time,
    make_pool,
    time_step,
)
from napari_sac.core.training.run import (
    CANCELLED,
    Outcome,
    Run,
    build_state,
    first_plan,
    report_work,
)
from napari_sac.core.training.run_folder import hold
from napari_sac.core.training.stepping import LOG_EVERY, do_step, log
from napari_sac.core.training.validation import (
    choose_windows,
    predict_before,
    validate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_sac.core.training.events import Ask, Listen
    from napari_sac.core.training.run import Job
    from napari_sac.core.training.team import Team

_WISHES = (Wish.GO, Wish.STOP, Wish.CANCEL)


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
        there is something in the folder and this is False. Nobody else can go on with
        it meanwhile.
    started : float, optional
        ``time.monotonic()`` from which the minutes count; by default now.
    listen : callable, optional
        Told what happens, from the thread that trains.
    ask : callable, optional
        Asked before every step, and often while it looks at the held-out part.

    Raises
    ------
    NapariSacError
        ``TrainingDataError``, ``OutputError``, ``DeviceError``,
        ``IncompatibleAdapterError``, ``ModelNotFoundError``; ``Cancelled`` if ``ask``
        wanted that.
    """
    begun = time.monotonic() if started is None else started
    report = checkpoint.finished_report(job, resume)
    if report is not None:
        if team.leads:
            listen(
                Told(
                    f"The run in {job.output} is finished, and this is what came of "
                    "it. Nothing was trained; choose another folder to train anew."
                )
            )
        return Outcome(find_adapter(job.output), report)
    with _repeatable(team), ExitStack() as held:
        run = _prepare(job, team, listen, ask, begun, held)
        stopped = _train(run)
        outcome = finish(run, begun, stopped)
    return outcome


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


def _prepare(
    job: Job, team: Team, listen: Listen, ask: Ask, begun: float, held: ExitStack
) -> Run:
    """Load, look at the held-out part with the old weights, measure a step, plan.

    Until ``held`` ends nobody else can go on with the run.
    """
    progress = partial(report_work, team, listen, ask)
    state, parent = build_state(job.model, job.adapter, job.config, team, progress)
    run = Run(
        job,
        team,
        state,
        parent,
        Pool((), np.empty(0)),
        first_plan(state, job.config, team),
        # rates and steps come when it is known how long a step takes
        TrainingConfig(averaging=0.97),
        Cost(0.0, 0),
        listen,
        math.inf,
        1,
        choose_windows(job.data, state),
        ask,
    )
    # when all have seen that there is no run yet
    team.agree([0.0])
    if team.leads:
        _make_folder(run.folder)
        held.enter_context(hold(job.output))
        checkpoint.note_settings(job)
    run.tell(_describe_start(run))
    if job.data.held_out_is_learned:
        run.tell(
            f"{parent.name if parent else job.model} has learned from nuclei that are "
            "held out, or from others at their place in another plane, for there are "
            "no others: the scores before and after may be better than on new images. "
            "Review more nuclei; on the command line, --val takes other images."
        )
    rank = state.sam.peft_config["default"].r
    if parent is not None and rank != job.config.rank:
        run.tell(f"The rank stays {rank}, as {parent.name} has it.")
    evaluation = predict_before(run) if team.leads else 0.0
    run.pool = make_pool(run)
    checkpoint.take_up_plan(run)
    fit_memory(run)
    if job.config.quick:
        # a larger input shows more of the image at once
        crops = max(6, QUICK_CROPS * 256**2 // max(256, run.plan.crop) ** 2)
        run.pool = cache_crops(state, run.pool, crops, job.config, run.plan.crop)
        run.cost = replace(run.cost, seconds=time_step(run))
    fit_time(run, evaluation, time.monotonic() - begun)
    checkpoint.take_up(run)
    return run


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be made ({error.strerror}). Nothing was "
            "trained; choose another."
        ) from error


def _describe_start(run: Run) -> str:
    data, job = run.job.data, run.job
    nuclei = count(sum(one.count for one in data.training), "nucleus", "nuclei")
    images = count(len(data.training), "image")
    parts = len(data.held_out)
    aside = sum(one.count for one in data.held_out)
    kinds = {
        "images": count(parts, "whole image"),
        "regions": count(parts, "whole region"),
        "block": "a block of each image" if len(data.training) > 1 else "a block of it",
        "folder": f"{count(parts, 'image')} given",
        "none": "nothing, there are too few nuclei",
    }
    of = f" with {run.parent.name}" if run.parent else ""
    mode = "quick" if job.config.quick else "full"
    return (
        f"{job.model}{of}, {mode}, on {run.team.device.title}: {nuclei} of "
        f"{images} to learn from; held out: {kinds[data.kind]}"
        + (f" ({count(aside, 'nucleus', 'nuclei')})" if aside else "")
    )


def _train(run: Run) -> bool:
    """Do the steps; return whether the user stopped them.

    Raises
    ------
    Cancelled
        If the user wanted that.
    """
    state, steps = run.state, run.rates.steps
    if run.team.leads:
        run.listen(Began(state.step, steps))
    if state.step == 0:
        validate(run)
        checkpoint.save_checkpoint(run)
    last, stopped = time.monotonic(), False
    while state.step < steps:
        wish = run.ask()
        if wish is Wish.PAUSE:
            # a pause may be long, and end with the computer
            checkpoint.save_checkpoint(run)
        while wish is Wish.PAUSE:
            time.sleep(0.1)
            wish, last = run.ask(), time.monotonic()
        done = max(state.step / steps, state.seconds / run.train_seconds)
        done, agreed = run.team.agree([done, float(_WISHES.index(wish))])
        if _WISHES[int(agreed)] is Wish.CANCEL:
            raise Cancelled(CANCELLED)
        stopped = _WISHES[int(agreed)] is Wish.STOP
        if stopped or done >= 1:
            break
        do_step(run, done)
        now = time.monotonic()
        state.seconds, last = state.seconds + now - last, now
        if state.step % LOG_EVERY == 0:
            log(run)
        due = state.step % run.validate_every == 0 or state.step == steps
        if due:
            validate(run)
        if due or time.monotonic() - run.saved_at > checkpoint.CHECKPOINT_SECONDS:
            checkpoint.save_checkpoint(run)
    looked_at = state.step == steps or state.step % run.validate_every == 0
    if run.best_step < state.step and not looked_at:
        validate(run)
    return stopped
