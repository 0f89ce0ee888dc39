"""``napari-sac replay``: a session in, its labels computed again out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.cli._precious import find_precious
from napari_sac.cli._terminal import make_folder, progress_line
from napari_sac.core.device import DEVICE_NAMES
from napari_sac.core.errors import OutputError
from napari_sac.core.folders import remove_left_over
from napari_sac.core.names import LABELS_FILE, PROMPTS_FILE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from napari_sac.cli._options import Subparsers
    from napari_sac.core.models.registry import Model
    from napari_sac.core.session.image import ImageReference

# the labels last: where they are, the prompts are too
_ENDINGS = (PROMPTS_FILE, LABELS_FILE)
_MARK = "session"
"""In what labels say of what made them: those of a replay, which may be replaced."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "replay",
        help="compute a session again",
        description="Compute the labels of a session again from its images, prompts "
        "and settings. Writes IMAGE_labels.tif and IMAGE_prompts.csv for every image, "
        "and says whether the labels are those in the session. The session is not "
        "changed.",
    )
    parser.add_argument(
        "session", type=Path, metavar="SESSION", help="a session folder, NAME.sac"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results; it is made if need be",
    )
    parser.add_argument(
        "--device",
        choices=DEVICE_NAMES,
        default="auto",
        help="by default the fastest there is; another device than the session was "
        "made on may give a few other pixels",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace also what may be somebody's work: files of these names beside "
        "the session or its images, and labels that this command did not write",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 if labels differ from those in the session",
    )


def run(args: argparse.Namespace) -> int:
    """Replay the session; return 1 if ``--check`` finds a difference, else 0."""
    from napari_sac.core.folders import files_together
    from napari_sac.core.io import read_pixel_size, write_labels, write_prompts
    from napari_sac.core.models.registry import load_model
    from napari_sac.core.session.replay import replay

    def load(name: str, *, adapter: str | None) -> Model:
        return load_model(
            name, adapter=adapter, device=args.device, progress=progress_line()
        )

    stems: dict[int, str] = {}

    def begin(images: Mapping[int, ImageReference]) -> None:
        stems.update(_stems(images))
        make_folder(args.output)
        remove_left_over(args.output)
        if not args.overwrite:
            _spare_work(args, stems.values(), images.values())

    different = False
    for result in replay(
        args.session, load=load, begin=begin, progress=progress_line()
    ):
        stem = stems[result.number]
        names = [f"{stem}{ending}" for ending in _ENDINGS]
        path = result.image.path
        size = None if path is None else read_pixel_size(path)
        with files_together(args.output, names) as partial:
            prompts, labels = (partial / name for name in names)
            write_prompts(prompts, result.state.prompts)
            made_by = {_MARK: args.session.name}
            write_labels(labels, result.labels, made_by, pixel_size=size)
        pixels = result.different_pixels
        different = different or pixels > 0
        verdict = f"{pixels:,} pixels differ from" if pixels else "identical to"
        sys.stdout.write(f"{stem}: {verdict} the labels in the session\n")
        sys.stdout.flush()
    return 1 if args.check and different else 0


def _spare_work(
    args: argparse.Namespace, stems: Iterable[str], images: Iterable[ImageReference]
) -> None:
    """Raise ``OutputError`` if what may be a person's work would be written over."""
    given = [Path(image.path) for image in images if image.path is not None]
    targets = [args.output / f"{stem}{e}" for stem in stems for e in _ENDINGS]
    found = find_precious(targets, [args.session, *given], _MARK)
    if found is not None:
        target, why = found
        raise OutputError(
            f"{target} is there already, {why}. Nothing was written; choose another "
            "--output, or --overwrite if it may be replaced."
        )


def _stems(images: Mapping[int, ImageReference]) -> dict[int, str]:
    """Return a file name for each image, made safe, and numbered if there are many."""
    from napari_sac.core.io import IMAGE_SUFFIXES, safe_name

    stems = {}
    for number, image in images.items():
        # as a layer is called; napari has cut the ending of the file already
        name = image.name.replace("\\", "/").rpartition("/")[2]
        if name.lower().endswith(IMAGE_SUFFIXES):
            name = name[: name.rindex(".")]
        stem = safe_name(name)
        stems[number] = stem if len(images) == 1 else f"{number}_{stem}"
    return stems
