"""What lets a killed run go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from napari_sac.core.errors import OutputError
from napari_sac.core.io import atomic_path
from napari_sac.core.models.adapter import INFO_FILE
from napari_sac.core.models.registry import get_spec, weights_sha256
from napari_sac.core.training.memory import Plan
from napari_sac.core.training.reviewed_image import digest
from napari_sac.core.training.run import adapter_parameters
from napari_sac.core.training.run_folder import (
    BEFORE,
    CHECKPOINT,
    CURVE,
    REPORT,
    RUN,
    SETTINGS,
    VALIDATION,
    is_begun,
)
from napari_sac.core.training.stepping import rates_of
from napari_sac.core.training.tables import drop_rows_after

if TYPE_CHECKING:
    from napari_sac.core.training.run import Job, Run

CHECKPOINT_SECONDS = 20.0
"""A checkpoint is written after each validation, for a pause, and at least so often."""

_CALLED = {
    "model": "another model",
    "adapter": "another adapter",
    "base_sha256": "other weights of the base model",
    "data_sha256": "other images, labels or points",
    "held_out_sha256": "another held-out part",
    "original_sha256": "other images of --original",
    "config": "other settings",
}
"""By what :func:`_settings_of` notes."""


def finished_report(job: Job, resume: bool) -> dict[str, Any] | None:
    """Return the report of a run that is finished already, if it is to be resumed.

    Raises
    ------
    OutputError
        If there is a run and it is not to be resumed, or was begun with other settings.
    """
    finished = job.output / REPORT
    # pathlib raises where one may not look
    made = os.path.isfile(job.output / INFO_FILE)
    used = made or is_begun(job.output)
    if resume and made and os.path.isfile(finished):
        # one that was made elsewhere has only what came of it
        if (job.output / RUN / SETTINGS).exists():
            _refuse_another(job)
        report: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return report
    if used and not resume:
        raise OutputError(
            f"There is a run in {job.output} already, and it was kept. Add --resume to "
            "go on with it, or choose another folder."
        )
    return None


def note_settings(job: Job) -> None:
    """Note what the run is, or refuse to go on with another one.

    Raises
    ------
    OutputError
        If the run in the folder was begun with other settings.
    """
    folder = job.output / RUN
    file = folder / SETTINGS
    if file.exists():
        if (folder / CHECKPOINT).exists():
            _refuse_another(job)
            return
        if not _differences(job):
            return
        # what the other settings saw before their first step, which never came
        (folder / BEFORE).unlink(missing_ok=True)
    with atomic_path(file) as partial:
        partial.write_text(json.dumps(_settings_of(job), indent=2), encoding="utf-8")


def _differences(job: Job) -> list[str]:
    """Return which of ``_CALLED`` are not those the run in the folder began with."""
    file, settings = job.output / RUN / SETTINGS, _settings_of(job)
    before = json.loads(file.read_text(encoding="utf-8"))
    before["config"]["max_minutes"] = job.config.max_minutes
    return [name for name in settings if settings[name] != before.get(name)]


def _refuse_another(job: Job) -> None:
    different = _differences(job)
    if different:
        raise OutputError(
            f"The run in {job.output} was begun with "
            f"{', '.join(_CALLED[name] for name in different)}, and was kept. Go on "
            "with the same, or choose another folder."
        )


def _settings_of(job: Job) -> dict[str, Any]:
    return {
        "model": job.model,
        "adapter": str(job.adapter or ""),
        "base_sha256": weights_sha256(get_spec(job.model)),
        "data_sha256": job.data.digest(),
        "held_out_sha256": digest(job.data.held_out),
        "original_sha256": digest(job.original),
        "config": asdict(job.config),
    }


def save_checkpoint(run: Run) -> None:
    """Write all that is needed to go on, atomically."""
    if not run.team.leads:
        return
    state = run.state
    networks = {n: p.detach() for n, p in adapter_parameters(run).items()}
    path = run.folder / CHECKPOINT
    # given a path, torch raises something else than OSError where it cannot write
    with atomic_path(path) as partial, partial.open("wb") as file:
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
                "row": run.row,
            },
            file,
        )
    run.saved_at = time.monotonic()


def take_up_plan(run: Run) -> None:
    """Plan steps as they were until the checkpoint, if there is one."""
    file = run.folder / CHECKPOINT
    if not file.exists():
        return
    # its weights, which may be gigabytes, are left unread
    saved = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
    crop, at_once, checkpointing, blocks = saved["plan"]
    run.plan = Plan(crop, min(at_once, run.plan.at_once), bool(checkpointing), blocks)


def take_up(run: Run) -> None:
    """Go on from a checkpoint, if there is one; else begin."""
    for name, parameter in adapter_parameters(run).items():
        run.first[name] = parameter.detach().clone()
        run.state.averages[name] = parameter.detach().clone()
    file = run.folder / CHECKPOINT
    if not file.exists():
        return
    saved = torch.load(file, weights_only=True, map_location=run.state.device)
    tracked = adapter_parameters(run)
    with torch.no_grad():
        for name, tensor in saved["weights"].items():
            tracked[name].copy_(tensor)
    state = run.state
    state.optimizer.load_state_dict(saved["optimizer"])
    state.averages, state.step = saved["averages"], saved["step"]
    state.seconds = saved["seconds"]
    run.best, run.best_score = saved["best"], saved["best_score"]
    run.best_step = saved["best_step"]
    run.notes = list(dict.fromkeys([*saved["notes"], *run.notes]))
    run.row = saved["row"]
    run.validate_every = saved["validate_every"]
    run.rates = rates_of(run, saved["steps"])
    run.train_seconds += state.seconds
    if run.team.leads:
        for name in (CURVE, VALIDATION):
            drop_rows_after(run.folder / name, state.step)
    run.tell(f"Going on at step {state.step} of {run.rates.steps}.")
