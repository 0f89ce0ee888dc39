"""Import torch in a thread without stopping the window.

A plain import stops every other thread for up to half a second, and for seconds from a
cold disk: while libraries are linked, and while Python's garbage collector goes through
half a million new objects (measured; docs/decisions/0002).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def import_torch() -> None:
    """Import what every model needs; return at once if that was done before."""
    if "segment_anything" in sys.modules:
        return
    _link_torch()
    collecting = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("segment_anything")
    finally:
        # As old objects, the new ones are not gone through at the next occasion.
        gc.freeze()
        gc.unfreeze()
        if collecting:
            gc.enable()


def _link_torch() -> None:
    """Load torch's libraries; ctypes lets other threads run meanwhile, import does not.

    If it does not succeed, the import will do it, or say what is wrong.
    """
    spec = find_spec("torch")
    if sys.platform != "linux" or spec is None or spec.origin is None:
        return
    library = Path(spec.origin).parent / "lib" / "libtorch.so"
    ctypes.CDLL(None).dlopen(os.fsencode(library), os.RTLD_NOW)
