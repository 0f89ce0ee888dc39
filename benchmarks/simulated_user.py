"""Count the clicks that a user needs until the labels of an image are good.

::

    python benchmarks/simulated_user.py ../shared/data/dsb2018 --split test --output DIR
    python benchmarks/simulated_user.py ../shared/data/monuseg2018 --split val \
        --adapter he --output DIR --limit 3

The user knows the truth and mends the worst error, by the gestures of the tool, until
F1 at IoU 0.5 reaches the goals. Three ways of working are compared:

corrections
    Automatic prompts first. A click adds a nucleus, adds a point to one, rejects,
    splits or merges; a nucleus that three clicks have not mended is painted, and that
    is counted as a click and, beside it, as a stroke.
every nucleus
    No automatic prompts: a click in the middle of every nucleus, then corrections.
painting
    Automatic labels; every wrong or missing nucleus is painted with one stroke, and
    every false one erased with one.

A goal that the automatic labels reach already needs 0 clicks. An image on which a way
of working runs out of errors to mend before the goal counts with all its clicks.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.core.datasets.pairs import find_pairs, load_pair, names_of_split
from napari_sac.core.evaluation.matching import Overlap, label_overlap, match
from napari_sac.core.inference.embedding import Embedding, embed_image
from napari_sac.core.inference.imports import prompts_from_labels
from napari_sac.core.inference.live import Box, touched_nuclei, update_labels
from napari_sac.core.inference.predictor import first_positives, neighbour_reach
from napari_sac.core.inference.proposals import find_proposals
from napari_sac.core.inference.segment import embedding_scale
from napari_sac.core.io import normalise_image
from napari_sac.core.models.registry import Model, load_model
from napari_sac.core.types import NEGATIVE, POSITIVE, ObjectMask, Prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAYS = ("corrections", "every nucleus", "painting")
GOALS = (0.9, 0.95)
PATIENCE = 3
"""Clicks on one true nucleus before it is painted."""
MUCH = 0.25
"""The part of a nucleus that must lie in another to have to do with it."""
COLOURS = ("#0072b2", "#d55e00", "#009e73")


@dataclass(frozen=True)
class Moment:
    """Where the user stands after a click."""

    clicks: int
    decodings: int
    strokes: int
    f1: float


@dataclass(frozen=True)
class Effort:
    """What one goal took on one image, by one way of working."""

    image: str
    nuclei: int
    way: str
    goal: float
    reached: bool
    clicks: int
    decodings: int
    strokes: int


@dataclass
class Desk:
    """An image being annotated: every change goes through the live update."""

    model: Model
    embedding: Embedding
    config: DecodeConfig
    prompts: Prompts = field(default_factory=Prompts.empty)
    masks: dict[int, ObjectMask] = field(default_factory=dict)
    painted: frozenset[int] = frozenset()
    clicks: int = 0
    decodings: int = 0
    strokes: int = 0
    gestures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.embedding.image_shape, np.uint32)

    def set_prompts(
        self,
        after: Prompts,
        *,
        painted: frozenset[int] | None = None,
        repainted: Box | None = None,
    ) -> None:
        """Change the prompts, and with them masks and labels."""
        now_painted = self.painted if painted is None else painted
        reach = neighbour_reach(self.embedding, self.model)
        touched = touched_nuclei(self.prompts, after, self.config, reach)
        update = update_labels(
            self.labels,
            self.masks,
            self.embedding,
            after,
            self.model,
            self.config,
            touched=touched | (now_painted - self.painted),
            painted=now_painted,
            released=self.painted - now_painted,
            repainted=repainted,
        )
        (y, x), (height, width) = update.origin_yx, update.after.shape
        self.labels[y : y + height, x : x + width] = update.after
        self.decodings += sum(m is not None for m in update.masks.values())
        for object_id, mask in update.masks.items():
            if mask is None:
                del self.masks[object_id]
            else:
                self.masks[object_id] = mask
        self.prompts, self.painted = after, now_painted

    def new_id(self) -> int:
        """Return an id that no nucleus has."""
        return int(max(self.prompts.object_id.max(initial=0), self.labels.max())) + 1

    def add_point(self, yx: npt.NDArray[np.int64], object_id: int, sign: int) -> None:
        """Click: one point more, of a nucleus that may be new."""
        point = Prompts.from_points(
            yx.astype(float), object_id=object_id, sign=sign, state="added"
        )
        self.set_prompts(Prompts.concatenate([self.prompts, point]))

    def reject(self, object_id: int) -> None:
        """Reject a nucleus."""
        state = self.prompts.state.copy()
        state[self.prompts.object_id == object_id] = "rejected"
        after = replace(self.prompts, state=state)
        self.set_prompts(after, painted=self.painted - {object_id})

    def merge(self, first: int, second: int) -> None:
        """Make one nucleus of two."""
        object_id, state = self.prompts.object_id.copy(), self.prompts.state.copy()
        object_id[object_id == second] = first
        state[object_id == first] = "added"
        after = replace(self.prompts, object_id=object_id, state=state)
        self.set_prompts(after, painted=self.painted - {first, second})

    def paint(self, region: npt.NDArray[np.bool_]) -> None:
        """Draw one nucleus by hand, as a new one."""
        object_id = self.new_id()
        self.labels[region] = object_id
        rows, columns = np.nonzero(region)
        box = (
            int(rows.min()),
            int(columns.min()),
            int(rows.max()) + 1,
            int(columns.max()) + 1,
        )
        self.set_prompts(
            self.prompts, painted=self.painted | {object_id}, repainted=box
        )
        self.strokes += 1

    def moment(self, f1: float) -> Moment:
        """Return where the user stands."""
        return Moment(self.clicks, self.decodings, self.strokes, f1)


@dataclass(frozen=True, eq=False)
class Errors:
    """What is wrong with labels: nuclei without a partner, the largest first."""

    missing: list[int]
    false: list[int]
    overlap: Overlap
    f1: float

    @classmethod
    def find(
        cls, labels: npt.NDArray[np.uint32], truth: npt.NDArray[np.int32]
    ) -> Errors:
        """Return the errors at IoU 0.5."""
        overlap = label_overlap(labels, truth)
        found = match(overlap)
        total = 2 * found.tp + found.fp + found.fn
        return cls(
            _alone(overlap.truth_ids, overlap.truth_areas, found.pairs[:, 1]),
            _alone(overlap.prediction_ids, overlap.prediction_areas, found.pairs[:, 0]),
            overlap,
            2 * found.tp / total if total else 1.0,
        )

    def predictions_in(self, nucleus: int) -> dict[int, int]:
        """Return the predictions that have much to do with a true nucleus."""
        return self._partners(nucleus, of_truth=True)

    def truths_in(self, prediction: int) -> dict[int, int]:
        """Return the true nuclei that have much to do with a prediction."""
        return self._partners(prediction, of_truth=False)

    def _partners(self, label: int, *, of_truth: bool) -> dict[int, int]:
        """Return the shared pixels of each."""
        o = self.overlap
        truth, prediction = (
            o.truth_ids[o.truth_index],
            o.prediction_ids[o.prediction_index],
        )
        mine, other = (truth, prediction) if of_truth else (prediction, truth)
        smaller = np.minimum(
            o.truth_areas[o.truth_index], o.prediction_areas[o.prediction_index]
        )
        rows = (mine == label) & (o.intersection > MUCH * smaller)
        return dict(
            zip(other[rows].tolist(), o.intersection[rows].tolist(), strict=True)
        )


def _alone(
    ids: npt.NDArray[np.int64],
    areas: npt.NDArray[np.int64],
    matched: npt.NDArray[np.int64],
) -> list[int]:
    order = np.argsort(-areas, kind="stable")
    return [k for k in ids[order].tolist() if k not in set(matched.tolist())]


def deepest(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the pixel (y, x) of a region that is farthest from its edge."""
    rows, columns = np.nonzero(region)
    corner = np.array([rows.min(), columns.min()])
    box = region[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    depth = ndimage.distance_transform_edt(np.pad(box, 1))[1:-1, 1:-1]
    return corner + np.array(np.unravel_index(np.argmax(depth), depth.shape))


def mend(
    desk: Desk, errors: Errors, truth: npt.NDArray[np.int32], tried: Counter[int]
) -> str | None:
    """Mend the worst error with one click; return by what, or None if there is none."""
    if errors.missing:
        nucleus = errors.missing[0]
        tried[nucleus] += 1
        return _mend_missing(desk, errors, truth, nucleus, tried[nucleus] > PATIENCE)
    if errors.false:
        object_id = errors.false[0]
        if object_id in desk.painted and object_id not in desk.prompts.object_id:
            return None
        desk.reject(object_id)
        return "reject"
    return None


def _mend_missing(
    desk: Desk,
    errors: Errors,
    truth: npt.NDArray[np.int32],
    nucleus: int,
    give_up: bool,
) -> str:
    region = truth == nucleus
    inside = errors.predictions_in(nucleus)
    if give_up:
        desk.paint(region)
        return "paint"
    if not inside:
        desk.add_point(deepest(region), desk.new_id(), POSITIVE)
        return "add"
    by_share = sorted(inside, key=lambda k: -inside[k])
    best = by_share[0]
    false = [k for k in by_share if k in set(errors.false)]
    if len(false) > 1:
        desk.merge(false[0], false[1])
        return "merge"
    if len(errors.truths_in(best)) > 1:
        first = first_positives(desk.prompts)
        own = first.yx[first.object_id == best]
        there = bool(len(own)) and region[tuple(_pixel(own[0], region.shape))]
        if not there:
            desk.add_point(deepest(region), desk.new_id(), POSITIVE)
            return "split"
    missed, spilled = region & (desk.labels != best), (desk.labels == best) & ~region
    if spilled.sum() > missed.sum():
        desk.add_point(deepest(spilled), best, NEGATIVE)
        return "negative"
    desk.add_point(deepest(missed), best, POSITIVE)
    return "positive"


def _pixel(
    yx: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    return np.clip(np.rint(yx), 0, np.array(shape) - 1).astype(np.int64)


def correct(desk: Desk, truth: npt.NDArray[np.int32]) -> Iterator[Moment]:
    """Yield where the user stands, until nothing is left to mend."""
    tried: Counter[int] = Counter()
    while True:
        errors = Errors.find(desk.labels, truth)
        yield desk.moment(errors.f1)
        gesture = mend(desk, errors, truth, tried)
        if gesture is None:
            return
        desk.clicks += 1
        desk.gestures[gesture] += 1


def click_every_nucleus(desk: Desk, truth: npt.NDArray[np.int32]) -> Iterator[Moment]:
    """Yield where the user stands while clicking every nucleus, then correcting."""
    middles = prompts_from_labels(truth)
    areas = np.bincount(truth.ravel())[middles.object_id]
    for row in np.argsort(-areas, kind="stable"):
        yield desk.moment(Errors.find(desk.labels, truth).f1)
        desk.add_point(middles.yx[row], desk.new_id(), POSITIVE)
        desk.clicks += 1
        desk.gestures["add"] += 1
    yield from correct(desk, truth)


def paint_errors(desk: Desk, truth: npt.NDArray[np.int32]) -> Iterator[Moment]:
    """Yield where the user stands while painting over the automatic labels."""
    labels = desk.labels.copy()
    while True:
        errors = Errors.find(labels, truth)
        yield desk.moment(errors.f1)
        if errors.missing:
            nucleus = errors.missing[0]
            wrong = set(errors.predictions_in(nucleus)) & set(errors.false)
            labels[np.isin(labels, list(wrong))] = 0
            labels[truth == nucleus] = labels.max() + 1
        elif errors.false:
            labels[labels == errors.false[0]] = 0
        else:
            return
        desk.clicks += 1
        desk.strokes += 1


def efforts_of(
    name: str, nuclei: int, way: str, moments: list[Moment]
) -> Iterator[Effort]:
    """Yield what each goal took."""
    for goal in GOALS:
        there = next((m for m in moments if m.f1 >= goal), None)
        last = there or moments[-1]
        yield Effort(
            name,
            nuclei,
            way,
            goal,
            there is not None,
            last.clicks,
            last.decodings,
            last.strokes,
        )


def annotate(
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.int32],
    model: Model,
    clock: Callable[[str], None],
) -> tuple[dict[str, list[Moment]], Counter[str]]:
    """Return the course of each way of working, and the gestures of the first."""
    proposing = ProposalConfig()
    proposals = find_proposals(image, model, proposing)
    prompts = proposals.above(proposing.score_threshold)
    scale = embedding_scale(model, proposals.diameter)
    embedding = embed_image(image, model, scale=scale)
    clock("embedding")
    desks = {way: Desk(model, embedding, DecodeConfig()) for way in WAYS}
    desks["corrections"].set_prompts(prompts)
    desks["painting"].set_prompts(prompts)
    courses = {}
    ways = (correct, click_every_nucleus, paint_errors)
    for (way, desk), work in zip(desks.items(), ways, strict=True):
        course = []
        for moment in work(desk, truth):
            course.append(moment)
            if moment.f1 >= max(GOALS):
                break
        courses[way] = course
        clock(way)
    return courses, desks["corrections"].gestures


def summary(efforts: list[Effort]) -> str:
    """Return a Markdown table of the means over images."""
    lines = [
        "| way | goal | images that reach it | clicks | clicks for 100 nuclei "
        "| decodings | strokes |",
        "|---|---|---|---|---|---|---|",
    ]
    for goal in GOALS:
        for way in WAYS:
            rows = [e for e in efforts if e.way == way and e.goal == goal]
            nuclei = sum(e.nuclei for e in rows)
            clicks = sum(e.clicks for e in rows)
            cells = [
                way,
                f"{goal}",
                f"{sum(e.reached for e in rows)} of {len(rows)}",
                f"{clicks / len(rows):.1f}",
                f"{100 * clicks / nuclei:.1f}",
                f"{np.mean([e.decodings for e in rows]):.1f}",
                f"{np.mean([e.strokes for e in rows]):.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(courses: dict[str, list[tuple[int, list[Moment]]]]) -> str:
    """Return an SVG: the mean F1 over images against clicks for 100 nuclei."""
    width, height, margin = 640, 400, 60
    most = 130.0
    grid = np.linspace(0, most, 261)

    def place(clicks: float, f1: float) -> str:
        x = margin + clicks / most * (width - 2 * margin)
        y = height - margin - f1 * (height - 2 * margin)
        return f"{x:.1f},{y:.1f}"

    def text(x: float, y: float, words: str, more: str = "") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{words}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for f1 in (0, 0.25, 0.5, 0.75, *GOALS, 1.0):
        parts.append(
            f'<polyline points="{place(0, f1)} {place(most, f1)}" stroke="#ddd"/>'
        )
        if f1 not in GOALS:
            y = float(place(0, f1).split(",")[1])
            parts.append(text(margin - 8, y + 4, f"{f1:g}", 'text-anchor="end"'))
    for clicks in range(0, int(most) + 1, 20):
        x = float(place(clicks, 0).split(",")[0])
        parts.append(text(x, height - margin + 18, str(clicks), 'text-anchor="middle"'))
    parts.append(
        text(
            width / 2,
            height - 18,
            "clicks (painting: strokes) for 100 nuclei",
            'text-anchor="middle"',
        )
    )
    parts.append(text(margin, margin - 20, "mean F1 at IoU 0.5; lines at 0.9 and 0.95"))
    for colour, (way, of_images) in zip(COLOURS, courses.items(), strict=True):
        curves = []
        for nuclei, course in of_images:
            at = np.array([100 * m.clicks / max(nuclei, 1) for m in course])
            values = np.maximum.accumulate([m.f1 for m in course])
            last = np.searchsorted(at, grid, side="right") - 1
            curves.append(values[np.maximum(last, 0)])
        mean = np.mean(curves, axis=0)
        points = " ".join(place(c, f) for c, f in zip(grid, mean, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" '
            'stroke-width="2.5"/>'
        )
        y = height - margin - 16 * (len(COLOURS) - COLOURS.index(colour))
        parts.append(text(width - margin, y, way, f'fill="{colour}" text-anchor="end"'))
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="sac_tiny")
    parser.add_argument("--adapter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, help="only so many images")
    parser.add_argument("--output", type=Path, required=True)
    parsed = parser.parse_args()
    model = load_model(parsed.model, adapter=parsed.adapter, device=parsed.device)
    names = names_of_split(parsed.folder, parsed.split)
    listed = find_pairs(parsed.folder / "images", parsed.folder / "labels")
    pairs = [p for p in listed if p.name in names][: parsed.limit]
    efforts: list[Effort] = []
    courses: dict[str, list[tuple[int, list[Moment]]]] = {way: [] for way in WAYS}
    gestures: Counter[str] = Counter()
    out = sys.stdout.write
    for pair in pairs:
        loaded = load_pair(pair)
        truth = loaded.labels.astype(np.int32)
        nuclei = int(np.count_nonzero(np.unique(truth)))
        start = time.perf_counter()
        spent: list[str] = []

        def clock(stage: str, start: float = start, spent: list[str] = spent) -> None:
            spent.append(f"{stage} {time.perf_counter() - start:.0f} s")

        image = normalise_image(loaded.image)
        found, used = annotate(image, truth, model, clock)
        gestures += used
        for way, course in found.items():
            courses[way].append((nuclei, course))
            efforts += efforts_of(pair.name, nuclei, way, course)
        ends = ", ".join(
            f"{way} {course[0].f1:.2f} to {course[-1].f1:.2f} in {course[-1].clicks}"
            for way, course in found.items()
        )
        out(f"{pair.name[:26]}: {nuclei} nuclei; {ends}; {', '.join(spent)}\n")
        sys.stdout.flush()
    table = summary(efforts)
    out("\n" + table)
    out(f"\ngestures of the corrections: {dict(gestures.most_common())}\n")
    parsed.output.mkdir(parents=True, exist_ok=True)
    (parsed.output / "summary.md").write_text(table)
    (parsed.output / "plot.svg").write_text(plot(courses))
    rows = [asdict(e) for e in efforts]
    (parsed.output / "efforts.json").write_text(
        json.dumps({"efforts": rows, "gestures": gestures}, indent=2) + "\n"
    )
    with (parsed.output / "efforts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
