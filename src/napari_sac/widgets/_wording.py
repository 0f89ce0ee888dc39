"""The sentences of the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.core.progress import count
from napari_sac.core.session.recovery import is_unsaved
from napari_sac.viewer.drawing import POINTS_STAY
from napari_sac.viewer.effort import PAUSE_SECONDS
from napari_sac.viewer.prompts import count_nuclei

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.session.recovery import Unclosed
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.inference import Found, Segmented
    from napari_sac.viewer.planes import ImagePlane
    from napari_sac.viewer.review import ReviewProgress

NO_IMAGE = "Open an image first, or a sample: File > Open Sample > Segment Any Cell."
TURNED = (
    "Nuclei are found in the image's last two axes, seen in 2D. Turn the axes back "
    "below the canvas, and leave 3D."
)
CHANNELS_GUESSED = (
    "The axes of this image have no names. If these are planes of a stack and not "
    "channels, leave Channel as shown."
)
NO_POINTS = "Find nuclei first."
IMAGE_GONE = (
    "The image was removed or got other pixels while the work was going on, so the "
    "result was dropped. Other layers were kept."
)
POINTS_GONE = (
    "The points were removed while the work was going on, so the labels were dropped. "
    + POINTS_STAY
)

MASKS_FOLLOW = "Masks follow at once"
MASKS_WAIT = (
    f"Stopped. Masks of changed points wait until {MASKS_FOLLOW} is on again, or "
    "Segment is pressed."
)

WHAT_COUNTS = (
    "Each step that Undo takes back counts, and pauses up to "
    f"{PAUSE_SECONDS / 60:.0f} min."
)
NOTHING_SELECTED = (
    "Select points first: press Select, then click them or draw around them."
)
TOOL_HINTS = {
    "add": "Click into a nucleus that was missed; or into one of two that are one, to "
    "split it. Shift-click where a nucleus reaches too far, Ctrl-click where it should "
    "be too.",
    "exclude": "Click where a nucleus reaches too far.",
    "include": "Click where a nucleus should be too. The nucleus whose colour is there "
    "gets it, else the selected one if that is near, else the nearest.",
    "paint": "Draw a nucleus with the brush; one that you draw apart from it is the "
    "next. What is painted stays as it is.",
    "select": "Click a point, or draw around many. Drag a point to move it.",
    "pan_zoom": "Drag the image to move it; the wheel zooms.",
}
NO_LABELS_LAYER = "Select one Labels layer of another tool in the layer list first."
SAVING_STOPPED = (
    "The dock was closed while the session was copied, so the work does not go on in "
    "the copy. All steps are kept where they were; open the dock and save it again."
)
STILL_BUSY = "Something is being computed. Wait for it, or cancel it."
LONGEST_STEP = 32
"""Characters of a step's name that fit on a button of a narrow dock."""

_STAGES = {
    "embedding": "looking at the image",
    "decoding": "outlining nuclei",
}

DISCARD_QUESTION = "Delete this work for good? Points, labels and history go."


def name_adapters(adapters: Sequence[AdapterInfo]) -> list[str]:
    """Return what menus call adapters; those of one title show their folder too."""
    titles = [info.shown_title for info in adapters]
    named = []
    for info, title in zip(adapters, titles, strict=True):
        alone = titles.count(title) == 1
        name = title if alone else f"{title} [{info.name}]"
        if info.tissue:
            name += f", {info.tissue}"
        named.append(name if info.promoted else f"{name} (not promoted)")
    return named


def describe_adapter(info: AdapterInfo) -> str:
    """Return what an adapter is for, and what speaks against it."""
    parts = [info.description.strip()] if info.description.strip() else []
    if info.licence:
        parts.append(f"Licence: {info.licence}.")
    if not info.promoted:
        parts.append("It was no better than what it was made from.")
    return " ".join(parts) or f"Learned from {info.data or 'nobody knows what'}."


def suggest_adapter(info: AdapterInfo) -> str:
    """Return that an adapter is meant for the image."""
    return f"This looks like {info.shown_title}: choose it."


def describe_adapter_gone(name: str) -> str:
    """Return that the chosen adapter cannot be used any more."""
    return (
        f"The adapter {name} is not there any more, or is damaged, so the model is "
        "used without it. Labels are as they were."
    )


def describe_stage(stage: str) -> str:
    """Return what is going on, given what the core calls it."""
    text = _STAGES.get(stage, stage)
    return f"{text[:1].upper()}{text[1:]} ..."


def name_step(title: str) -> str:
    """Return the name of a step, short enough for a button."""
    if len(title) <= LONGEST_STEP:
        return title
    return title[: LONGEST_STEP - 1].rstrip() + "…"


def describe_step(title: str, annotation: Annotation, *, undone: bool) -> str:
    """Return what was just done or undone, and how many nuclei there are now."""
    nuclei = count(count_nuclei(annotation.prompts), "nucleus", "nuclei")
    return f"{'Undone' if undone else 'Done'}: {title}. Now {nuclei}."


def describe_time(seconds: float) -> str:
    """Return a duration in words: ``"2 min 5 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def describe_doubt(progress: ReviewProgress) -> str:
    """Return which nucleus is looked at, and what was made of it or speaks against."""
    if progress.current_id == 0:
        if progress.reviewed == progress.total:
            return "All nuclei are reviewed."
        return "Press Next: the most doubtful nucleus comes first."
    doubts = "; ".join(progress.reasons) or "nothing odd about it"
    return f"Nucleus {progress.current_id}: {progress.decision or doubts}."


def describe_progress(rejected: int) -> str:
    """Return what a bar says of the nuclei that are reviewed, in Qt's placeholders."""
    text = "%v of %m nuclei reviewed"
    return f"{text}, {rejected:,} rejected" if rejected else text


def describe_effort(annotation: Annotation, reviewed: int) -> str:
    """Return how much work it was, for so many reviewed nuclei, and what counts."""
    text = f"{describe_time(annotation.worked)}, {count(annotation.steps, 'step')}"
    if reviewed:
        text += f": {annotation.steps / reviewed:.1f} per nucleus"
    return f"{text}. {WHAT_COUNTS}"


def describe_unsaved(unclosed: Sequence[Unclosed], now: datetime) -> str:
    """Return the offer to restore what was not closed, the newest first."""
    newest = unclosed[0]
    when = newest.changed.astimezone(now.tzinfo)
    image = newest.images[0] if newest.images else "an image"
    more = f" and {len(newest.images) - 1} more" if len(newest.images) > 1 else ""
    what = "Unsaved work" if is_unsaved(newest.folder) else newest.folder.name
    text = f"{what} from {_day(when, now)} {when:%H:%M} on {image}{more}."
    others = len(unclosed) - 1
    return f"{text} And {count(others, 'older one')}." if others else text


def ask_to_forget(folder: Path) -> str:
    """Return the question whether a session of the user's own is offered no more."""
    return f"Offer {folder.name} no more? It stays where you saved it."


def describe_place(folder: Path | None, *, saved: bool) -> str:
    """Return where the work is kept."""
    if folder is None:
        return "Every step is kept, from the first one on."
    if saved:
        return f"Every step is kept in {folder.name}."
    return "Every step is kept. Save it to find it again."


def describe_saving(left: int) -> str:
    """Return how many pieces of labels *Save* has yet to write."""
    pieces = count(left, "piece of the labels is", "pieces of the labels are")
    return f"Saving: {pieces} left."


def describe_read_only(reason: str) -> str:
    """Return that nothing can be written, and why."""
    return f"Read only. {reason} Save it under another name to go on with it."


def describe_opened(opened: Sequence[Annotation], folder: Path) -> str:
    """Return what a session that was opened has."""
    nuclei = sum(count_nuclei(a.prompts) for a in opened)
    images = count(len(opened), "image")
    return f"{folder.name}: {count(nuclei, 'nucleus', 'nuclei')} on {images}."


def describe_imported(annotation: Annotation, image: str = "", regions: int = 0) -> str:
    """Return what an import came to, and how many reviewed regions it took away.

    The image is named if there are several.
    """
    number = count_nuclei(annotation.prompts)
    nuclei = f"{count(number, 'nucleus', 'nuclei')} {'is' if number == 1 else 'are'}"
    text = f"{nuclei} {f'in {image}' if image else 'there'} now."
    if regions:
        text += f" {count(regions, 'reviewed region')} went with the nuclei before."
    return f"{text} Undo takes the import back."


def describe_exported(
    path: Path,
    waiting: int = 0,
    missing: int = 0,
    nuclei: int = 0,
    *,
    image: bool = True,
) -> str:
    """Return where something was written to, and what is not in it.

    Those are changes that wait for their masks, or ``missing`` of the ``nuclei``.
    Without their image nobody draws them.
    """
    again = "press Segment, and export again."
    if not image:
        again = f"open the image, {again}"
    if not waiting and 0 < missing == nuclei:
        return (
            f"Written to {path}, but no nucleus is in it, for none has a mask: {again}"
        )
    if not waiting and missing:
        lack = "has no mask and is" if missing == 1 else "have no mask and are"
        return f"Written to {path}. {missing:,} of {nuclei:,} nuclei {lack} not in it."
    if not waiting:
        return f"Written to {path}."
    changes = count(waiting, "change has no mask", "changes have no masks")
    return (
        f"Written to {path}. {changes} yet, and the file shows what was there before: "
        f"{again}"
    )


def _day(when: datetime, now: datetime) -> str:
    days = (now.date() - when.date()).days
    return {0: "today", 1: "yesterday"}.get(days, f"{when:%d %B %Y}")


def describe_cancelled(title: str) -> str:
    """Return what is said after Cancel."""
    return f"{title} was cancelled. Nothing was changed."


def describe_diameter(pixels: float, plane: ImagePlane) -> str:
    """Return how large nuclei are, also in the units of the layer."""
    text = f"Typical diameter: {pixels:.0f} pixels"
    unit = plane.layer.units[-1]
    if str(unit) == "pixel":
        return f"{text}."
    # of an image that is mirrored it is negative
    size = abs(float(plane.layer.scale[-1]))
    return f"{text} = {pixels * size:.3g} {unit:~P}."


def describe_other_model(drawn_by: str) -> str:
    """Return by which model nuclei were drawn, where another one is chosen."""
    return (
        f"Drawn by {drawn_by}. With the model chosen above, Segment draws anew all "
        "that was not accepted or painted."
    )


def describe_count(annotation: Annotation) -> str:
    """Return how many points are shown, and how many are hidden and why."""
    low = int((annotation.hidden.score < annotation.threshold).sum())
    # whatever their score, nothing comes in a region that was reviewed without them
    others = len(annotation.hidden) - low
    reasons = [f"{low:,} of a lower score"] if low else []
    reasons += [f"{others:,} because of a reviewed region"] if others else []
    text = f"{count(len(annotation.prompts), 'point')} shown"
    return f"{text}; hidden: {', '.join(reasons)}." if reasons else f"{text}."


def describe_elsewhere(there: ImagePlane) -> str:
    """Return where an image has nuclei, of which none is seen, and the way there."""
    places, ways, axis = [], [], there.channel_axis
    place = tuple(k for i, k in enumerate(there.index) if i != axis)
    if place:
        places.append(f"plane {_listed(place)}")
    if axis is not None:
        chosen = " and ".join(map(str, there.channels))
        shown = f"{there.index[axis]}, as shown"
        places.append(f"Channel {chosen or shown}")
        ways.append(f"choose {chosen or 'as shown'} under Channel")
    if there.position:
        sliders = "slider" if len(there.position) == 1 else "sliders"
        ways.append(f"move the {sliders} to {_listed(there.position)}")
    way = " and ".join(ways)
    return (
        f"This image has nuclei in {', '.join(places)}. "
        f"{way[:1].upper()}{way[1:]} to see them, or find nuclei here."
    )


def describe_found(found: Found, annotation: Annotation, image: str = "") -> str:
    """Return what finding nuclei came to, and in which image if that is not clear."""
    where = f" in {image}" if image else ""
    if len(found.prompts) == 0:
        return (
            f"No nuclei found{where}. Set the nucleus diameter, choose another "
            "channel, or add points by hand."
        )
    nuclei, hidden = count_nuclei(annotation.prompts), len(annotation.hidden)
    if nuclei == 0 and hidden:
        return (
            f"{count(hidden, 'nucleus', 'nuclei')} found{where}, all of a lower score "
            "than the minimum. Lower Minimum score to see them."
        )
    return (
        f"{count(nuclei, 'nucleus', 'nuclei')} found{where} "
        f"({_seconds(found.seconds)}). Press Segment, then correct."
    )


def describe_segmented(segmented: Segmented, *, semantic: bool, image: str = "") -> str:
    """Return what segmenting came to, and in which image if that is not clear."""
    took = _seconds(segmented.seconds)
    where = f" in {image}" if image else ""
    if semantic:
        return f"One mask of all nuclei{where} ({took})."
    nuclei = count(segmented.nuclei, "nucleus", "nuclei")
    total = len(segmented.masks)
    text = f"{nuclei} segmented{where} ({took})."
    if segmented.recomputed != total:
        text = (
            f"{nuclei} segmented{where}: {segmented.recomputed} computed, "
            f"{total - segmented.recomputed} unchanged ({took})."
        )
    without = count_nuclei(segmented.request.prompts) - segmented.nuclei
    if without <= 0:
        return text
    return f"{text} {count(without, 'nucleus', 'nuclei')} got no mask."


def _listed(index: tuple[int, ...]) -> str:
    return ", ".join(map(str, index))


def _seconds(stages: Mapping[str, float]) -> str:
    return f"{sum(stages.values()):.1f} s"
