"""Weights are tensors; anything else is refused in one sentence and does nothing."""

import copy
import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from torch import nn

from napari_sac.core.errors import OutputError, WeightsError
from napari_sac.core.models import weight_files
from napari_sac.core.models.prompt_generator import PromptGenerator
from napari_sac.core.models.weight_files import (
    describe_misfit,
    file_hash,
    load_into,
    read_generator,
    read_weights,
    write_generator,
    write_weights,
)


@pytest.fixture
def tensors():
    return {
        "a.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "a.count": torch.tensor(7),
    }


class RunsWhenUnpickled:
    """What a hostile file is made of: unpickling it calls ``os.mkdir``."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_written_tensors_come_back_with_metadata(tmp_path, tensors):
    path = tmp_path / "w.safetensors"
    write_weights(path, tensors, {"widths": "[1, 2]"})
    assert_equal(read_weights(path), tensors)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"widths": "[1, 2]"}
    assert list(tmp_path.iterdir()) == [path]


def test_what_ships_is_written_in_half_precision(tmp_path):
    path = tmp_path / "w.safetensors"
    whole = torch.arange(3)
    tensors = {"a": torch.tensor([1.0, 1 / 3]), "count": whole}
    write_weights(path, tensors, half=True)
    found = read_weights(path)
    assert torch.equal(found["a"], tensors["a"].half())
    assert torch.equal(found["count"], whole)
    generator = PromptGenerator((4, 6))
    write_generator(path, generator, half=True)
    read = read_generator(path).state_dict()
    for name, tensor in generator.state_dict().items():
        assert read[name].dtype == tensor.dtype
        torch.testing.assert_close(read[name], tensor, rtol=1e-3, atol=1e-6)


def test_others_may_read_what_they_may_read_elsewhere(tmp_path, tensors):
    """On a cluster the weights lie in a shared folder."""
    write_weights(tmp_path / "w.safetensors", tensors)
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_views_and_parameters_can_be_written(tmp_path):
    whole = nn.Parameter(torch.arange(12.0).reshape(4, 3))
    views = {"top": whole[:2], "bottom": whole[2:], "turned": whole.T, "all": whole}
    write_weights(tmp_path / "w.safetensors", views)
    assert_equal(read_weights(tmp_path / "w.safetensors"), views)


def test_failed_writing_keeps_the_old_file(tmp_path, tensors):
    path = tmp_path / "w.safetensors"
    write_weights(path, tensors)
    before = path.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        write_weights(tmp_path / "file" / "w.safetensors", tensors)
    with pytest.raises(AttributeError):
        write_weights(path, {"a": "not a tensor"})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "w.safetensors"]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PTH"])
@pytest.mark.parametrize("new_format", [True, False])
def test_torch_files_are_read(tmp_path, tensors, suffix, new_format):
    path = tmp_path / f"w{suffix}"
    torch.save(OrderedDict(tensors), path, _use_new_zipfile_serialization=new_format)
    assert_equal(read_weights(path), tensors)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state"])
@pytest.mark.parametrize("prefix", ["", "module.", "sam.", "module.sam.", "model."])
def test_training_checkpoints_are_read(tmp_path, tensors, key, prefix):
    weights = {prefix + name: tensor for name, tensor in tensors.items()}
    optimiser = {"state": {0: {"step": torch.tensor(1.0)}}, "lr": 1e-4}
    torch.save({key: weights, "epoch": 3, "optimizer": optimiser}, tmp_path / "w.pth")
    assert_equal(read_weights(tmp_path / "w.pth"), tensors)


def test_prefix_of_some_names_is_part_of_them(tmp_path):
    weights = {"model.a": torch.zeros(1), "b": torch.zeros(1)}
    torch.save(weights, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == set(weights)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_torch_file_is_not_run(tmp_path, tensors, new_format):
    trap = tmp_path / "executed"
    content = {**tensors, "trap": RunsWhenUnpickled(trap)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(WeightsError, match=r"w\.pth holds code.*not run"):
        read_weights(tmp_path / "w.pth")
    assert not trap.exists()


def test_the_trap_of_these_tests_works(tmp_path):
    """Else the tests above would prove nothing."""
    pickle.loads(pickle.dumps(RunsWhenUnpickled(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


def test_code_in_a_plain_pickle_is_not_run(tmp_path):
    trap = tmp_path / "executed"
    (tmp_path / "w.pt").write_bytes(pickle.dumps(RunsWhenUnpickled(trap)))
    with pytest.raises(WeightsError, match=r"w\.pt"):
        read_weights(tmp_path / "w.pt")
    assert not trap.exists()


def test_whole_models_are_not_run(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds code"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_truncation_is_named(tmp_path, tensors, suffix):
    whole = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(tensors, whole)
    else:
        write_weights(whole, tensors)
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for end in range(1, len(content) - 1, max(1, len(content) // 40)):
        cut.write_bytes(content[:end])
        with pytest.raises(WeightsError, match=rf"cut\{suffix} is damaged"):
            read_weights(cut)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize(
    "content", [b"<html>404", b"\x80\x02.", bytes(100), b"PK\x03\x04" + bytes(60)]
)
def test_other_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\{suffix}"):
        read_weights(path)


def test_flipped_bytes_never_end_in_another_error(tmp_path, tensors):
    path = tmp_path / "w.pth"
    torch.save(tensors, path)
    content = path.read_bytes()
    for i in range(0, len(content), 7):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x5A]) + content[i + 1 :])
        try:
            read_weights(path)
        except WeightsError as error:
            assert "w.pth" in str(error)  # noqa: PT017


def test_missing_empty_and_misnamed_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match="is not there"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        read_weights(tmp_path)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="0 bytes"):
        read_weights(tmp_path / "w.pth")
    (tmp_path / "w.zip").write_bytes(b"x")
    with pytest.raises(WeightsError, match="by its name"):
        read_weights(tmp_path / "w.zip")


def test_absurdly_large_files_are_not_opened(tmp_path):
    path = tmp_path / "w.pth"
    with path.open("wb") as file:
        file.truncate(weight_files.MAXIMUM_FILE_BYTES + 1)
    with pytest.raises(WeightsError, match="bytes"):
        read_weights(path)


def test_safetensors_header_that_claims_too_much_is_refused(tmp_path):
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path)
    path.write_bytes(struct.pack("<Q", 2**60) + header)
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path)


def test_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="claims"):
        read_weights(tmp_path / "w.pth")


def test_compressed_archives_are_refused(tmp_path, tensors):
    torch.save(tensors, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    with pytest.raises(WeightsError, match="compressed"):
        read_weights(tmp_path / "w.pth")


def test_archives_whose_parts_share_their_bytes_are_refused(tmp_path, tensors):
    """Each would be read, and a small file would fill the memory."""
    torch.save(tensors, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
        for n in range(200):
            again = copy.copy(largest)
            again.filename = f"{largest.filename}{n}"
            archive.filelist.append(again)
        # else nothing is written anew
        archive.comment = b"more"
    with pytest.raises(WeightsError, match="more bytes than it has"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"epoch": 3},
        [torch.zeros(2)],
        torch.zeros(2),
        {1: torch.zeros(2)},
        {"a": torch.zeros(2).to_sparse()},
        {"model": {"a": 1}},
        {"a": {"b": torch.zeros(2)}},
    ],
)
def test_what_is_no_table_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="not a table of named tensors"):
        read_weights(tmp_path / "w.pth")


def test_load_into_changes_all_or_nothing(tmp_path):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    good = {k: torch.full_like(v, 5) for k, v in before.items()}
    for broken, words in (
        ({k: v for k, v in good.items() if k != "0.bias"}, "0.bias"),
        ({**good, "2.weight": torch.zeros(1)}, "too many"),
        ({**good, "1.weight": torch.zeros(4)}, r"\(4,\) in place of \(3,\)"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_into(module, broken, tmp_path / "w")
        assert_equal(module.state_dict(), before)
    half = {k: v.half() if v.is_floating_point() else v for k, v in good.items()}
    load_into(module, half, tmp_path / "w")
    assert_equal(module.state_dict(), good)


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_weights_of_whole_numbers_do_not_fit():
    expected = {"x": torch.zeros(2)}
    assert describe_misfit(expected, {"x": torch.ones(2)}) is None
    assert "torch.int64" in describe_misfit(expected, {"x": torch.tensor([1, 2])})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, tensors, suffix, value):
    tensors["a.weight"][1, 2] = value
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(tensors, file)
    else:
        write_weights(file, tensors)
    with pytest.raises(WeightsError, match=r"a\.weight has values that are no numbers"):
        read_weights(file)


def test_numbers_with_which_torch_does_not_compute_are_refused(tmp_path):
    header = b'{"a":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}}'
    file = tmp_path / "weights.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\x11\x22")
    with pytest.raises(WeightsError, match=r"weights\.safetensors.*Nothing was loaded"):
        read_weights(file)


def test_widths_that_a_file_only_claims_take_no_memory(tmp_path, monkeypatch):
    """4096 at each of four levels would be 9 GiB."""
    made = []

    def build(widths):
        made.append(PromptGenerator(widths))
        return made[-1]

    monkeypatch.setattr(weight_files, "PromptGenerator", build)
    file = tmp_path / "prompt_generator.safetensors"
    write_weights(file, {"x": torch.zeros(1)}, {"widths": "[4, 6]"})
    with pytest.raises(WeightsError, match="does not fit"):
        read_generator(file)
    assert all(parameter.is_meta for parameter in made[0].parameters())
    write_generator(file, PromptGenerator((4, 6)))
    assert not any(parameter.is_meta for parameter in read_generator(file).parameters())
