"""``napari-sac models`` lists, imports, and has what is there already."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch

from napari_sac.cli.main import main
from napari_sac.core.models import registry
from napari_sac.core.models.adapter import INFO_FILE, SHIPPED_ADAPTERS
from napari_sac.core.models.registry import get_spec, model_specs, weights_path
from napari_sac.core.models.sam import SAC_TINY, build_sam


@pytest.mark.parametrize("arguments", [["models"], ["models", "list"]])
def test_all_models_are_listed_with_licence_and_state(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for spec in model_specs():
        assert f"\n{spec.name}  (" in out
        assert spec.description in out
        assert spec.licence in out
    assert "vit_b  (not downloaded, 375 MB)" in out
    assert "\nAdapters\n" in out


def test_imported_model_is_listed_as_ready(capsys, tmp_path):
    file = tmp_path / "their_sam.pth"
    torch.save(build_sam(SAC_TINY, split=False).state_dict(), file)
    assert main(["models", "import", str(file), "--name", "mine"]) == 0
    assert capsys.readouterr().out == "mine is built like sac_tiny and ready to use.\n"
    assert main(["models"]) == 0
    assert "mine  (ready, " in capsys.readouterr().out


def test_an_adapter_that_was_not_promoted_is_listed_as_that(capsys, home):
    mine = home / "adapters" / "mine"
    shutil.copytree(SHIPPED_ADAPTERS / "he", mine)
    values = json.loads((mine / INFO_FILE).read_text()) | {"promoted": False}
    (mine / INFO_FILE).write_text(json.dumps(values))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "\nhe  (for sac_tiny)\n" in out
    assert "\nmine  (for sac_tiny)  (not promoted)\n" in out


class RunsWhenUnpickled:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_hostile_file_is_one_line_and_does_nothing(capsys, tmp_path, home):
    torch.save({"a": RunsWhenUnpickled(tmp_path / "executed")}, tmp_path / "sam.pth")
    assert main(["models", "import", str(tmp_path / "sam.pth")]) == 1
    err = capsys.readouterr().err
    assert "holds code" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "executed").exists()
    assert not home.exists()


@pytest.fixture
def five_bytes(monkeypatch):
    """Vit_b, as if its file were of five bytes, at a server that is not there."""
    spec = replace(
        get_spec("vit_b"),
        url="http://127.0.0.1:1/w.pth",
        size_bytes=5,
        sha256=hashlib.sha256(b"12345").hexdigest(),
    )
    others = tuple(s for s in registry._REGISTERED if s.name != "vit_b")
    monkeypatch.setattr(registry, "_REGISTERED", (*others, spec))
    path = weights_path(spec)
    path.parent.mkdir(parents=True)
    return path


def test_downloaded_model_is_not_downloaded_again(capsys, five_bytes):
    five_bytes.write_bytes(b"12345")
    assert main(["models", "download", "vit_b"]) == 0
    assert capsys.readouterr().out == f"vit_b is at {five_bytes}\n"
    assert main(["models"]) == 0
    assert "vit_b  (ready, " in capsys.readouterr().out


def test_damaged_model_is_downloaded_again(capsys, five_bytes):
    five_bytes.write_bytes(b"1234x")
    assert main(["models", "download", "vit_b"]) == 1
    assert "no connection to the server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["download"], "download needs a NAME"),
        (["import"], "import needs a FILE"),
        (["list", "vit_b"], "list takes no vit_b"),
        (["download", "vit_b", "--name", "x"], "--name is for import"),
    ],
)
def test_arguments_that_do_not_fit_end_with_status_2(capsys, arguments, words):
    assert main(["models", *arguments]) == 2
    assert words in capsys.readouterr().err
