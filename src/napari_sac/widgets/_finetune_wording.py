"""The sentences of the dock *Fine-tune*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.core.progress import count, format_bytes
from napari_sac.core.training.run_folder import Phase
from napari_sac.viewer.finetuning import Problem
from napari_sac.widgets._wording import describe_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sac.core.training.run_folder import RunStatus
    from napari_sac.viewer.finetuning import Counts, Verdict

WHAT_COUNTS = (
    "Nuclei that you accepted, added, moved, painted or drew a reviewed region around "
    "count as reviewed. All others, also imported labels that you did not look at, are "
    "left out: they count neither as nuclei nor as background."
)
NOTHING_LISTED = (
    "Find nuclei in the dock Segment nuclei and review some, or add a session or a "
    "folder with labels."
)
NOTHING_CHECKED = "Tick what to learn from."
NO_NUCLEUS = (
    "There is no reviewed nucleus yet. Accept or correct some nuclei, or draw a "
    "reviewed region around them."
)
FEW_NUCLEI = (
    "With fewer than four nuclei nothing can be held out, so nothing shows whether it "
    "helped."
)
QUICK = "Mask decoder and prompt generator learn: about a minute."
FULL = "The image encoder learns too (LoRA): minutes to an hour."
EXAMPLE = "An example of what is held out:"
CONFIDENCE = "Below each score: where it lies with 95 % confidence."
NOTHING_YET = "The curves begin with the first steps."
GOES_ON_ELSEWHERE = "It was taken up again elsewhere and goes on. Nothing was deleted."
DISCARD_RUN = "Delete this run for good? What it has learned goes."

CLOSING = "Fine-tuning of {} is still going on."
CLOSING_WAYS = (
    "It can go on without the window; open the dock again to see what came of it."
)
CLOSING_PAUSED = "Fine-tuning of {} is paused, and stays so without the window."
CLOSING_PAUSED_WAYS = "Open the dock again to let it go on."
GOES_ON = (
    "Fine-tuning of {} goes on without its dock. Open the dock again to see how it "
    "does, or to stop it."
)
STAYS_PAUSED = "Fine-tuning of {} stays paused. Open the dock again to let it go on."

_PROBLEMS = {
    Problem.NO_IMAGE: "its image was deleted",
    Problem.NOT_SEGMENTED: "no masks yet: press Segment",
    Problem.NOT_REVIEWED: "nothing reviewed yet",
    Problem.SEMANTIC: "one mask of all nuclei: Segment in instance mode",
}
_PHASES = {
    Phase.STARTING: "Getting ready: looks at the held-out part, measures one step ...",
    Phase.TRAINING: "Learning.",
    Phase.PAUSED: "Paused.",
    Phase.COMPARING: "Comparing with the model that it started from ...",
    Phase.FINISHED: "Finished.",
    Phase.CANCELLED: "Cancelled.",
    Phase.FAILED: "Stopped by an error.",
}


def describe_counts(counts: Counts) -> str:
    """Return what can be learned from something, or why nothing."""
    if counts.problem is not None:
        return _PROBLEMS[counts.problem]
    parts = [count(counts.nuclei, "nucleus", "nuclei")]
    if counts.images > 1:
        parts[0] += f" on {counts.images} images"
    if counts.rejected:
        parts.append(f"{counts.rejected:,} rejected")
    if counts.negatives:
        parts.append(count(counts.negatives, "negative point"))
    if counts.regions:
        parts.append(count(counts.regions, "reviewed region"))
    return ", ".join(parts)


def describe_total(chosen: Sequence[Counts]) -> str:
    """Return what all that is ticked comes to."""
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.training.training_set import FEWEST_TO_SPLIT

    nuclei = sum(counts.nuclei for counts in chosen)
    images = sum(counts.images for counts in chosen)
    total = f"{count(nuclei, 'nucleus', 'nuclei')} of {count(images, 'image')}"
    if nuclei < FEWEST_TO_SPLIT:
        return f"Learns from {total}."
    return f"Learns from {total}, of which about a fifth is set aside as proof."


def describe_lagging(nuclei: int) -> str:
    """Return that masks do not follow yet what was changed."""
    return (
        f"The masks of {count(nuclei, 'nucleus', 'nuclei')} lag behind their points, "
        "and would be learned as they were. Wait a moment, or press Segment."
    )


def describe_start(model: str) -> str:
    """Return which model the training goes on from."""
    return (
        f"Goes on from {model}, as chosen in Segment nuclei. That one stays "
        "as it is; what is learned becomes a new adapter."
    )


def describe_phase(status: RunStatus | None) -> str:
    """Return what a run is doing."""
    if status is None:
        return _PHASES[Phase.STARTING]
    if status.stage and status.phase in (Phase.STARTING, Phase.COMPARING):
        return f"{status.stage[:1].upper()}{status.stage[1:]}."
    return _PHASES[status.phase]


def describe_lost(status: RunStatus | None) -> str:
    """Return that a run ended without a word, and what is left of it."""
    ended = (
        "The training ended without a word: killed, the computer went off, or the disk "
        "is full. Copy report has what it said last. "
    )
    if status is None or status.step == 0:
        return ended + "It had learned nothing yet; Go on starts it again."
    return (
        f"{ended}It was at step {status.step} of {status.steps}. Go on takes it up at "
        "its last checkpoint."
    )


def describe_steps(status: RunStatus) -> str:
    """Return how far a run is, and how long it will take."""
    if status.steps == 0:
        return ""
    text = f"Step {status.step:,} of {status.steps:,}"
    left = status.seconds_left
    if status.phase in (Phase.TRAINING, Phase.PAUSED) and left:
        text += f", about {describe_time(left)} left"
    return text + "."


def describe_machine(status: RunStatus) -> str:
    """Return where a run computes, and how much memory it takes now."""
    if not status.device:
        return ""
    if status.memory_bytes <= 0:
        return f"{status.device}."
    return f"{status.device}, takes {format_bytes(status.memory_bytes)} of memory."


def describe_wish(*, stopping: bool) -> str:
    """Return what is being waited for after a button was pressed."""
    return "Stopping after this step ..." if stopping else "Cancelling ..."


def describe_found_run(
    name: str, *, alive: bool, paused: bool, finished: bool, more: int
) -> str:
    """Return the offer to look at a run that is not watched."""
    if finished:
        text = f"The fine-tuning {name} has finished."
    elif alive:
        text = f"The fine-tuning {name} is {'paused' if paused else 'going on'}."
    else:
        text = f"The fine-tuning {name} was ended before it had finished."
    return f"{text} And there {_are(more)}." if more else text


def describe_verdict(verdict: Verdict) -> str:
    """Return whether an adapter was promoted."""
    if verdict.promoted and verdict.may_be_chance:
        return "It seems to help, but that may be chance: the new adapter is promoted."
    if verdict.promoted:
        return "It helped: the new adapter is promoted."
    return "It did not help: the new adapter is not promoted."


def describe_gain(verdict: Verdict) -> str:
    """Return how many nuclei were gained and lost."""
    if not verdict.nuclei:
        return ""
    nuclei = count(verdict.nuclei, "held-out nucleus", "held-out nuclei")
    return f"Of {nuclei}, {verdict.gained} gained and {verdict.lost} lost."


def describe_used(name: str) -> str:
    """Return that an adapter is used now."""
    return f"Segment nuclei uses {name} now."


def describe_not_used(name: str) -> str:
    """Return that an adapter is there and not used."""
    return f"{name} is kept in the list of adapters, and not used."


def describe_cancelled_run(name: str) -> str:
    """Return what is said after a run was cancelled."""
    return f"Fine-tuning of {name} was cancelled. Nothing was changed."


def describe_started(folder: Path) -> str:
    """Return what is said when a run has started."""
    return f"{folder.name} learns in a program of its own. Go on working meanwhile."


def _are(more: int) -> str:
    return "is one more" if more == 1 else f"are {more} more"
