"""``napari-sac segment``: images in, labels and prompts out."""

from __future__ import annotations

import argparse
import glob
import itertools
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sac.cli._options import adapter_or_folder, add_option, add_view_options
from napari_sac.cli._precious import find_precious
from napari_sac.cli._terminal import (
    describe_error,
    make_folder,
    progress_line,
    say,
)
from napari_sac.core.config import DEFAULT_MODEL, DecodeConfig, ProposalConfig
from napari_sac.core.device import DEVICE_NAMES, is_out_of_memory
from napari_sac.core.errors import (
    ImageFormatError,
    LabelFormatError,
    NapariSacError,
)
from napari_sac.core.folders import identity_of, remove_left_over
from napari_sac.core.names import (
    LABELS_ENDING,
    LABELS_FILE,
    OME_ZARR_FOLDER,
    OUTLINES_FILE,
    POINTS_FILES,
    PROMPTS_FILE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from napari_sac.cli._options import Subparsers
    from napari_sac.core.inference.segment import Segmentation
    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.models.registry import Model
    from napari_sac.core.progress import Progress
    from napari_sac.core.types import Prompts

_EXPORTS = {"geojson": OUTLINES_FILE, "ome-zarr": OME_ZARR_FOLDER}
_DECODE_OPTIONS = {"mode": "--mode"}
_PROPOSAL_OPTIONS = {"strategy": "--strategy", "score_threshold": "--threshold"}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "segment",
        help="find and segment the nuclei of images",
        description="Write STEM_labels.tif (0 background, one number a nucleus) and "
        "STEM_prompts.csv (object_id,y,x,sign,score,state) for every image.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="an image, a folder of images, or a pattern such as images/*.tif",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results; it is made if need be",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace also what may be somebody's work: results beside the images, and "
        "labels that this command did not write; others are replaced anyway",
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out images whose results are all in the output already, such as of "
        "a run that was stopped",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="as 'napari-sac models' lists them; by default the one that the adapter "
        f"was trained on, or {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "--adapter",
        type=adapter_or_folder,
        metavar="NAME|DIR",
        help="a fine-tuned adapter, such as he",
    )
    parser.add_argument(
        "--device",
        choices=DEVICE_NAMES,
        default="auto",
        help="by default the fastest there is",
    )
    parser.add_argument(
        "--diameter",
        type=_positive,
        metavar="PIXELS",
        help="typical diameter of a nucleus; by default measured in each image",
    )
    add_view_options(parser)
    parser.add_argument(
        "--export",
        action="append",
        choices=_EXPORTS,
        default=[],
        help="also write STEM.geojson (outlines for QuPath) or STEM.ome.zarr (image "
        "and labels); may be given twice",
    )
    parser.add_argument(
        "--points",
        type=Path,
        metavar="DIR|CSV",
        help="a table with columns y and x, or a folder with STEM_points.csv, STEM.csv "
        "or STEM_prompts.csv for every image: segment the nuclei at these points, find "
        "no others",
    )
    for name, flag in _DECODE_OPTIONS.items():
        add_option(parser, flag, DecodeConfig, name)
    for name, flag in _PROPOSAL_OPTIONS.items():
        add_option(parser, flag, ProposalConfig, name)


def run(args: argparse.Namespace) -> int:
    """Segment every image; return 1 if one failed, 2 if the arguments make no sense."""
    files = _list_files(args.inputs)
    todo = [f for f in files if not (args.skip_existing and _is_done(f, args))]
    problem = _find_problem(files, todo, args)
    if problem:
        say(f"napari-sac segment: {problem}")
        return 2
    done = sorted(set(files) - set(todo))
    if done:
        end = "" if todo else ", so nothing is left to do"
        say(
            f"left out {len(done)} of {len(files)} images: their results are in "
            f"{args.output} already{end}"
        )
        _warn_of_other_makers(done, args)
    if not todo:
        return 0
    make_folder(args.output)
    remove_left_over(args.output)
    failed = _segment_files(todo, len(files), args)
    if failed:
        some = len(failed) < len(todo)
        others = f" The others are in {args.output}." if some else ""
        say(
            f"napari-sac segment: {len(failed)} of {len(todo)} images failed: "
            f"{', '.join(map(str, failed))}.{others}"
        )
    return 1 if failed else 0


def _is_done(file: Path, args: argparse.Namespace) -> bool:
    """Return whether all results of an image are there, also the exports asked for."""
    return len(_results(file, args)) == len(_endings(args.export))


def _describe_stop(
    total: int, failed: Sequence[Path], left: Sequence[Path], args: argparse.Namespace
) -> str:
    """Return how far a run came that was stopped, and how to go on with it."""
    said = f"stopped. {total - len(left)} of {total} images are done"
    if failed:
        said += f", {len(failed)} failed: {', '.join(map(str, failed))}"
    said += ". The same line with --skip-existing goes on from there"
    old = sum(_is_done(file, args) for file in left)
    if old:
        said += (
            f", but leaves out {old} more, whose results of an earlier run are in "
            f"{args.output}"
        )
    return f"{said}."


def _warn_of_other_makers(done: Sequence[Path], args: argparse.Namespace) -> None:
    """Say which labels that are there were not made as it is asked for now."""
    from napari_sac.core.io import read_made_by

    name, adapter = _choose_model(args)
    asked = {
        "model": name,
        "adapter": adapter and adapter.name,
        "mode": args.mode,
        "flags": _flags_given(args),
    }
    wanted = _describe_maker(asked)
    others: dict[str, list[str]] = {}
    for file in done:
        labels = args.output / f"{file.stem}{LABELS_FILE}"
        maker = _describe_maker(read_made_by(labels))
        if maker != wanted:
            others.setdefault(maker, []).append(labels.name)
    for maker, names in others.items():
        say(
            f"warning: {len(names)} of them {'was' if len(names) == 1 else 'were'} "
            f"made by {maker}, and not by {wanted}, such as {names[0]}"
        )


def _describe_maker(made_by: Mapping[str, Any]) -> str:
    if "model" not in made_by:
        return "something that they do not name"
    adapter = made_by.get("adapter")
    beside = f"with {adapter}" if adapter else "without adapter"
    maker = f"{made_by['model']} {beside} in {made_by.get('mode')} mode"
    flags = made_by.get("flags")
    return f"{maker} and {flags}" if flags else maker


def _flags_given(args: argparse.Namespace) -> str:
    """Return what was asked for, beside model and mode, that alters the nuclei."""
    usual = ProposalConfig()
    given = {
        flag: getattr(args, name)
        for name, flag in _PROPOSAL_OPTIONS.items()
        if getattr(args, name) != getattr(usual, name)
    }
    given["--diameter"] = args.diameter
    given["--channels"] = args.channels and ",".join(map(str, args.channels))
    given["--stain"] = args.stain
    words = [f"{flag} {value}" for flag, value in given.items() if value is not None]
    # each image has a table of its own
    return " ".join([*words, *(["--points"] if args.points is not None else [])])


def _segment_files(
    todo: Sequence[Path], total: int, args: argparse.Namespace
) -> list[Path]:
    """Write the results of every image, and return the images that failed.

    Of Ctrl+C it raises ``KeyboardInterrupt`` with what to say of it.
    """
    model = _load(args)
    failed: list[Path] = []
    for i, file in enumerate(todo):
        heading = f"[{i + 1}/{len(todo)}] {file.name}"
        before = _results(file, args)
        try:
            outcome = _segment_file(file, args, model, progress_line(heading))
        # torch raises RuntimeError where memory is short; the next image may be small
        except (NapariSacError, MemoryError, RuntimeError) as error:
            if args.debug:
                traceback.print_exc()
            failed.append(file)
            outcome = f"FAILED: {_describe_failure(error)}"
            kept = before & _results(file, args)
            if kept:
                outcome += (
                    " The earlier results are still there, not of this run: "
                    f"{', '.join(sorted(name for name, _ in kept))}."
                )
        except KeyboardInterrupt:
            left = [*failed, *todo[i:]]
            raise KeyboardInterrupt(_describe_stop(total, failed, left, args)) from None
        say(f"{heading}: {outcome}")
    return failed


def _results(file: Path, args: argparse.Namespace) -> set[tuple[str, Any]]:
    """Return the results of an image that are there, each with what identifies it."""
    names = [f"{file.stem}{ending}" for ending in _endings(args.export)]
    found = ((name, identity_of(args.output / name)) for name in names)
    return {(name, identity) for name, identity in found if identity is not None}


def _describe_failure(error: Exception) -> str:
    if is_out_of_memory(error):
        return (
            "it needs more memory than there is. Crop the image, close other programs, "
            "or choose a smaller --model or --device cpu."
        )
    return describe_error(error) or type(error).__name__


def _choose_model(args: argparse.Namespace) -> tuple[str, AdapterInfo | None]:
    """Return the name of the model, and the adapter."""
    from napari_sac.core.models.adapter import find_adapter

    adapter = None if args.adapter is None else find_adapter(args.adapter)
    return args.model or (adapter.base if adapter else DEFAULT_MODEL), adapter


def _load(args: argparse.Namespace) -> Model:
    from napari_sac.core.models.registry import load_model

    name, _ = _choose_model(args)
    model = load_model(
        name, adapter=args.adapter, device=args.device, progress=progress_line(name)
    )
    adapter = f" with {model.adapter.name}" if model.adapter else ""
    device = model.device
    say(f"{name}{adapter} on {device.title} ({device.name}: {device.reason})")
    if model.adapter and not model.adapter.promoted:
        say(
            f"warning: the adapter {model.adapter.name} was not promoted: nothing "
            "shows that it is better than what it was made from"
        )
    return model


def _segment_file(
    file: Path, args: argparse.Namespace, model: Model, progress: Progress
) -> str:
    """Write the results of one image and return what was found, in words."""
    from napari_sac.core.folders import files_together
    from napari_sac.core.io import (
        normalise_image,
        read_image,
        read_pixel_size,
        write_labels,
        write_prompts,
    )

    start = time.perf_counter()
    _check_exports(args.output / file.stem, args.export)
    pixels = read_image(file, separate=args.channels is not None)
    image = normalise_image(pixels, args.channels, stain=args.stain)
    found = _segment(image, file.stem, args, model, progress)
    # one mask of all nuclei has the score of none
    known = found.prompts if args.mode == "instance" else None
    nuclei = _count(found.labels) if args.mode == "instance" else None
    made_by = {
        "model": model.spec.name,
        "adapter": model.adapter.name if model.adapter else None,
        "mode": args.mode,
        "flags": _flags_given(args),
        "diameter_px": round(found.diameter, 2),
        "nuclei": nuclei,
    }
    endings = _endings(args.export)
    with files_together(args.output, [f"{file.stem}{e}" for e in endings]) as partial:
        size = read_pixel_size(file)
        _export(partial / file.stem, image, found.labels, known, args.export, size)
        write_prompts(partial / f"{file.stem}{PROMPTS_FILE}", found.prompts)
        labels = partial / f"{file.stem}{LABELS_FILE}"
        write_labels(labels, found.labels, made_by, pixel_size=size)
        # it took long: somebody may have put another folder there
        _check_exports(args.output / file.stem, args.export)
    seconds = time.perf_counter() - start
    return f"{_describe(found, nuclei)}, {seconds:.1f} s"


def _segment(
    image: npt.NDArray[np.uint8],
    stem: str,
    args: argparse.Namespace,
    model: Model,
    progress: Progress,
) -> Segmentation:
    """Return the nuclei at the points given, or those that the model finds."""
    from napari_sac.core.inference.segment import segment_image, segment_points
    from napari_sac.core.io import read_points

    decoding = DecodeConfig(**{name: getattr(args, name) for name in _DECODE_OPTIONS})
    if args.points is not None:
        points = read_points(_points_file(args.points, stem))
        return segment_points(
            image, points, model, decoding, diameter=args.diameter, progress=progress
        )
    proposing = {name: getattr(args, name) for name in _PROPOSAL_OPTIONS}
    return segment_image(
        image,
        model,
        ProposalConfig(**proposing),
        decoding,
        diameter=args.diameter,
        progress=progress,
    )


def _points_file(points: Path, stem: str) -> Path:
    """Return the table of an image's points."""
    (found,) = _points_files(points, [stem])
    if found is None:
        names = [f"{stem}{ending}" for ending in POINTS_FILES]
        raise LabelFormatError(
            f"There are no points for it: {points} has neither {' nor '.join(names)}."
        )
    return found


def _points_files(points: Path, stems: Sequence[str]) -> list[Path | None]:
    """Return the table of points of each image, None where there is none."""
    from napari_sac.core.datasets.pairs import find_tables

    # pathlib raises where one may not look
    if not os.path.isdir(points):
        return [points] * len(stems)
    return find_tables(points, stems, POINTS_FILES)


def _endings(formats: Iterable[str]) -> list[str]:
    """Return what comes behind the names of the results, in the order of writing."""
    # the labels last: where they are, the rest is too
    exported = dict.fromkeys(_EXPORTS[name] for name in formats)
    return [*exported, PROMPTS_FILE, LABELS_FILE]


def _check_exports(path: Path, formats: Iterable[str]) -> None:
    """Raise ``OutputError`` before the work if what is there may not be replaced."""
    if "ome-zarr" in formats:
        from napari_sac.core.ome_zarr import check_replaceable

        check_replaceable(path.with_name(f"{path.name}{_EXPORTS['ome-zarr']}"))


def _export(
    path: Path,
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint32],
    prompts: Prompts | None,
    formats: Iterable[str],
    size: tuple[float, float] | None,
) -> None:
    """Write the labels in further formats, beside ``path`` with other endings."""
    if "geojson" in formats:
        from napari_sac.core.geojson import write_geojson

        file = path.with_name(f"{path.name}{_EXPORTS['geojson']}")
        write_geojson(file, labels, prompts)
    if "ome-zarr" in formats:
        from napari_sac.core.ome_zarr import write_ome_zarr

        folder = path.with_name(f"{path.name}{_EXPORTS['ome-zarr']}")
        write_ome_zarr(folder, labels, prompts, image=image, pixel_size=size)


def _count(labels: npt.NDArray[np.uint32]) -> int:
    from napari_sac.core.labels import consecutive_labels

    _, ids = consecutive_labels(labels)
    return len(ids)


def _describe(found: Segmentation, nuclei: int | None) -> str:
    if nuclei is None:
        return f"{(found.labels > 0).mean():.1%} of the image is nuclei"
    return f"{nuclei} nuclei of about {found.diameter:.0f} pixels"


def _list_files(inputs: Iterable[Path]) -> list[Path]:
    """Return the image files, each once."""
    files: dict[Path, Path] = {}
    for place in itertools.chain.from_iterable(map(_matching, inputs)):
        for file in _images_in(place) if os.path.isdir(place) else [place]:
            # not Path.resolve, which stops at links that lead to themselves
            files.setdefault(Path(os.path.realpath(file)), file)
    return list(files.values())


def _is_pattern(place: Path) -> bool:
    return bool(set("*?") & set(str(place))) and not os.path.lexists(place)


def _matching(place: Path) -> list[Path]:
    """Return what a pattern stands for, which shells of Windows hand on as it is."""
    if not _is_pattern(place):
        return [place]
    # brackets are often part of a name
    found = sorted(glob.glob(str(place).replace("[", "[[]")))
    return [Path(name) for name in found] or [place]


def _images_in(folder: Path) -> list[Path]:
    """Return the images of a folder; say which of its files are left out."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageFormatError(
            f"The folder {folder} cannot be read ({error.strerror}). "
            "Nothing was segmented; choose another."
        ) from error
    images = []
    for file in entries:
        reason = _why_no_image(file)
        if reason is None:
            images.append(file)
        elif not file.name.startswith("."):
            say(f"left out {file}: {reason}")
    return images


def _why_no_image(file: Path) -> str | None:
    from napari_sac.core.io import IMAGE_SUFFIXES

    if os.path.isdir(file):
        return "a folder in a folder"
    if file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
        return "not an image by its name"
    return "labels by its name" if file.stem.endswith(LABELS_ENDING) else None


def _find_problem(
    files: Sequence[Path], todo: Sequence[Path], args: argparse.Namespace
) -> str | None:
    """Return why these files cannot be segmented together, or None."""
    from napari_sac.core.datasets.pairs import composed_name

    points = args.points
    nothing = [str(file) for file in files if _is_pattern(file)]
    if nothing or not files:
        there = f"nothing is there that is called like {' or '.join(nothing)}"
        return there if nothing else "there is no image in the folders given"
    if points is not None and not _may_look(points):
        return (
            f"{points} is not there, or you may not look into it. Give --points a "
            "table, or a folder of tables"
        )
    if points is not None and not os.path.isdir(points) and len(files) > 1:
        return (
            "one table of points cannot be that of several images. Give --points the "
            "folder with a table for each of them"
        )
    proposing = {name: getattr(args, name) for name in _PROPOSAL_OPTIONS}
    if points is not None and ProposalConfig(**proposing) != ProposalConfig():
        flags = " and ".join(_PROPOSAL_OPTIONS.values())
        return f"{flags} are for points that are found, and --points gives them"
    stems: dict[str, Path] = {}
    for file in files:
        # some file systems do not tell a.png from A.png, or two spellings of an accent
        other = stems.setdefault(composed_name(file.stem).casefold(), file)
        if other is not file:
            return (
                f"{other} and {file} would both be written as {file.stem}{LABELS_FILE}"
                ". Rename one, or segment them into different folders."
            )
    return _find_precious(files, todo, args)


def _may_look(place: Path) -> bool:
    """Return whether a file is there, or a folder of which the files can be seen."""
    inside = os.path.join(place, os.curdir) if os.path.isdir(place) else place
    return os.path.exists(inside)


def _find_precious(
    files: Sequence[Path], todo: Sequence[Path], args: argparse.Namespace
) -> str | None:
    """Return what would be written over that is read or precious, or None."""
    given = list(files)
    if args.points is not None:
        tables = _points_files(args.points, [file.stem for file in files])
        given += [table for table in tables if table is not None]
    read = {identity_of(file) for file in given} - {None}
    endings = _endings(args.export)
    targets = [args.output / f"{file.stem}{e}" for file in todo for e in endings]
    for target in targets:
        if identity_of(target) in read:
            return (
                f"{target} is given to read and would be written over. Choose "
                "another --output."
            )
    found = None if args.overwrite else find_precious(targets, given, "model")
    if found is None:
        return None
    target, why = found
    choice = ", --skip-existing to leave out images that have all their results,"
    if args.skip_existing:
        why += "; its image lacks some of the results asked for"
        choice = ""
    return (
        f"{target} is there already, {why}. Choose another --output{choice} or "
        "--overwrite if it may be replaced."
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
