"""An adapter is one folder: whole or not there, for one base, and readable by peft."""

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from napari_sac.core.errors import (
    IncompatibleAdapterError,
    ModelNotFoundError,
    OutputError,
)
from napari_sac.core.models.adapter import (
    AdapterInfo,
    apply_adapter,
    check_base,
    find_adapter,
    list_adapters,
    read_adapter_info,
    restore_adapter,
    save_adapter,
)
from napari_sac.core.models.lora import inject_lora
from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.sam import SamArchitecture, build_sam
from napari_sac.core.models.weight_files import read_weights, write_weights

ARCHITECTURE = SamArchitecture(
    image_size=64,
    patch_size=8,
    embed_dim=32,
    depth=2,
    num_heads=2,
    global_blocks=(1,),
    window_size=4,
    prompt_dim=16,
    decoder_mlp_dim=32,
)
FILES = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "mask_decoder.safetensors",
    "napari_sac.json",
    "prompt_generator.safetensors",
]
INFO = AdapterInfo(
    name="",
    path=Path(),
    title="H&E",
    description="Pink and blue tissue.",
    base="sac_tiny",
    base_sha256="ab" * 32,
    licence="CC BY-NC-SA 4.0",
    data_sha256="cd" * 32,
    metrics={"before": {"dice": 0.7}, "after": {"dice": 0.8}},
    versions={"torch": torch.__version__},
)


@pytest.fixture
def base():
    torch.manual_seed(0)
    return build_sam(ARCHITECTURE)


@pytest.fixture
def tuned(base):
    """The base after training: LoRA and mask decoder differ."""
    sam = copy.deepcopy(base)
    torch.manual_seed(1)
    inject_lora(sam, rank=4, alpha=8)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if ".lora_" in name or name.startswith("mask_decoder."):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return sam


@pytest.fixture
def generator():
    torch.manual_seed(2)
    return PromptGenerator((8, 12)).eval()


@pytest.fixture
def saved(tmp_path, tuned, generator):
    return save_adapter(tmp_path / "he", tuned, generator, INFO).path


def encode(sam):
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return sam.image_encoder(image)


def edit_json(folder, name, **values):
    content = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps(content))


def test_what_was_saved_is_told_again(tmp_path, tuned, generator):
    told = save_adapter(tmp_path / "he", tuned, generator, INFO)
    assert told == replace(INFO, name="he", path=tmp_path / "he")
    assert read_adapter_info(tmp_path / "he") == told
    assert sorted(p.name for p in (tmp_path / "he").iterdir()) == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["he"]


def test_in_half_precision_it_is_half_as_large_and_applied_nearly_the_same(
    tmp_path, base, tuned, generator
):
    sizes = {}
    for name, half in (("whole", False), ("half", True)):
        save_adapter(tmp_path / name, tuned, generator, INFO, half=half)
        files = (tmp_path / name).glob("*.safetensors")
        sizes[name] = {file.name: file.stat().st_size for file in files}
    assert len(sizes["half"]) == 3
    for name, size in sizes["half"].items():
        assert size < 0.9 * sizes["whole"][name]
    found = apply_adapter(base, read_adapter_info(tmp_path / "half"))
    torch.testing.assert_close(encode(base), encode(tuned), rtol=2e-2, atol=2e-3)
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found(image), generator(image), rtol=2e-2, atol=2e-3)


def test_applied_equals_what_was_trained(saved, base, tuned, generator):
    found = apply_adapter(base, read_adapter_info(saved))
    torch.testing.assert_close(encode(base), encode(tuned), rtol=1e-4, atol=1e-5)
    for name, tensor in tuned.mask_decoder.state_dict().items():
        assert torch.equal(base.mask_decoder.state_dict()[name], tensor)
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(found(image), generator(image))


def test_peft_itself_can_load_it(saved, base, tuned):
    loaded = PeftModel.from_pretrained(base, str(saved))
    assert loaded.peft_config["default"].base_model_name_or_path == "sac_tiny"
    torch.testing.assert_close(encode(loaded.base_model.model), encode(tuned))


def test_saving_again_replaces(tmp_path, saved, tuned, generator):
    save_adapter(saved, tuned, generator, replace(INFO, title="Second"))
    assert read_adapter_info(saved).title == "Second"
    assert [p.name for p in tmp_path.iterdir()] == ["he"]


def test_failed_saving_keeps_the_old_one(tmp_path, saved, base, generator):
    with pytest.raises(ValueError, match="inject_lora"):
        save_adapter(saved, base, generator, replace(INFO, title="Second"))
    assert read_adapter_info(saved).title == "H&E"
    assert [p.name for p in tmp_path.iterdir()] == ["he"]


def test_other_folders_are_not_replaced(tmp_path, tuned, generator):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_text("")
    with pytest.raises(OutputError, match="is no adapter"):
        save_adapter(tmp_path / "holiday", tuned, generator, INFO)
    assert [p.name for p in (tmp_path / "holiday").iterdir()] == ["photo.jpg"]


def test_empty_folder_is_filled(tmp_path, tuned, generator):
    (tmp_path / "he").mkdir()
    save_adapter(tmp_path / "he", tuned, generator, INFO)
    assert sorted(p.name for p in (tmp_path / "he").iterdir()) == FILES


def test_place_that_cannot_be_written_is_one_clear_error(tmp_path, tuned, generator):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        save_adapter(tmp_path / "file" / "he", tuned, generator, INFO)


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(IncompatibleAdapterError, match=f"{name} is missing"):
        read_adapter_info(saved)


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_folder_are_refused(tmp_path, saved, name):
    shutil.move(saved / name, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", saved / name)
    with pytest.raises(IncompatibleAdapterError, match="outside"):
        read_adapter_info(saved)


def test_newer_formats_ask_for_an_update(saved):
    edit_json(saved, "napari_sac.json", format=2, new_field=1)
    with pytest.raises(IncompatibleAdapterError, match=r"newer napari-sac.*Update"):
        read_adapter_info(saved)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "null", "[" * 100_000, '{"format": "1"}', '{"format": 1}', "{}"],
)
def test_damaged_information_is_refused(saved, text):
    (saved / "napari_sac.json").write_text(text)
    with pytest.raises(IncompatibleAdapterError, match=r"napari_sac\.json"):
        read_adapter_info(saved)


@pytest.mark.parametrize("values", [{"base": 3}, {"metrics": []}, {"surprise": "x"}])
def test_wrong_fields_are_refused(saved, values):
    edit_json(saved, "napari_sac.json", **values)
    with pytest.raises(IncompatibleAdapterError, match=r"napari_sac\.json"):
        read_adapter_info(saved)


def test_absurdly_large_information_is_not_read(saved):
    with (saved / "napari_sac.json").open("wb") as file:
        file.truncate(2**21)
    with pytest.raises(IncompatibleAdapterError, match="too large"):
        read_adapter_info(saved)


def test_wrong_base_says_which_is_right(saved):
    info = read_adapter_info(saved)
    check_base(info, "sac_tiny", INFO.base_sha256)
    with pytest.raises(IncompatibleAdapterError, match="Choose the model sac_tiny"):
        check_base(info, "vit_b", "00" * 32)
    with pytest.raises(IncompatibleAdapterError, match="other weights of sac_tiny"):
        check_base(info, "sac_tiny", "00" * 32)


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith(".safetensors")])
def test_truncated_weights_leave_the_model_as_it_was(saved, base, name):
    before = {k: v.clone() for k, v in base.state_dict().items()}
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(IncompatibleAdapterError, match=name):
        apply_adapter(base, read_adapter_info(saved))
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "mask_decoder.safetensors"]
)
def test_weights_of_another_size_leave_the_model_as_it_was(saved, base, name):
    before = {k: v.clone() for k, v in base.state_dict().items()}
    write_weights(saved / name, {"a": torch.zeros(3)})
    with pytest.raises(IncompatibleAdapterError, match="do not fit sac_tiny"):
        apply_adapter(base, read_adapter_info(saved))
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())


@pytest.mark.parametrize(
    "values",
    [
        {"use_dora": True},
        {"rank_pattern": {"q": 2}},
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"r": 0},
        {"r": "4"},
        {"lora_alpha": None},
        {"lora_alpha": float("inf")},
        {"lora_alpha": 10**400},
        {"r": 10**400, "lora_alpha": 1.5},
    ],
)
def test_lora_that_we_cannot_merge_is_refused(saved, base, values):
    edit_json(saved, "adapter_config.json", **values)
    with pytest.raises(IncompatibleAdapterError, match="he"):
        apply_adapter(base, read_adapter_info(saved))


def test_adapters_are_listed_by_name_without_the_damaged(home, tmp_path, saved):
    shipped = tmp_path / "shipped"
    mine = home / "adapters"
    for target in (
        shipped / "he",
        mine / "b",
        mine / "a",
        mine / "he",
        mine / "broken",
    ):
        shutil.copytree(saved, target)
    (mine / "broken" / "mask_decoder.safetensors").unlink()
    (mine / "empty").mkdir()
    listed = list_adapters(shipped)
    assert [info.name for info in listed] == ["he", "a", "b"]
    assert listed[0].path == shipped / "he"
    assert find_adapter("a", shipped).path == mine / "a"
    assert find_adapter("he", shipped).path == shipped / "he"
    assert find_adapter(mine / "he", shipped).path == mine / "he"
    with pytest.raises(IncompatibleAdapterError, match="mask_decoder"):
        find_adapter("broken", shipped)
    with pytest.raises(ModelNotFoundError, match=r"no adapter nothing.*he, a, b"):
        find_adapter("nothing", shipped)


def test_no_adapters_are_no_error(home, tmp_path):
    assert list_adapters(tmp_path / "nowhere") == ()


def test_listing_leaves_torch_out():
    code = (
        "import sys; from napari_sac.core.models.adapter import list_adapters; "
        "list_adapters(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lora_elsewhere_than_on_q_and_v_can_be_used_but_not_trained_on(saved, base):
    file = saved / "adapter_model.safetensors"
    lora = read_weights(file)
    place = "base_model.model.image_encoder.blocks.0.mlp.lin1.lora_"
    lin1 = base.image_encoder.blocks[0].mlp.lin1
    a, b = torch.zeros(2, lin1.in_features), torch.zeros(lin1.out_features, 2)
    write_weights(file, lora | {f"{place}A.weight": a, f"{place}B.weight": b})
    info = read_adapter_info(saved)
    names = [name for name, _ in base.named_parameters()]
    with pytest.raises(IncompatibleAdapterError, match="not trained on"):
        restore_adapter(base, info)
    assert [name for name, _ in base.named_parameters()] == names
    apply_adapter(base, info)
