"""Models are listed without torch, loaded strictly, and never half added."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from napari_sac.core.errors import (
    Cancelled,
    DeviceError,
    DownloadError,
    IncompatibleAdapterError,
    ModelNotFoundError,
    WeightsError,
)
from napari_sac.core.models import registry
from napari_sac.core.models.adapter import AdapterInfo, save_adapter
from napari_sac.core.models.lora import inject_lora
from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.registry import (
    deduce_architecture,
    download_model,
    get_spec,
    import_model,
    is_downloaded,
    licence_of,
    load_model,
    model_specs,
    weights_path,
    weights_sha256,
)
from napari_sac.core.models.sam import SAC_TINY, VIT_B, build_sam
from napari_sac.core.models.weight_files import (
    file_hash,
    read_weights,
    write_generator,
    write_weights,
)

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def tiny_file(shipped, tmp_path):
    """Weights like those of sac_tiny, in a file as other tools write them."""
    path = tmp_path / "other_tool.pth"
    weights = read_weights(shipped / "sac_tiny.safetensors")
    torch.save({"model_state": {f"sam.{n}": t for n, t in weights.items()}}, path)
    return path


@pytest.fixture
def adapter(shipped, tmp_path):
    """An adapter for the shipped base."""
    sam = build_sam(SAC_TINY)
    inject_lora(sam, rank=2)
    for name, parameter in sam.named_parameters():
        if ".lora_" in name:
            torch.nn.init.constant_(parameter, 0.1)
    info = AdapterInfo(
        "", tmp_path, "H&E", "Tissue.", "sac_tiny",
        file_hash(shipped / "sac_tiny.safetensors"), "CC0-1.0",
    )  # fmt: skip
    return save_adapter(tmp_path / "he", sam, PromptGenerator((4, 6)), info)


# --- the table -----------------------------------------------------------------------


def test_registered_models_are_complete():
    specs = {spec.name: spec for spec in model_specs()}
    assert list(specs) == ["sac_tiny", "vit_b", "vit_l", "vit_h"]
    for spec in specs.values():
        assert len(spec.description) > 40
        assert spec.licence
        assert spec.source
        assert 10 < spec.nucleus_diameter < spec.architecture.image_size / 4
        assert spec.window <= spec.architecture.grid_size
        assert not spec.imported
        if spec.url is not None:
            assert re.fullmatch("[0-9a-f]{64}", spec.sha256)
            assert spec.url.startswith("https://")
            assert spec.size_bytes > 10**8
    assert specs["sac_tiny"].url is None
    assert specs["sac_tiny"].local_frame
    assert specs["sac_tiny"].architecture == SAC_TINY
    assert specs["vit_b"].architecture == VIT_B
    assert not specs["vit_b"].local_frame


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_architectures_have_the_size_of_metas_files(name):
    """The published files are the float32 values and a head of less than 1 MB."""
    spec = get_spec(name)
    with torch.device("meta"):
        state = build_sam(spec.architecture, split=False).state_dict()
    values = sum(4 * tensor.numel() for tensor in state.values())
    assert 0 < spec.size_bytes - values < 2**20


def test_unknown_names_say_what_there_is():
    with pytest.raises(ModelNotFoundError, match=r"no model vit_x.*sac_tiny.*import"):
        get_spec("vit_x")
    with pytest.raises(ModelNotFoundError, match="vit_x"):
        load_model("vit_x")


def test_what_goes_on_from_weights_has_their_licence():
    assert licence_of("sac_tiny", None) == get_spec("sac_tiny").licence
    assert licence_of("sac_tiny", "he") == "CC-BY-NC-SA-4.0"
    with pytest.raises(ModelNotFoundError, match="no adapter nothing"):
        licence_of("sac_tiny", "nothing")


def test_listing_leaves_torch_out():
    code = (
        "import sys; from napari_sac.core.models.registry import model_specs; "
        "model_specs(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_are_where_the_variable_says(home, shipped):
    assert weights_path(get_spec("vit_b")) == home / "models" / "sam_vit_b_01ec64.pth"
    assert weights_path(get_spec("sac_tiny"), shipped).parent == shipped
    assert is_downloaded(get_spec("sac_tiny"))
    assert not is_downloaded(get_spec("vit_b"))


# --- load_model ----------------------------------------------------------------------


def test_loaded_model_equals_the_stock_build(shipped):
    """Loading goes by way of "meta", split attention and float32 and loses nothing."""
    model = load_model(device="cpu", shipped=shipped)
    stock = build_sam(SAC_TINY, split=False)
    weights = read_weights(shipped / "sac_tiny.safetensors")
    stock.load_state_dict(weights)
    image = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        torch.testing.assert_close(
            model.sam.image_encoder(image),
            stock.image_encoder(image),
            rtol=1e-4,
            atol=1e-5,
        )
    tensors = [
        *model.sam.parameters(),
        *model.sam.buffers(),
        *model.generator.buffers(),
    ]
    assert not any(t.is_meta or t.requires_grad for t in tensors)
    assert {t.dtype for t in tensors} == {torch.float32, torch.int64}
    assert torch.equal(model.sam.pixel_mean, stock.pixel_mean)
    assert torch.equal(model.sam.pixel_std, stock.pixel_std)
    assert not model.sam.training
    assert not model.generator.training
    assert model.device.name == "cpu"
    assert model.adapter is None


def test_loading_tells_progress_and_can_be_cancelled(shipped):
    reports = []
    load_model(device="cpu", shipped=shipped, progress=lambda *r: reports.append(r))
    assert reports == [("loading sac_tiny", 0, 1), ("loading sac_tiny", 1, 1)]

    def cancel(stage, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        load_model(device="cpu", shipped=shipped, progress=cancel)


def test_key_identifies_the_weights(shipped, adapter, tmp_path):
    plain = load_model(device="cpu", shipped=shipped)
    again = load_model(device="cpu", shipped=shipped)
    adapted = load_model(device="cpu", shipped=shipped, adapter=adapter.path)
    other = tmp_path / "other"
    other.mkdir()
    os.link(shipped / "sac_tiny.safetensors", other / "sac_tiny.safetensors")
    write_generator(other / "prompt_generator.safetensors", PromptGenerator((4, 6)))
    third = load_model(device="cpu", shipped=other)
    assert plain.key == again.key
    assert len({plain.key, adapted.key, third.key}) == 3


def test_adapter_is_merged_and_brings_its_generator(shipped, adapter):
    plain = load_model(device="cpu", shipped=shipped)
    adapted = load_model(device="cpu", shipped=shipped, adapter=adapter.path)
    assert adapted.adapter == adapter
    assert adapted.generator.widths == (4, 6)
    before, after = (m.sam.image_encoder.blocks[1].attn for m in (plain, adapted))
    assert not torch.equal(before.q.weight, after.q.weight)
    assert torch.equal(before.k.weight, after.k.weight)
    assert set(adapted.sam.state_dict()) == set(plain.sam.state_dict())


def test_adapter_of_another_base_is_refused(shipped, adapter, tiny_file):
    import_model(tiny_file, "mine")
    with pytest.raises(IncompatibleAdapterError, match="Choose the model sac_tiny"):
        load_model("mine", device="cpu", shipped=shipped, adapter=adapter.path)


def test_damaged_shipped_weights_are_named(shipped, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    with pytest.raises(ModelNotFoundError, match="Install napari-sac again"):
        load_model(device="cpu", shipped=folder)
    content = (shipped / "sac_tiny.safetensors").read_bytes()
    (folder / "sac_tiny.safetensors").write_bytes(content[:-100])
    with pytest.raises(WeightsError, match=r"sac_tiny\.safetensors is damaged"):
        load_model(device="cpu", shipped=folder)
    (folder / "sac_tiny.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"prompt_generator\.safetensors"):
        load_model(device="cpu", shipped=folder)
    weights = read_weights(shipped / "sac_tiny.safetensors")
    weights.popitem()
    write_weights(folder / "sac_tiny.safetensors", weights)
    with pytest.raises(WeightsError, match="missing"):
        load_model(device="cpu", shipped=folder)


@pytest.mark.parametrize("widths", [None, "3", "[]", "[1e9, 4]", "[4]", "{", "[4, 7]"])
def test_generator_file_with_wrong_widths_is_refused(shipped, tmp_path, widths):
    os.link(shipped / "sac_tiny.safetensors", tmp_path / "sac_tiny.safetensors")
    weights = PromptGenerator((4, 6)).state_dict()
    metadata = None if widths is None else {"widths": widths}
    write_weights(tmp_path / "prompt_generator.safetensors", weights, metadata)
    with pytest.raises(WeightsError, match="prompt_generator"):
        load_model(device="cpu", shipped=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_missing_device_is_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(DeviceError, match="cuda"):
        load_model(device="cuda", shipped=tmp_path)


# --- download_model ------------------------------------------------------------------


def test_without_network_a_model_to_download_is_one_clear_error(home):
    spec = replace(get_spec("vit_b"), url="http://127.0.0.1:1/sam_vit_b_01ec64.pth")
    with pytest.raises(DownloadError, match="no connection"):
        download_model(spec)
    left = [p.name for p in (home / "models").iterdir() if p.name[0] != "."]
    assert left == []


def test_models_that_are_there_need_no_network(home, shipped):
    assert download_model("sac_tiny").name == "sac_tiny.safetensors"
    spec = replace(get_spec("vit_b"), url="http://127.0.0.1:1/w.pth", size_bytes=5)
    (home / "models").mkdir(parents=True)
    (home / "models" / "w.pth").write_bytes(b"12345")
    assert download_model(spec) == home / "models" / "w.pth"


def test_hash_of_a_downloaded_model_is_the_registered_one(shipped):
    assert weights_sha256(get_spec("vit_b")) == get_spec("vit_b").sha256
    assert weights_sha256(get_spec("sac_tiny"), shipped) == file_hash(
        shipped / "sac_tiny.safetensors"
    )


# --- import_model --------------------------------------------------------------------


def test_imported_model_is_listed_and_loads(shipped, tiny_file):
    reports = []
    spec = import_model(tiny_file, "my_model", lambda *r: reports.append(r))
    assert reports[0][1:] == (0, 3)
    assert reports[-1][1:] == (3, 3)
    assert spec in model_specs()
    assert spec == get_spec("my_model")
    assert spec.imported
    assert spec.architecture == SAC_TINY
    assert spec.sha256 == file_hash(tiny_file)
    assert "other_tool.pth" in spec.description
    assert is_downloaded(spec)
    tiny_file.unlink()
    mine = load_model("my_model", device="cpu", shipped=shipped)
    original = load_model(device="cpu", shipped=shipped)
    for name, tensor in original.sam.state_dict().items():
        assert torch.equal(mine.sam.state_dict()[name], tensor)
    assert mine.key != original.key


def test_a_file_that_would_be_downloaded_is_known_by_its_hash(
    home, tmp_path, monkeypatch
):
    file = tmp_path / "carried_over.pth"
    file.write_bytes(b"weights of Meta")
    known = replace(
        get_spec("vit_b"), sha256=file_hash(file), size_bytes=file.stat().st_size
    )
    monkeypatch.setattr(registry, "_REGISTERED", (get_spec("sac_tiny"), known))
    assert not is_downloaded(known)
    assert import_model(file) == known
    assert weights_path(known).read_bytes() == b"weights of Meta"
    assert is_downloaded(known)
    assert not any(spec.imported for spec in model_specs())
    file.write_bytes(b"other bytes abc")
    with pytest.raises(WeightsError):
        import_model(file)


@pytest.mark.weights
def test_what_meta_offers_is_what_we_expect():
    model = load_model("vit_b", device="cpu")
    assert is_downloaded(get_spec("vit_b"))
    assert model.sam.image_encoder.img_size == 1024


def test_name_is_the_stem_unless_given(tiny_file):
    assert import_model(tiny_file).name == "other_tool"


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a b", "x" * 65])
def test_names_that_could_leave_the_folder_are_refused(home, tiny_file, name):
    with pytest.raises(WeightsError, match="cannot be the name"):
        import_model(tiny_file, name)
    assert not home.exists()


def note_of_format(number: int) -> str:
    """Return a note that is whole, of this format."""
    kind = {"architecture": "sac_tiny", "source": "a.pth", "sha256": "0" * 64}
    return json.dumps({"format": number, **kind})


def test_taken_names_are_kept(tiny_file):
    import_model(tiny_file, "mine")
    newer = weights_path(get_spec("mine")).with_name("newer.safetensors")
    write_weights(newer, {"x": torch.zeros(1)}, {registry._NOTE: note_of_format(99)})
    assert "newer" not in {spec.name for spec in model_specs()}
    for name in ("mine", "vit_b", "newer", "Mine", "VIT_B"):
        with pytest.raises(WeightsError, match="already, and it was kept"):
            import_model(tiny_file, name)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "other", "truncated"])
def test_what_is_no_sam_leaves_nothing_behind(home, tiny_file, change):
    weights = torch.load(tiny_file, weights_only=True)["model_state"]
    name = "sam.mask_decoder.iou_token.weight"
    if change == "missing":
        del weights[name]
    elif change == "extra":
        weights["sam.more"] = torch.zeros(1)
    elif change == "shape":
        weights[name] = torch.zeros(2, 64)
    elif change == "other":
        weights = PromptGenerator((4, 6)).state_dict()
    torch.save(weights, tiny_file)
    if change == "truncated":
        tiny_file.write_bytes(tiny_file.read_bytes()[:-1000])
    words = {
        "missing": "Nearest is sac_tiny.*are missing",
        "extra": "Nearest is sac_tiny.*too many, as more",
        "shape": r"Nearest is sac_tiny.*\(2, 64\)",
        "other": "is not a SAM that this program knows",
        "truncated": "damaged",
    }[change]
    with pytest.raises(WeightsError, match=words):
        import_model(tiny_file)
    assert not home.exists()


def test_weights_where_one_may_not_look_are_told(private):
    with pytest.raises(WeightsError, match="theirs"):
        import_model(private / "theirs.pth")


def test_cancelled_import_leaves_nothing_behind(home, tiny_file):
    def cancel(stage, done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        import_model(tiny_file, progress=cancel)
    assert not home.exists()


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_metas_architectures_are_told_apart_by_their_shapes(tmp_path, name):
    with torch.device("meta"):
        weights = build_sam(get_spec(name).architecture, split=False).state_dict()
    assert deduce_architecture(tmp_path, weights) == name


def test_strange_files_among_the_imported_are_ignored(home, tiny_file):
    import_model(tiny_file, "mine")
    folder = home / "models" / "imported"
    (folder / "damaged.safetensors").write_bytes(b"x" * 50)
    write_weights(folder / "foreign.safetensors", {"a": torch.zeros(1)})
    now = registry._NOTE_FORMAT
    deep = "[" * 100_000
    notes = (
        "{",
        "[]",
        deep,
        '{"format": 1}',
        note_of_format(now + 1),
        note_of_format(now),
    )
    for i, note in enumerate(notes):
        write_weights(
            folder / f"other{i}.safetensors",
            {"a": torch.zeros(1)},
            {registry._NOTE: note},
        )
    known = [spec.name for spec in model_specs() if spec.imported]
    assert known == ["mine", "other5"], "all but the last are no notes of this format"


def test_a_file_called_as_a_shipped_model_does_not_take_its_place(home, tiny_file):
    import_model(tiny_file, "mine")
    folder = home / "models" / "imported"
    (folder / "mine.safetensors").rename(folder / "sac_tiny.safetensors")
    assert [s.name for s in model_specs()].count("sac_tiny") == 1
    assert not get_spec("sac_tiny").imported


def test_what_does_not_fit_is_told_before_gigabytes_come(monkeypatch):
    spec = replace(get_spec("vit_b"), url="http://127.0.0.1:1/w.pth")
    others = tuple(s for s in registry._REGISTERED if s.name != "vit_b")
    monkeypatch.setattr(registry, "_REGISTERED", (*others, spec))
    with pytest.raises(IncompatibleAdapterError, match="vit_b"):
        load_model("vit_b", adapter="he", device="cpu")
