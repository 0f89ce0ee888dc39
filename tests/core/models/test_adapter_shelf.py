"""The user's own adapters: copied in, given titles, exported, deleted, trained on."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic import build_tiny_model

from napari_sac.core.errors import (
    IncompatibleAdapterError,
    ModelNotFoundError,
    OutputError,
)
from napari_sac.core.models.adapter import (
    AdapterInfo,
    add_adapter,
    apply_adapter,
    delete_adapter,
    export_adapter,
    export_merged,
    fill_adapter,
    find_adapter,
    free_name,
    list_adapters,
    new_adapter_folder,
    read_adapter_info,
    restore_adapter,
    retitle_adapter,
    save_adapter,
)
from napari_sac.core.models.attention import split_qkv
from napari_sac.core.models.lora import inject_lora, lora_state_dict
from napari_sac.core.models.registry import SHIPPED_WEIGHTS, load_model
from napari_sac.core.models.weight_files import read_weights


@pytest.fixture
def saved(tmp_path: Path) -> AdapterInfo:
    """An adapter on the tiny model whose LoRA is not nothing."""
    model = build_tiny_model()
    inject_lora(model.sam, rank=2, alpha=3.0, blocks=[1])
    for name, parameter in model.sam.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    info = AdapterInfo(
        "", Path(), "Mine", "", "sac_tiny", "ab" * 32, "", tissue="liver"
    )
    return save_adapter(tmp_path / "mine", model.sam, model.generator, info)


def test_where_one_may_not_look_nothing_is_written(
    saved: AdapterInfo, private: Path
) -> None:
    with pytest.raises(OutputError, match="could not be copied"):
        export_adapter(saved, private / "theirs")
    model = build_tiny_model()
    inject_lora(model.sam, rank=2, alpha=3.0, blocks=[1])
    with pytest.raises(OutputError, match="could not be written"):
        save_adapter(private / "theirs", model.sam, model.generator, saved)


def test_names_are_suggested_that_are_free(saved: AdapterInfo) -> None:
    assert free_name("Schnitt 3 (HE).tif", "_tuned") == "Schnitt_3_HE_.tif_tuned"
    assert free_name("he") == "he_2"
    assert free_name("..") == "adapter"
    add_adapter(saved.path)
    assert free_name("mine") == "mine_2"
    long = free_name("x" * 500, "_tuned")
    assert new_adapter_folder(long).name == long


def test_own_adapters_are_listed_and_deleted(saved: AdapterInfo) -> None:
    added = add_adapter(saved.path)
    assert added.name == "mine"
    assert added.tissue == "liver"
    assert "mine" in {info.name for info in list_adapters()}
    with pytest.raises(OutputError, match="already"):
        add_adapter(saved.path)
    delete_adapter("mine")
    assert "mine" not in {info.name for info in list_adapters()}
    with pytest.raises(ModelNotFoundError):
        find_adapter("mine")
    assert saved.path.is_dir(), "the folder that it came from is nobody's to delete"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_of_a_linked_adapter_only_the_link_is_deleted(
    saved: AdapterInfo, home: Path
) -> None:
    (home / "adapters").mkdir(parents=True, exist_ok=True)
    (home / "adapters" / "mine").symlink_to(saved.path)
    assert "mine" in {info.name for info in list_adapters()}
    delete_adapter("mine")
    assert "mine" not in {info.name for info in list_adapters()}
    assert read_adapter_info(saved.path).tissue == "liver"


def test_another_title_keeps_the_folder_and_everything_else(saved: AdapterInfo) -> None:
    before = add_adapter(saved.path)
    after = retitle_adapter("mine", " Liver,\n frozen ")
    assert after == replace(before, title="Liver, frozen")
    assert find_adapter("mine") == after
    for title in ("", " \n", "x" * 61):
        with pytest.raises(OutputError, match="keeps its name"):
            retitle_adapter("mine", title)
    with pytest.raises(ModelNotFoundError, match="of your own"):
        retitle_adapter("he", "Mine now")
    assert find_adapter("mine") == after


@pytest.mark.parametrize("name", ["he", "nothing", "..", "../mine"])
def test_only_own_adapters_are_changed(saved: AdapterInfo, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="of your own"):
        delete_adapter(name)
    with pytest.raises(ModelNotFoundError, match="of your own"):
        retitle_adapter(name, "Other")
    assert saved.path.is_dir()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "he"])
def test_names_that_cannot_be(saved: AdapterInfo, name: str) -> None:
    with pytest.raises(OutputError):
        add_adapter(saved.path, name)
    assert saved.name not in {info.name for info in list_adapters()}


def test_damaged_adapters_are_not_added_and_can_be_deleted(
    saved: AdapterInfo, home: Path
) -> None:
    added = add_adapter(saved.path)
    (added.path / "mask_decoder.safetensors").unlink()
    (saved.path / "adapter_config.json").unlink()
    with pytest.raises(IncompatibleAdapterError, match="is missing"):
        add_adapter(saved.path, "again")
    delete_adapter("mine")
    assert not list((home / "adapters").iterdir())


def test_export_is_a_copy(saved: AdapterInfo, tmp_path: Path) -> None:
    (saved.path / "report.json").write_text("{}")
    copied = export_adapter(saved, tmp_path / "deep" / "copy")
    assert read_adapter_info(copied).title == "Mine"
    assert not (copied / "report.json").exists()
    with pytest.raises(OutputError, match="there already"):
        export_adapter(saved, copied)


def test_a_copy_replaces_nothing_that_came_meanwhile(
    saved: AdapterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, copy = tmp_path / "copy", shutil.copyfile

    def copy_beside_another(source: Path, to: Path) -> None:
        target.mkdir(exist_ok=True)
        (target / "theirs").write_text("kept")
        copy(source, to)

    monkeypatch.setattr(shutil, "copyfile", copy_beside_another)
    with pytest.raises(OutputError, match=r"could not be copied.*File exists"):
        export_adapter(saved, target)
    assert [p.name for p in target.iterdir()] == ["theirs"]


def test_merged_export_is_what_the_model_computes(tmp_path: Path) -> None:
    file = export_merged(find_adapter("he"), tmp_path / "he.pth")
    weights = split_qkv(read_weights(file))
    expected = load_model("sac_tiny", adapter="he", device="cpu").sam.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert not any("lora" in name for name in weights)
    assert (SHIPPED_WEIGHTS / "adapters" / "he").is_dir()


def test_restored_it_is_lora_again_and_computes_the_same(saved: AdapterInfo) -> None:
    merged, restored = build_tiny_model(1).sam, build_tiny_model(1).sam
    apply_adapter(merged, saved)
    restore_adapter(restored, saved)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            restored.image_encoder(image),
            merged.image_encoder(image),
            rtol=1e-4,
            atol=1e-5,
        )
    before = read_weights(saved.path / "adapter_model.safetensors")
    after = lora_state_dict(restored)
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_foreign_adapters_are_not_restored(saved: AdapterInfo) -> None:
    other = load_model("sac_tiny", device="cpu").sam
    names = set(other.state_dict())
    with pytest.raises(IncompatibleAdapterError, match="do not fit"):
        restore_adapter(other, saved)
    assert set(other.state_dict()) == names


def test_filling_keeps_what_is_in_the_folder(
    saved: AdapterInfo, tmp_path: Path
) -> None:
    target = tmp_path / "run_folder"
    (target / "run").mkdir(parents=True)
    model = build_tiny_model()
    inject_lora(model.sam, rank=2)
    told = fill_adapter(target, model.sam, model.generator, saved)
    assert read_adapter_info(target) == told
    assert (target / "run").is_dir()
    with pytest.raises(OutputError, match="already"):
        fill_adapter(target, model.sam, model.generator, saved)
