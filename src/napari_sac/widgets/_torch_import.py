"""Import torch in a thread of a program that has a window.

A plain import is dangerous there, and stops the window:

- Triton, which torch brings along, crashes the process if Mesa, which draws the window,
  has loaded its own LLVM before: each takes the other's functions for its own.
- While a library is linked no other thread runs: half a second, and many from a cold
  disk.
- Half a million objects are born, and Python's garbage collector goes through all of
  them several times, up to 0.3 seconds each, while no other thread runs.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

_MODELS = "napari_sac.core.models.sam"


def import_torch() -> None:
    """Import what every model needs; return at once if that was done before."""
    if _MODELS in sys.modules:
        return
    if sys.platform == "linux" and "torch" not in sys.modules:
        _link("torch", "lib/libtorch.so", os.RTLD_NOW)
        # with its own LLVM before anybody else's
        _link("triton", "_C/libtriton.so", os.RTLD_NOW | os.RTLD_DEEPBIND)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(_MODELS)
    finally:
        # moves the new objects to the old ones, which are seldom gone through
        gc.freeze()
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _link(package: str, library: str, flags: int) -> None:
    """Load a library of a package; unlike import, ctypes lets other threads run.

    Where that fails, the import will do it, or say what is wrong.
    """
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / library
        ctypes.CDLL(None).dlopen(os.fsencode(path), flags)
