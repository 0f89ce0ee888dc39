"""Fixtures for all tests: a tiny model, a synthetic image, the folder of real data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from synthetic import BrightnessGenerator, Nuclei, build_tiny_model, draw_nuclei

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sac.core.models.registry import Model

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where downloads, adapters and journals of a test go; not there yet."""
    folder = tmp_path_factory.mktemp("user") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_SAC_HOME", str(folder))
        yield folder


@pytest.fixture
def same_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """Call it, and one folder has two names, as where a disk does not tell a from A."""

    def join(folder: Path, other: Path) -> None:
        look = os.stat

        def stat(path: Any, **options: Any) -> os.stat_result:
            if isinstance(path, str | Path):
                path = str(path).replace(str(other), str(folder))
            return look(path, **options)

        monkeypatch.setattr(os, "stat", stat)
        monkeypatch.setattr(os.path, "lexists", os.path.exists)

    return join


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder into which nobody may look, not even root: the system is played."""
    folder = tmp_path / "private"
    folder.mkdir()

    def guard(name: str) -> None:
        real = getattr(os, name)

        def guarded(path: Any, *args: Any, **options: Any) -> Any:
            if str(path).startswith(f"{folder}{os.sep}"):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *args, **options)

        monkeypatch.setattr(os, name, guarded)

    guard("stat")
    guard("mkdir")
    return folder


@pytest.fixture
def nuclei() -> Nuclei:
    """Twelve bright discs of about 20 pixels on 160 x 200."""
    return draw_nuclei()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images beside the repository; the test is skipped without."""
    if not DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return DATA


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    """A model of 64 pixels a side with random weights, built in milliseconds."""
    return build_tiny_model()


@pytest.fixture
def disc_model(tiny_model: Model) -> Model:
    """A model whose generator marks bright pixels: what it proposes is known."""
    return replace(tiny_model, generator=BrightnessGenerator(), key="brightness")
