"""The sentences of the dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sac.viewer.prompts import count_nuclei

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.viewer.inference import Found, Segmented
    from napari_sac.viewer.planes import ImagePlane

NO_IMAGE = "Open an image first, or a sample: File > Open Sample > Segment Any Cell."
NO_POINTS = "Find nuclei first."
IMAGE_GONE = (
    "The image was removed while the work was going on, so the result was dropped. "
    "Other layers were kept."
)
POINTS_GONE = (
    "The points were removed while the work was going on, so the labels were dropped. "
    "Find nuclei to start again."
)


def describe_cancelled(title: str) -> str:
    """Return what is said after Cancel."""
    return f"{title} was cancelled. Nothing was changed."


def describe_diameter(pixels: float, plane: ImagePlane) -> str:
    """Return how large nuclei are, also in the units of the layer."""
    text = f"Measured: {pixels:.0f} pixels"
    unit = plane.layer.units[-1]
    if str(unit) == "pixel":
        return f"{text}."
    return f"{text} = {pixels * float(plane.layer.scale[-1]):.3g} {unit:~P}."


def describe_count(annotation: Annotation) -> str:
    """Return how many points are shown, and how many the slider hides."""
    shown, hidden = len(annotation.prompts), len(annotation.hidden)
    return f"{_count(shown, 'point')} shown, {hidden} hidden by this score."


def describe_found(found: Found, annotation: Annotation) -> str:
    """Return what finding nuclei came to."""
    if len(found.prompts) == 0:
        return (
            "No nuclei found. Set the nucleus diameter, choose another channel, "
            "or add points by hand."
        )
    return (
        f"{_count(count_nuclei(annotation.prompts), 'nucleus', 'nuclei')} found "
        f"({_seconds(found.seconds)}). Correct the points, then press Segment."
    )


def describe_segmented(segmented: Segmented, *, semantic: bool) -> str:
    """Return what segmenting came to."""
    took = _seconds(segmented.seconds)
    if semantic:
        return f"One mask of all nuclei ({took})."
    nuclei = _count(segmented.nuclei, "nucleus", "nuclei")
    total = len(segmented.masks)
    if segmented.recomputed == total:
        return f"{nuclei} segmented ({took})."
    return (
        f"{nuclei} segmented: {segmented.recomputed} computed, "
        f"{total - segmented.recomputed} unchanged ({took})."
    )


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _seconds(stages: Mapping[str, float]) -> str:
    return f"{sum(stages.values()):.1f} s"
