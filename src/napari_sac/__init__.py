"""Segment Any Cell in napari: propose, correct, segment and fine-tune nuclei."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-sac")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
