"""``report.json`` for programs and ``report.html`` for people: what a run came to.

The page is one file without a script or a link: curves are inline SVG, pictures are
embedded.
"""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.segmentation import find_boundaries

from napari_sac.core.evaluation.matching import label_overlap, match
from napari_sac.core.evaluation.metrics import METRIC_NAMES
from napari_sac.core.io import atomic_path
from napari_sac.core.progress import format_bytes
from napari_sac.core.training.comparison import COMPARED
from napari_sac.core.training.curves import draw_curves
from napari_sac.core.training.run_folder import (
    REPORT,
    REPORT_PAGE,
    read_curve,
    read_validation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sac.core.training.comparison import Compared, Comparison, Interval
    from napari_sac.core.types import IntArray

GAINED, LOST, BOTH, NEITHER = (
    (0, 200, 80),
    (235, 50, 50),
    (255, 255, 255),
    (250, 170, 0),
)
"""Outlines of nuclei that the tuned model found anew, lost, kept, never found."""

_PICTURES = 6
_LARGEST_PICTURE = 900


@dataclass(frozen=True)
class RunRecord:
    """What a run was, beside what it came to; the fields are those of the JSON."""

    model: str
    parent: str
    mode: str
    seconds: float
    training_seconds: float
    device: str
    device_title: str
    processes: int
    step_seconds: float
    step_memory_bytes: int
    steps: int
    steps_planned: int
    best_step: int
    stopped: bool
    crop: int
    checkpointing: bool
    blocks: int
    held_out: str
    held_out_names: tuple[str, ...]
    training_names: tuple[str, ...]
    training_nuclei: int
    notes: tuple[str, ...]
    config: dict[str, Any]


def write_report(
    folder: Path,
    record: RunRecord,
    comparison: Comparison,
    compared: Sequence[Compared],
) -> dict[str, Any]:
    """Write ``report.html``, then ``report.json``, and return what is in the latter.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    content = _content(record, comparison)
    curves = {"curve": read_curve(folder), "validation": read_validation(folder)}
    page = _page(record, comparison, compared, curves)
    with atomic_path(folder / REPORT_PAGE) as partial:
        # names of files need not be text that UTF-8 knows
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    with atomic_path(folder / REPORT) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def _content(record: RunRecord, comparison: Comparison) -> dict[str, Any]:
    values = asdict(record)
    for name in ("held_out_names", "training_names", "notes"):
        values[name] = list(values[name])
    verdict = asdict(comparison)
    intervals = {
        "base": verdict.pop("base_intervals"),
        "tuned": verdict.pop("tuned_intervals"),
        "gain": verdict.pop("gain_intervals"),
    }
    for part in intervals.values():
        for name, ends in (part or {}).items():
            part[name] = list(ends)
    return verdict | {"intervals": intervals} | values


def draw_overlay(one: Compared) -> npt.NDArray[np.uint8]:
    """Return a held-out image with the outlines of its true nuclei, by who found them.

    Returns
    -------
    (h, w, 3) uint8
    """
    reviewed = one.reviewed
    side = max(reviewed.labels.shape)
    zoom = max(1, round(_LARGEST_PICTURE / 2 / side))
    # first, for an outline of one pixel would be gone in a picture that is made smaller
    step = math.ceil(side / _LARGEST_PICTURE)
    image = np.asarray(Image.fromarray(reviewed.image).reduce(step))
    picture = image.repeat(zoom, 0).repeat(zoom, 1).copy()
    truth = reviewed.labels[::step, ::step].repeat(zoom, 0).repeat(zoom, 1)
    unknown = ~reviewed.known[::step, ::step].repeat(zoom, 0).repeat(zoom, 1)
    picture[unknown] = picture[unknown] // 2
    edge = find_boundaries(truth.astype(np.int64), mode="inner")
    gained, lost, found = one.gained(), one.lost(), one.found_by_tuned()
    colour = np.zeros((int(reviewed.labels.max()) + 1, 3), np.uint8)
    for k in range(1, len(colour)):
        if k in gained:
            colour[k] = GAINED
        elif k in lost:
            colour[k] = LOST
        else:
            colour[k] = BOTH if k in found else NEITHER
    picture[edge] = colour[truth[edge]]
    return np.asarray(picture)


def draw_example(
    image: npt.NDArray[np.uint8], labels: IntArray, truth: IntArray
) -> npt.NDArray[np.uint8]:
    """Return a window with the outlines of the nuclei: found, missed, wrongly found.

    Parameters
    ----------
    image : (h, w, 3) uint8
    labels, truth : (h, w) int
        What the model found, and what is true.

    Returns
    -------
    (h z, w z, 3) uint8
        Enlarged by a whole number, so that the outlines are thin. True outlines are
        in :data:`GAINED` if the nucleus was found (IoU at least 0.5) and :data:`LOST`
        if not; what was found and is none is in :data:`NEITHER`.
    """
    pairs = match(label_overlap(labels, truth), 0.5).pairs
    zoom = max(1, round(_LARGEST_PICTURE / 2 / max(truth.shape)))
    picture = image.repeat(zoom, 0).repeat(zoom, 1).copy()
    wrong = np.where(np.isin(labels, pairs[:, 0]), 0, labels)
    found = np.where(np.isin(truth, pairs[:, 1]), truth, 0)
    missed = truth - found
    for outlined, colour in ((wrong, NEITHER), (missed, LOST), (found, GAINED)):
        large = outlined.astype(np.int64).repeat(zoom, 0).repeat(zoom, 1)
        picture[find_boundaries(large, mode="inner")] = colour
    return np.asarray(picture)


def _embedded(picture: npt.NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((_LARGEST_PICTURE, _LARGEST_PICTURE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="" src="data:image/png;base64,{text}">'


def _page(
    record: RunRecord,
    comparison: Comparison,
    compared: Sequence[Compared],
    curves: dict[str, dict[str, list[float]]],
) -> str:
    verdict = "promoted" if comparison.promoted else "not promoted"
    parts = [
        f"<h1>Fine-tuning of {escape(record.model)}: {verdict}</h1>",
        f"<p class={'good' if comparison.promoted else 'bad'}>"
        f"{escape(comparison.reason)}</p>",
        _scores_table(comparison),
        _curves(curves),
        _pictures(compared),
        _facts(record, comparison),
    ]
    return _HEAD + "\n".join(parts) + "\n</body></html>\n"


_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Fine-tuning report</title>
<style>
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border-bottom: 1px solid #ccc; padding: .25em .8em; text-align: right }
td:first-child, th:first-child { text-align: left }
.good { border-left: 4px solid #3a8f5c; padding-left: .6em }
.bad { border-left: 4px solid #d1495b; padding-left: .6em }
img { max-width: 100%; display: block; margin: .3em 0 1em }
svg { margin-right: 1em } .key { display: inline-block; width: 1em; height: 1em;
      vertical-align: -2px; border: 1px solid #888; margin-left: 1em }
</style></head><body>
"""


def _scores_table(comparison: Comparison) -> str:
    if comparison.base is None or comparison.tuned is None:
        return ""
    rows = []
    for name in METRIC_NAMES:
        base, tuned = getattr(comparison.base, name), getattr(comparison.tuned, name)
        cells = [f"{base:.3f}", f"{tuned:.3f}", f"{tuned - base:+.3f}"]
        if name in COMPARED:
            cells[0] += _range(comparison.base_intervals, name)
            cells[1] += _range(comparison.tuned_intervals, name)
            cells[2] += _range(comparison.gain_intervals, name, "+")
        rows.append(
            f"<tr><td>{name}</td>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
        )
    return (
        "<h2>On what was held out</h2><table><tr><th>score</th><th>before</th>"
        "<th>after</th><th>gain</th></tr>" + "".join(rows) + "</table>"
        "<p>In brackets: 95 % confidence, by bootstrap over parts of the images. "
        f"Of {comparison.nuclei} nuclei {comparison.gained} were gained and "
        f"{comparison.lost} lost.</p>"
    )


def _range(intervals: dict[str, Interval] | None, name: str, sign: str = "") -> str:
    if intervals is None:
        return ""
    low, high = intervals[name]
    return f" ({low:{sign}.3f} to {high:{sign}.3f})"


def _curves(curves: dict[str, dict[str, list[float]]]) -> str:
    loss, scores = curves["curve"], curves["validation"]
    drawn = []
    if loss:
        drawn.append(draw_curves("loss", loss["step"], {"training loss": loss["loss"]}))
    if scores:
        chosen = {name: scores[name] for name in ("f1", "dice", "aji", "pq")}
        drawn.append(draw_curves("held out", scores["step"], chosen))
    return f"<h2>Curves</h2><p>{''.join(drawn)}</p>" if drawn else ""


def _pictures(compared: Sequence[Compared]) -> str:
    if not compared:
        return ""
    keys = "".join(
        f'<span class="key" style="background:rgb{colour}"></span> {words}'
        for colour, words in (
            (GAINED, "gained"),
            (LOST, "lost"),
            (BOTH, "found by both"),
            (NEITHER, "found by neither"),
        )
    )
    shown = [
        f"<h3>{escape(one.reviewed.name)}: {len(one.gained())} gained, "
        f"{len(one.lost())} lost</h3>{_embedded(draw_overlay(one))}"
        for one in compared[:_PICTURES]
    ]
    return (
        f"<h2>Nuclei gained and lost</h2><p>True outlines:{keys}. Dark: not reviewed, "
        f"or used for training.</p>{''.join(shown)}"
    )


def _facts(record: RunRecord, comparison: Comparison) -> str:
    facts = {
        "model": record.model + (f" with {record.parent}" if record.parent else ""),
        "mode": record.mode,
        "learned from": f"{record.training_nuclei} nuclei: "
        + ", ".join(record.training_names),
        "held out": f"{record.held_out}: " + ", ".join(record.held_out_names),
        "steps": f"{record.steps} of {record.steps_planned} planned, "
        f"the best was after {record.best_step}",
        "time": f"{record.seconds:.0f} s, {record.step_seconds:.2f} s a step",
        "memory of a step": format_bytes(record.step_memory_bytes),
        "device": f"{record.device_title}, {record.processes} process(es)",
        "F1 by chance": f"{comparison.chance:.3f}",
    } | {name: str(value) for name, value in record.config.items()}
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in record.notes)
    return f"<h2>The run</h2><ul>{notes}</ul><table>{rows}</table>"
