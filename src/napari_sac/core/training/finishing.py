"""The end of a run: compare, and write the adapter and the report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from napari_sac import __version__
from napari_sac.core.models.adapter import AdapterInfo, fill_adapter, find_adapter
from napari_sac.core.progress import count
from napari_sac.core.training.comparison import Compared, compare
from napari_sac.core.training.events import Comparing
from napari_sac.core.training.lineage import learned_by, write_learned
from napari_sac.core.training.report import RunRecord, write_report
from napari_sac.core.training.run import Outcome, kept_weights, weights_in_place
from napari_sac.core.training.run_folder import BEFORE, CHECKPOINT, REPORT
from napari_sac.core.training.validation import held_out_parts, predict

if TYPE_CHECKING:
    from napari_sac.core.training.comparison import Comparison
    from napari_sac.core.training.run import Run


def finish(run: Run, begun: float, stopped: bool) -> Outcome:
    """Compare, and write the adapter and the report."""
    job = run.job
    if not run.team.leads:
        run.team.close()
        return _outcome_of_others(run)
    run.listen(Comparing())
    with weights_in_place(run, run.best or kept_weights(run)):
        tuned = predict(run)
        with np.load(run.folder / BEFORE) as saved:
            before = [saved[str(i)] for i in range(len(tuned))]
        compared = [
            Compared(*parts)
            for parts in zip(held_out_parts(run), before, tuned, strict=True)
        ]
        comparison = compare(compared, job.config.seed)
        info = _describe_adapter(run, comparison)
        report = write_report(
            job.output,
            _record(run, time.monotonic() - begun, stopped),
            comparison,
            compared,
        )
        learned = (*job.data.training, *job.original)
        write_learned(job.output, learned, learned_by(run.parent))
        adapter = fill_adapter(job.output, run.state.sam, run.state.generator, info)
    (run.folder / CHECKPOINT).unlink(missing_ok=True)
    (run.folder / BEFORE).unlink(missing_ok=True)
    run.team.close()
    return Outcome(adapter, report)


def _outcome_of_others(run: Run) -> Outcome:
    """Return what the first process wrote."""
    report = json.loads((run.job.output / REPORT).read_text(encoding="utf-8"))
    return Outcome(find_adapter(run.job.output), report)


def _describe_adapter(run: Run, comparison: Comparison) -> AdapterInfo:
    job = run.job
    metrics = {}
    if comparison.base is not None and comparison.tuned is not None:
        metrics = {
            "before": asdict(comparison.base),
            "after": asdict(comparison.tuned),
        }
    images = len(job.data.training)
    nuclei = sum(one.count for one in job.data.training)
    return AdapterInfo(
        name=job.output.resolve().name,
        path=job.output,
        title=job.title or job.output.resolve().name,
        description=job.description,
        base=job.model,
        base_sha256=run.base_sha256,
        licence=job.licence,
        data_sha256=job.data.digest(),
        metrics=metrics,
        versions={"napari-sac": __version__}
        | {name: version(name) for name in ("torch", "peft")},
        parent=run.parent.name if run.parent else "",
        data=f"{count(nuclei, 'nucleus', 'nuclei')} of {count(images, 'image')}",
        tissue=job.tissue,
        created=datetime.now(UTC).date().isoformat(),
        promoted=comparison.promoted,
    )


def _record(run: Run, seconds: float, stopped: bool) -> RunRecord:
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
    )
