"""The sentences about adapters: what they are, what can be done, how two compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.core.training.lineage import Seen
from napari_sac.viewer.adapters import adapter_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.viewer.adapters import ListedAdapter
    from napari_sac.viewer.comparing import Side, SideBySide

NO_ADAPTER_SELECTED = "Select an adapter in the table."
NOTHING_BEFORE = "There is nothing to switch back to yet."
NO_IMAGE_TO_COMPARE = "Open an image to compare two models on."
CANNOT_BE_USED = "The selected adapter cannot be used, so there is nothing to compare."
NOT_MEASURED = "-"


def name_in_table(listed: ListedAdapter) -> str:
    """Return the title of an adapter, and what is wrong with it."""
    if listed.info is None:
        return f"{listed.name} (damaged)"
    if listed.problem:
        return f"{listed.title} (does not fit)"
    return listed.title if listed.info.promoted else f"{listed.title} (not promoted)"


def describe_f1(info: AdapterInfo | None) -> str:
    """Return the F1 on what was held out, before and after: ``"0.61 → 0.74"``."""
    before, after = _f1(info, "before"), _f1(info, "after")
    if before is None or after is None:
        return NOT_MEASURED
    return f"{before:.2f} → {after:.2f}"


def describe_listed(listed: ListedAdapter, *, in_use: bool) -> str:
    """Return all that is known about an adapter."""
    info = listed.info
    if info is None:
        return listed.problem
    sentences = [
        f"Made from {info.parent or info.base}"
        + (f" ({info.base})" if info.parent else "")
        + (f", on {info.data}" if info.data else "")
        + (f", {info.created}." if info.created else "."),
    ]
    before, after = _f1(info, "before"), _f1(info, "after")
    if before is None or after is None:
        sentences.append("No scores on anything held out are noted in it.")
    else:
        sentences.append(f"F1 on what was held out: {before:.3f}, now {after:.3f}.")
    if not info.promoted:
        sentences.append("Not promoted: it was no better than what it was made from.")
    if info.description.strip():
        sentences.append(info.description.strip())
    if info.licence:
        sentences.append(f"Licence: {info.licence}.")
    if in_use:
        sentences.append("In use now.")
    # last, without a full stop that would be copied with it
    sentences.append(f"On the command line: --adapter {adapter_key(info)}")
    return " ".join(sentences)


def describe_hindrance(listed: ListedAdapter | None, *, in_use: bool) -> str:
    """Return why some buttons are off for an adapter; empty if all are on."""
    if listed is None:
        return NO_ADAPTER_SELECTED
    reasons = []
    if listed.problem and listed.info is not None:
        reasons.append(listed.problem)
    if not listed.own:
        reasons.append(
            "It came with napari-sac, so it cannot be renamed or deleted; "
            "export a copy to have one of your own."
        )
    elif in_use:
        reasons.append("It is in use: choose another model before you delete it.")
    return " ".join(reasons)


def describe_used(now: str, before: str | None) -> str:
    """Return what is used, and what Switch back would use."""
    text = f"In use: {now}."
    return f"{text} {NOTHING_BEFORE}" if before is None else f"{text} Before: {before}."


def ask_delete(title: str, images: int) -> str:
    """Return the question before an adapter is deleted.

    Parameters
    ----------
    title : str
    images : int
        Open images that were segmented with it.
    """
    question = f"Delete the adapter {title} for good? Labels made with it stay."
    if images:
        which = "an open image" if images == 1 else f"{images} open images"
        question += (
            f" The nuclei of {which} were drawn by it: to correct those "
            "further, Segment them with another model."
        )
    return question


def describe_added(info: AdapterInfo) -> str:
    """Return that an adapter was added."""
    return f"Added {info.shown_title}. Press Use to segment with it."


def describe_chosen(name: str) -> str:
    """Return that another model is used from now on."""
    return (
        f"{name} is used from now on. Press Segment to see what it makes of an image."
    )


def describe_merged(path: Path) -> str:
    """Return where the merged weights are, and what is not in them."""
    return (
        f"Written to {path}. Other SAM tools can read it; what finds the nuclei is "
        "not in it."
    )


def describe_comparison(found: SideBySide) -> str:
    """Return what a comparison was made on, and what to think of it."""
    sentences = []
    if found.request.part:
        sentences.append(f"Compared on {found.request.part}, for the image is large.")
    if not found.reviewed:
        sentences.append(
            "Nothing was reviewed here, so only the nuclei are counted. Accept or "
            "correct some, or draw a reviewed region, to see scores."
        )
        return " ".join(sentences)
    nuclei = (
        "1 reviewed nucleus"
        if found.reviewed == 1
        else (f"{found.reviewed:,} reviewed nuclei")
    )
    sentences.append(f"Scores are on {nuclei}.")
    sentences += [_caution(side) for side in found.sides]
    return " ".join(sentence for sentence in sentences if sentence)


def score_texts(side: Side) -> Sequence[str]:
    """Return F1, PQ, AJI and Dice of one side, as text."""
    scores = side.scores
    if scores is None:
        return [NOT_MEASURED] * 4
    return [f"{x:.3f}" for x in (scores.f1, scores.pq, scores.aji, scores.dice)]


def _caution(side: Side) -> str:
    """Return why the scores of one side may be too good; empty if nothing is known."""
    title = side.candidate.title
    if side.seen is Seen.YES:
        return f"{title} has learned from these very nuclei, which flatters it."
    if side.seen is Seen.MAYBE:
        return (
            f"{title} was trained on an image of this name: if it has learned from "
            "these nuclei, that flatters it."
        )
    if side.drew:
        return f"Those that nobody painted were drawn by {title}, which flatters it."
    return ""


def _f1(info: AdapterInfo | None, when: str) -> float | None:
    """Return an F1 that an adapter says of itself; None for anything but a number."""
    scores = {} if info is None else info.metrics.get(when)
    value = scores.get("f1") if isinstance(scores, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= 1 else None
