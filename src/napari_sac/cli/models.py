"""``napari-sac models``: which models there are, get one, add one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from napari_sac.core.progress import format_bytes

if TYPE_CHECKING:
    import argparse

    from napari_sac.cli._options import Subparsers
    from napari_sac.core.models.registry import ModelSpec

_ACTIONS = {"list": None, "download": "NAME", "import": "FILE"}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "models",
        help="list, download or import models",
        usage="napari-sac models [list | download NAME | import FILE [--name NAME]]",
        description="Without arguments: list the models and adapters. 'download NAME' "
        "gets one of Meta's for later use without a network. 'import FILE' adds a "
        "SAM-compatible weight file (.pth or .safetensors), such as MedSAM's.",
    )
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="list")
    parser.add_argument("target", nargs="?", help="NAME to download or FILE to import")
    parser.add_argument("--name", help="what to call an imported model")


def run(args: argparse.Namespace) -> int:
    """Do the action and return 0, or 2 if the arguments do not fit together."""
    wanted = _ACTIONS[args.action]
    problem = None
    if wanted and args.target is None:
        problem = f"{args.action} needs a {wanted}"
    elif not wanted and args.target is not None:
        problem = f"{args.action} takes no {args.target}"
    elif args.name is not None and args.action != "import":
        problem = "--name is for import"
    if problem:
        sys.stderr.write(f"napari-sac models: {problem}\n")
        return 2
    if args.action == "download":
        _download(args.target)
    elif args.action == "import":
        _import(args.target, args.name)
    else:
        sys.stdout.write(_format_models() + _format_adapters())
    return 0


def _download(name: str) -> None:
    from napari_sac.core.models.registry import download_model

    # who asks for it by name may do so because the one that is here does not load
    path = download_model(name, _show_percent, check=True)
    sys.stdout.write(f"{name} is at {path}\n")


def _import(file: str, name: str | None) -> None:
    from napari_sac.core.models.registry import import_model

    spec = import_model(file, name, _show_percent)
    sys.stdout.write(f"{spec.name} is built like {spec.sizes} and ready to use.\n")


def _format_models() -> str:
    from napari_sac.core.models.registry import model_specs

    lines = []
    for spec in model_specs():
        lines += [
            f"{spec.name}  ({describe_state(spec)})",
            f"    {spec.description}",
            f"    Licence: {spec.licence}. Source: {spec.source}.",
        ]
    return "\n".join(["Models", *lines, ""])


def describe_state(spec: ModelSpec) -> str:
    """Return in words whether the model's weights are here."""
    from napari_sac.core.models.registry import is_downloaded, weights_path

    if is_downloaded(spec):
        return f"ready, {format_bytes(weights_path(spec).stat().st_size)}"
    if spec.url is None:
        return "MISSING: install napari-sac again"
    return f"not downloaded, {format_bytes(spec.size_bytes or 0)}"


def _format_adapters() -> str:
    from napari_sac.core.models.adapter import list_adapters

    lines = []
    for info in list_adapters():
        verdict = "" if info.promoted else "  (not promoted)"
        lines += [
            f"{info.name}  (for {info.base}){verdict}",
            f"    {info.title}: {info.description}",
            f"    Licence: {info.licence}. At {info.path}.",
        ]
    return "\n".join(["", "Adapters", *(lines or ["none"]), ""])


def _show_percent(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if total and done == total else ""
        sys.stderr.write(f"\r{stage} {done / max(total, 1):.0%}\x1b[K{end}")
        sys.stderr.flush()
