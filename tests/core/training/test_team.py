from __future__ import annotations

import sys

import pytest

from napari_sac.core.errors import DeviceError
from napari_sac.core.training.team import join_team


def test_what_launched_processes_lack_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    # the quotes that Windows knows
    with pytest.raises(DeviceError, match=r'pip install "napari-sac\[train\]"'):
        join_team("cpu")
