"""The device is chosen by what works here, and says why."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from napari_sac.core.device import (
    DEVICE_NAMES,
    Device,
    available_memory,
    is_out_of_memory,
    select_device,
)
from napari_sac.core.errors import DeviceError

CUDA = torch.cuda.is_available()
MPS = torch.backends.mps.is_available()


def test_cpu_always_works():
    device = select_device("cpu")
    assert device.name == "cpu"
    assert device.reason == "asked for"
    assert device.memory_bytes > 2**20
    assert device.torch_device == torch.device("cpu")
    assert device.autocast_dtype is None
    assert str(torch.get_num_threads()) in device.title


def test_auto_takes_the_best_that_computes():
    device = select_device("auto")
    assert device.name == ("cuda" if CUDA else "mps" if MPS else "cpu")
    assert torch.ones(3, device=device.torch_device).sum() == 3


@pytest.mark.skipif(CUDA or MPS, reason="tells why no GPU is used")
def test_auto_says_why_not_a_gpu():
    reason = select_device("auto").reason
    assert torch.__version__ in reason
    if torch.version.cuda is None:
        assert "CPUs only" in reason
    else:
        assert "no CUDA GPU" in reason


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cuda", marks=pytest.mark.skipif(CUDA, reason="has CUDA")),
        pytest.param("mps", marks=pytest.mark.skipif(MPS, reason="has MPS")),
    ],
)
def test_missing_device_is_an_error_with_a_way_out(name):
    with pytest.raises(DeviceError, match=f"{name} cannot be used.*cpu"):
        select_device(name)


def test_cpu_build_of_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    assert "build for CPUs only" in select_device("auto").reason or MPS
    with pytest.raises(DeviceError, match="build for CPUs only"):
        select_device("cuda")


@pytest.mark.skipif(CUDA or MPS, reason="needs a GPU that does not compute")
def test_gpu_that_is_seen_but_does_not_compute_is_passed_over(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    device = select_device("auto")
    assert device.name == "cpu"
    assert "does not compute" in device.reason


def test_unknown_names_are_wrong_calls():
    with pytest.raises(ValueError, match="tpu"):
        select_device("tpu")
    assert DEVICE_NAMES == ("auto", "cpu", "cuda", "mps")


def test_bfloat16_is_the_autocast_type_where_it_is_fast():
    device = Device("cuda", "a GPU", "asked for", 2**30, bfloat16=True)
    assert device.autocast_dtype == torch.bfloat16


def test_autocast_changes_the_type_only_where_it_helps():
    a = torch.ones(2, 2)
    with Device("cpu", "", "", 2**30).autocast():
        assert (a @ a).dtype == torch.float32
    with Device("cpu", "", "", 2**30, bfloat16=True).autocast():
        assert (a @ a).dtype == torch.bfloat16


def test_batches_grow_with_memory_up_to_a_limit():
    small, large, huge = (
        Device("cuda", "", "", memory) for memory in (2**27, 2**33, 2**45)
    )
    assert 0 < small.batch_tokens < large.batch_tokens == huge.batch_tokens
    assert 0 < small.batch_pixels < large.batch_pixels <= huge.batch_pixels < 2**25
    assert Device("cpu", "", "", 2**45).batch_tokens < huge.batch_tokens


def test_import_leaves_torch_out():
    code = "import sys, napari_sac.core.device; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA GPU")
def test_cuda_tells_its_name_and_memory():
    device = select_device("cuda")
    assert device.title == torch.cuda.get_device_name()
    assert device.memory_bytes > 2**28


def test_a_little_less_memory_gives_the_same_batches():
    free = [Device("cuda", "GPU", "", n << 20) for n in (20_000, 20_001, 17_000)]
    assert len({d.batch_pixels for d in free}) == 1
    assert len({d.batch_tokens for d in free}) == 1
    assert free[0].batch_pixels * 4096 <= free[0].memory_bytes


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_whatever_torch_says_when_memory_is_short(error, short):
    assert is_out_of_memory(error) is short


def write_files(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


JOB = "sys/fs/cgroup/slurm/job_1"
ON_THE_HOST = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        # of a job of a cluster: the group around the process has the limit
        (
            {
                "proc/self/cgroup": "0::/slurm/job_1/step_0\n",
                f"{JOB}/step_0/memory.max": "max\n",
                f"{JOB}/step_0/memory.current": "1\n",
                f"{JOB}/step_0/memory.stat": "anon 1\n",
                f"{JOB}/memory.max": "5000\n",
                f"{JOB}/memory.current": "4000\n",
                f"{JOB}/memory.stat": "anon 700\ninactive_file 300\n",
            },
            1300,
        ),
        # of a container that is shown its own group only, but the host's path
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/ab\n0::/\n",
                f"{ON_THE_HOST}/memory.limit_in_bytes": "5000\n",
                f"{ON_THE_HOST}/memory.usage_in_bytes": "4000\n",
                f"{ON_THE_HOST}/memory.stat": "total_inactive_file 200\n",
            },
            1200,
        ),
        # more is taken than the limit, which was made smaller
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "5\n",
                "sys/fs/cgroup/memory.current": "7\n",
                "sys/fs/cgroup/memory.stat": "",
            },
            0,
        ),
    ],
)
def test_what_a_container_may_take_is_what_is_free(tmp_path, files, free):
    write_files(tmp_path, files)
    assert available_memory(tmp_path) == free


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/../away\n"},
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "many\n",
            "sys/fs/cgroup/memory.current": "7\n",
            "sys/fs/cgroup/memory.stat": "",
        },
    ],
)
def test_where_no_group_tells_it_is_what_the_computer_has(tmp_path, files, monkeypatch):
    write_files(tmp_path, files)
    memory = SimpleNamespace(available=12_345)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert available_memory(tmp_path) == 12_345
