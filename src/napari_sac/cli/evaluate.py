"""``napari-sac evaluate``: how good predicted labels are against true ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.cli._terminal import progress_line

if TYPE_CHECKING:
    import argparse

    from napari_sac.cli._options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "evaluate",
        help="compare predicted labels with true ones",
        description="Compare label files of two folders, paired by name (a prediction "
        "may end in _labels). Prints dice, iou, aji, pq, dq, sq, ap50, ap "
        "(mean over IoU 0.5 to 0.95) and f1 of each image, and their mean.",
    )
    parser.add_argument(
        "--prediction",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of predicted labels, as segment writes them",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of true labels, TIFF or PNG",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the scores here"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table of scores, write the JSON if asked for, return 0."""
    from napari_sac.core.evaluation.report import (
        evaluate_folders,
        format_table,
        write_json,
    )

    report = evaluate_folders(args.prediction, args.truth, progress_line())
    try:
        # what is kept first: a terminal may not know the letters of a name
        if args.json is not None:
            write_json(args.json, report)
    finally:
        sys.stdout.write(format_table(report))
    return 0
