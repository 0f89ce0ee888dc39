"""The command ``napari-sac``: reads the arguments and calls the command's module.

Exit status: 0 done, 1 failed with one line on stderr, 2 wrong arguments, 130 stopped
by Ctrl+C. A command's module has ``add_parser(subparsers)`` and ``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

from napari_sac import __version__
from napari_sac.cli import demo, doctor, evaluate, finetune, models, replay, segment
from napari_sac.cli._terminal import describe_error
from napari_sac.core.errors import NapariSacError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_COMMANDS = (demo, segment, replay, evaluate, finetune, models, doctor)
_STOPPED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Raises
    ------
    SystemExit
        With 2 for wrong arguments, with 0 for ``--help`` and ``--version``.
    """
    for stream in (sys.stdout, sys.stderr):
        # names and titles have letters that a Windows pipe cannot write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = _build_parser().parse_args(argv)
    if argv is None and not args.debug:
        _say_one_line_only()
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"\nnapari-sac: {str(stop) or 'stopped'}\n")
        return _STOPPED
    except NapariSacError as error:
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"napari-sac: {describe_error(error) or 'stopped'}\n")
        return 1
    except BrokenPipeError:
        # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-sac",
        description="Find and segment nuclei in microscopy images, without a window.",
    )
    version = f"napari-sac {__version__}"
    parser.add_argument("--version", action="version", version=version)
    debug = "on failure show where in the program it happened"
    parser.add_argument("--debug", action="store_true", help=debug)
    subparsers = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for command in _COMMANDS:
        command.add_parser(subparsers)
        own = subparsers.choices[command.__name__.rpartition(".")[2]]
        own.set_defaults(run=command.run)
        # without a default, so that it does not undo a --debug before the command
        own.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=debug
        )
    return parser


def _say_one_line_only() -> None:
    """Keep libraries from writing to stderr, and show a fault of ours as one line."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    sys.excepthook = _show_fault


def _show_fault(
    kind: type[BaseException], error: BaseException, _: TracebackType | None
) -> None:
    reason = str(error).splitlines()[:1]
    sys.stderr.write(
        f"napari-sac: {': '.join([kind.__name__, *reason])} (an error that the program "
        "did not expect: run again with --debug and report what it shows)\n"
    )
