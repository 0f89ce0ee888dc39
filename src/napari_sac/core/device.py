"""Which processor the models run on, and why."""

from __future__ import annotations

import os
import platform
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from napari_sac.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICE_NAMES: tuple[DeviceName, ...] = get_args(DeviceName)


@dataclass(frozen=True)
class Device:
    """A processor that was found to work.

    Parameters
    ----------
    name : {"cpu", "cuda", "mps"}
        As torch calls it.
    title : str
        The hardware, for people: "NVIDIA H200", "CPU with 2 of 4 threads".
    reason : str
        Why it was chosen, as a phrase for people.
    memory_bytes : int
        Memory that was free when it was chosen: of the GPU, or of the computer. Of a
        Mac's GPU, what it may take.
    bfloat16 : bool
        Whether it computes in bfloat16 faster than in float32.
    """

    name: str
    title: str
    reason: str
    memory_bytes: int
    bfloat16: bool = False

    @property
    def torch_device(self) -> torch.device:
        """The device to move tensors to."""
        import torch

        return torch.device(self.name)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The type for ``torch.autocast``, or None to stay in float32."""
        import torch

        return torch.bfloat16 if self.bfloat16 else None

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context in which the models compute in the device's best type."""
        import torch

        context: AbstractContextManager[None] = torch.autocast(
            self.name, dtype=self.autocast_dtype, enabled=self.bfloat16
        )
        return context

    @property
    def batch_pixels(self) -> int:
        """Pixels of encoder input to compute at once.

        SAM's largest encoder takes about 4 kB a pixel. On a CPU larger batches are no
        faster, and cancelling waits for the batch.
        """
        most = 1024**2 if self.name == "cpu" else 8 * 1024**2
        return _halved(most, self.memory_bytes // 4096)

    @property
    def batch_tokens(self) -> int:
        """Tokens of decoding windows to compute at once, at about 64 kB a token.

        Few, as every batch is filled up to it.
        """
        most = 512 if self.name == "cpu" else 4096
        return _halved(most, self.memory_bytes // 65536)


def _halved(most: int, fits: int) -> int:
    """Return ``most``, halved until it fits, but not below 1.

    Results differ in their last bits with the size of a batch: it must not follow every
    other program that takes or gives back a little memory.
    """
    while most > max(1, fits):
        most //= 2
    return most


_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says on Linux, on Windows, and on GPUs."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is short; torch mostly has no class."""
    # torch's own class, by its name: a window asks this before torch is imported
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(s in text for s in _NO_MEMORY)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of main memory that this program can still get.

    In a container or a job of a cluster it is what its control groups leave of their
    limits, if that is less than what the computer has.

    Parameters
    ----------
    root : Path, optional
        Below which Linux shows its control groups.
    """
    # imported late: it takes long, which opening a dock need not
    import psutil

    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_left_by_control_groups(root)]))


_GROUP_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By version: the files of the limit and of what is taken, and what of it Linux gives
back when memory is short, in ``memory.stat``."""


def _left_by_control_groups(root: Path) -> Iterator[int]:
    """Yield the bytes that each group around this process leaves of its limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        # another system than Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            version, top = 2, root / "sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            version, top = 1, root / "sys/fs/cgroup/memory"
        else:
            continue
        inner = top / group.lstrip("/")
        # in a container the path may be the host's, of which only the top is seen
        for folder in (inner, *inner.parents):
            with suppress(OSError, ValueError):
                yield _left_by(folder, *_GROUP_FILES[version])
            if folder == top:
                break


def _left_by(folder: Path, limit: str, taken: str, given_back: str) -> int:
    stat = (folder / "memory.stat").read_text().split()
    cache = dict(zip(stat[::2], map(int, stat[1::2]), strict=True))
    most, now = (int((folder / name).read_text()) for name in (limit, taken))
    return most - now + cache.get(given_back, 0)


def select_device(name: str = "auto") -> Device:
    """Return the device of that name; ``auto`` takes CUDA, else MPS, else the CPU.

    A GPU counts only if it computes: one that torch sees and cannot use (no memory
    left, too old for this build of torch) is passed over by ``auto``.

    Raises
    ------
    DeviceError
        If the device asked for by name cannot be used.
    ValueError
        If ``name`` is not one of ``DEVICE_NAMES``.
    """
    if name not in DEVICE_NAMES:
        raise ValueError(f"device must be one of {DEVICE_NAMES}, got {name!r}")
    if name == "cpu":
        return _cpu("asked for")
    problems = []
    for kind, problem_of, describe in (
        ("cuda", _cuda_problem, _cuda),
        ("mps", _mps_problem, _mps),
    ):
        if name not in ("auto", kind):
            continue
        problem = problem_of()
        if problem is None:
            return describe("asked for" if name == kind else "the fastest found")
        if name == kind:
            raise DeviceError(
                f"The device {kind} cannot be used: {problem}. "
                "Choose auto or cpu, which always works."
            )
        # MPS exists on Macs alone; elsewhere its absence tells nobody anything
        if kind == "cuda" or platform.system() == "Darwin":
            problems.append(problem)
    return _cpu("; ".join(problems))


def _cuda_problem() -> str | None:
    """Return why CUDA cannot be used, or None."""
    import torch

    build = torch.version.cuda or getattr(torch.version, "hip", None)
    if build is None:
        return f"torch {torch.__version__} is a build for CPUs only"
    with warnings.catch_warnings(record=True) as caught:
        # torch tells by a warning that a driver is there but too old
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        told = f" ({str(caught[0].message).splitlines()[0]})" if caught else ""
        return f"no CUDA GPU found by torch {torch.__version__}{told}"
    return _probe("cuda")


def _mps_problem() -> str | None:
    """Return why Apple's GPU cannot be used, or None."""
    import torch

    if not torch.backends.mps.is_built():
        return f"torch {torch.__version__} is built without MPS"
    if not torch.backends.mps.is_available():
        return "no GPU found by MPS, which needs macOS 12.3 or later"
    return _probe("mps")


def _probe(name: str) -> str | None:
    """Return what goes wrong in a first computation, or None."""
    import torch

    try:
        total = torch.ones(8, device=name).sum().item()
    except RuntimeError as error:
        return f"the GPU does not compute ({str(error).splitlines()[0]})"
    return None if total == len(range(8)) else "the GPU computes wrong numbers"


def _cuda(reason: str) -> Device:
    import torch

    return Device(
        name="cuda",
        title=torch.cuda.get_device_name(),
        reason=reason,
        memory_bytes=torch.cuda.mem_get_info()[0],
        bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
    )


def _mps(reason: str) -> Device:
    import torch

    return Device(
        name="mps",
        title=f"Apple GPU ({platform.processor() or platform.machine()})",
        reason=reason,
        memory_bytes=torch.mps.recommended_max_memory(),
    )


def _cpu(reason: str) -> Device:
    import torch

    threads = torch.get_num_threads()
    return Device(
        name="cpu",
        title=f"CPU with {threads} of {os.cpu_count() or threads} threads",
        reason=reason,
        memory_bytes=available_memory(),
    )
