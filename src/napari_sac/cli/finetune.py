"""``napari-sac finetune``: labelled images in, an adapter and its proof out."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.cli._options import adapter_or_folder, add_option, add_view_options
from napari_sac.cli._terminal import progress_line, say
from napari_sac.core.config import DEFAULT_MODEL, FinetuneConfig
from napari_sac.core.device import DEVICE_NAMES
from napari_sac.core.errors import TrainingDataError
from napari_sac.core.training.events import Stepped, Told, Validated, Working

if TYPE_CHECKING:
    import argparse

    from napari_sac.cli._options import Subparsers
    from napari_sac.core.training.events import Event
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.training.run import Job

_OPTIONS = {
    "rank": "--rank",
    "epochs": "--epochs",
    "max_minutes": "--max-minutes",
    "seed": "--seed",
    "batch_size": "--batch",
    "learning_rate": "--learning-rate",
    "blocks": "--blocks",
}
_FOLDERS = {
    "--reviewed": "masks of the same names: reviewed where they are not 0; by default "
    "all of every image",
    "--prompts": "STEM_prompts.csv for every image: nuclei still 'auto' count as "
    "unreviewed, rejected points and negative ones are learned from",
    "--val": "a folder with images and labels to compare on; by default a part of the "
    "training images is set aside",
    "--original": "a folder with images and labels that the model knows already: a "
    "tenth of the crops are of these, against forgetting",
}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "finetune",
        help="adapt a model to your own labelled images",
        description="Train an adapter on image and label files that pair by name, or "
        "on what was reviewed in sessions, compare it with what it came from on a part "
        "that is set aside, and write it to the output folder with report.json and "
        "report.html.",
    )
    for flag, what in (("--images", "images"), ("--labels", "labels")):
        parser.add_argument(flag, type=Path, metavar="DIR", help=f"folder of {what}")
    parser.add_argument(
        "--session",
        type=Path,
        nargs="+",
        default=[],
        metavar="NAME.sac",
        help="sessions: what was reviewed in them is learned from, instead of or "
        "beside --images and --labels",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the adapter and the report; give it to segment --adapter",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help=f"base model; by default the adapter's, or {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "--adapter",
        type=adapter_or_folder,
        metavar="NAME|DIR",
        help="go on from this adapter",
    )
    add_view_options(parser)
    for flag, words in _FOLDERS.items():
        parser.add_argument(flag, type=Path, metavar="DIR", help=words)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="train mask decoder and prompt generator only: about a minute",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --output"
    )
    parser.add_argument(
        "--device",
        choices=DEVICE_NAMES,
        default="auto",
        help="by default the fastest there is",
    )
    parser.add_argument("--title", default="", help="name of the adapter, for people")
    parser.add_argument("--tissue", default="", help="what the images show")
    for name, flag in _OPTIONS.items():
        add_option(parser, flag, FinetuneConfig, name)


def run(args: argparse.Namespace) -> int:
    """Fine-tune, say how it goes, return 0: also if the adapter was not promoted."""
    started = time.monotonic()
    problem = _find_problem(args)
    if problem:
        sys.stderr.write(f"napari-sac finetune: {problem}\n")
        return 2
    from napari_sac.core.training.fine_tuning import finetune
    from napari_sac.core.training.team import join_team

    team = join_team(args.device)
    outcome = finetune(
        _make_job(args), team, resume=args.resume, started=started, listen=_tell
    )
    if team.leads:
        report = outcome.report
        promoted = report["promoted"]
        verdict = "promoted" if promoted else "NOT promoted"
        sys.stdout.write(f"{verdict}: {report['reason']}\n")
        adapter = "adapter" if promoted else "adapter (not promoted)"
        sys.stderr.write(
            f"The {adapter}, report.html and report.json are in {args.output}. Use it "
            f"by: napari-sac segment --adapter {args.output.resolve()} ...\n"
        )
    return 0


def _find_problem(args: argparse.Namespace) -> str | None:
    if (args.images is None) != (args.labels is None):
        return "give --images and --labels together"
    if args.images is None and not args.session:
        return "give --images and --labels, or --session, or all three"
    if args.images is None and (args.reviewed or args.prompts):
        return "--reviewed and --prompts need --images and --labels"
    folders = (args.images, args.val, args.original)
    if (args.channels is not None or args.stain) and not any(folders):
        return (
            "--channels and --stain are for the images of --images, --val and "
            "--original; those of sessions are looked at as they were segmented"
        )
    if args.reviewed and args.prompts:
        return "give --reviewed or --prompts, not both"
    return None


def _make_job(args: argparse.Namespace) -> Job:
    from napari_sac.core.models.adapter import find_adapter
    from napari_sac.core.models.registry import licence_of
    from napari_sac.core.training.lineage import learned_by
    from napari_sac.core.training.run import Job
    from napari_sac.core.training.training_set import split, with_folder, without_known

    images = _read_images(args)
    parent = None if args.adapter is None else find_adapter(args.adapter)
    learned = learned_by(parent).nuclei
    data = (
        split(images, learned)
        if args.val is None
        else with_folder(images, _pairs(args.val, args), learned)
    )
    model = args.model
    if model is None:
        model = DEFAULT_MODEL if parent is None else parent.base
    original = () if args.original is None else _pairs(args.original, args)
    others = without_known(original, (*images, *data.held_out))
    if len(others) < len(original):
        say(
            f"{len(original) - len(others)} of the {len(original)} images of "
            "--original are among those to learn from or to compare on, and are left "
            "out."
        )
    values = {name: getattr(args, name) for name in _OPTIONS}
    return Job(
        model=model,
        adapter=args.adapter,
        data=data,
        output=args.output,
        config=FinetuneConfig(quick=args.quick, **values),
        original=others,
        title=args.title,
        tissue=args.tissue,
        licence=licence_of(model, args.adapter),
    )


def _read_images(args: argparse.Namespace) -> tuple[ReviewedImage, ...]:
    from napari_sac.core.training.reviewed_image import read_reviewed
    from napari_sac.core.training.session_data import read_reviewed_session

    images: list[ReviewedImage] = []
    if args.images is not None:
        images += read_reviewed(
            args.images,
            args.labels,
            reviewed=args.reviewed,
            prompts=args.prompts,
            channels=args.channels,
            stain=args.stain,
        )
    for session in args.session:
        images += read_reviewed_session(session)
    return tuple(images)


def _pairs(folder: Path, args: argparse.Namespace) -> tuple[ReviewedImage, ...]:
    from napari_sac.core.training.reviewed_image import read_reviewed

    # pathlib raises where one may not look
    if not all(os.path.isdir(folder / name) for name in ("images", "labels")):
        raise TrainingDataError(
            f"{folder} needs the subfolders images and labels, with files of the same "
            "names, where you may look. Nothing was changed."
        )
    return read_reviewed(
        folder / "images", folder / "labels", channels=args.channels, stain=args.stain
    )


def _tell(event: Event) -> None:
    """Write what happens: sentences and validations a line each, the rest in place."""
    shown = sys.stderr.isatty()
    clear = "\x1b[K" if shown else ""
    if isinstance(event, Told):
        sys.stderr.write(f"{event.text}{clear}\n")
    elif isinstance(event, Validated):
        scores = event.scores
        best = ", the best so far" if event.best else ""
        sys.stderr.write(
            f"step {event.step}: held out f1 {scores.f1:.3f} pq {scores.pq:.3f} "
            f"aji {scores.aji:.3f} dice {scores.dice:.3f}{best}{clear}\n"
        )
    elif isinstance(event, Stepped) and shown:
        sys.stderr.write(
            f"step {event.step}/{event.steps}, loss {event.row['loss']:.3f}, "
            f"{event.seconds_left:.0f} s left{clear}\r"
        )
    elif isinstance(event, Working):
        progress_line()(event.stage, event.done, event.total)
    sys.stderr.flush()
