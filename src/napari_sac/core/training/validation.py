"""Look at a run's weights on the held-out part: now and then, before and after."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.evaluation.metrics import evaluate_labels, mean_scores
from napari_sac.core.inference.segment import segment_image
from napari_sac.core.io import atomic_path
from napari_sac.core.training.comparison import limit_to_known
from napari_sac.core.training.events import Validated
from napari_sac.core.training.preparation import own_diameter
from napari_sac.core.training.reviewed_image import crop_to_known
from napari_sac.core.training.run import as_model, kept_weights, weights_in_place
from napari_sac.core.training.run_folder import BEFORE, VALIDATION
from napari_sac.core.training.tables import append_row, drop_rows_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.training.optimization import TrainingState
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.training.run import Run
    from napari_sac.core.training.training_set import TrainingSet

_SECONDS = "seconds"
_VALIDATION_IMAGES = 4
_MARGIN = 2.0


def choose_windows(
    data: TrainingSet, state: TrainingState
) -> tuple[ReviewedImage, ...]:
    """Return a few windows of the held-out part, to look at while it trains."""
    spec = state.spec
    side = round(2 * spec.architecture.image_size * data.diameter)
    side = max(32, round(side / spec.nucleus_diameter))
    return tuple(
        _fullest_window(crop_to_known(one, round(_MARGIN * data.diameter)), side)
        for one in _looked_at(data)
    )


def _looked_at(data: TrainingSet) -> Sequence[ReviewedImage]:
    """Return the held-out images of which there are windows."""
    # those without nuclei would tell of false ones only
    some = [one for one in data.held_out if one.count] or data.held_out
    return some[:_VALIDATION_IMAGES]


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


def validate(run: Run) -> None:
    """Look at the weights on the held-out part, and keep them if they are the best."""
    state = run.state
    if not run.team.leads:
        return
    weights = kept_weights(run)
    if not run.windows:
        run.best, run.best_step = weights, state.step
        return
    data = run.job.data
    # as training does; a window has too few nuclei to tell
    diameters = [own_diameter(one) or data.diameter for one in _looked_at(data)]
    with weights_in_place(run, weights):
        model = as_model(run)
        found = [
            limit_to_known(
                segment_image(
                    one.image, model, diameter=diameter, progress=run.watch
                ).labels,
                one,
            )
            for one, diameter in zip(run.windows, diameters, strict=True)
        ]
    scores = mean_scores(
        [
            evaluate_labels(labels, one.labels)
            for labels, one in zip(found, run.windows, strict=True)
        ]
    )
    # F1 alone jumps by whole nuclei; the pixels' scores say which of equals is better
    score = (scores.f1 + scores.pq + scores.aji + scores.dice) / 4
    # of equals the later one: it has learned more
    best = score >= run.best_score
    if best:
        run.best_score, run.best_step = score, state.step
        run.best = weights
    row = {"step": float(state.step), "seconds": round(state.seconds, 1)}
    row |= {name: round(value, 4) for name, value in asdict(scores).items()}
    drop_rows_after(run.folder / VALIDATION, state.step - 1)
    append_row(run.folder / VALIDATION, row)
    first = run.windows[0]
    run.listen(Validated(state.step, scores, best, first.image, found[0], first.labels))


def held_out_parts(run: Run) -> list[ReviewedImage]:
    """Return the held-out part, cut to what is known of it."""
    margin = round(_MARGIN * run.job.data.diameter)
    return [crop_to_known(one, margin) for one in run.job.data.held_out]


def predict(run: Run) -> list[Any]:
    """Return the labels of the held-out images, found as in use."""
    model = as_model(run)
    return [
        limit_to_known(segment_image(one.image, model, progress=run.watch).labels, one)
        for one in held_out_parts(run)
    ]


def predict_before(run: Run) -> float:
    """Keep what the model finds before it learns, for the comparison.

    Returns
    -------
    float
        Seconds that it took, also if that was before the run was ended and resumed: the
        comparison at the end takes as long.
    """
    file = run.folder / BEFORE
    if file.exists():
        with np.load(file) as saved:
            return float(saved[_SECONDS])
    begun = time.monotonic()
    found = {str(i): labels for i, labels in enumerate(predict(run))}
    seconds = time.monotonic() - begun
    found[_SECONDS] = np.array(seconds)
    with atomic_path(file) as partial, partial.open("wb") as opened:
        np.savez_compressed(opened, **found)
    return seconds
