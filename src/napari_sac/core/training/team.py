"""The processes that train together: one, or those that accelerate launched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from napari_sac.core.device import Device, select_device
from napari_sac.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torch's own launcher and the kinds of mpirun say how many processes there are;
accelerate uses one or the other."""

_PATIENCE = timedelta(days=1)
"""Of those who wait for the first process while it looks at what is held out."""


@dataclass(frozen=True, eq=False)
class Team:
    """One process, among those that share each step's crops.

    Parameters
    ----------
    device : Device
        Where this process computes.
    index, count : int
        Its place, from 0, and how many there are.
    accelerator : accelerate.Accelerator or None
        None if it is alone.
    """

    device: Device
    index: int = 0
    count: int = 1
    accelerator: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process validates and writes."""
        return self.index == 0

    def share(self, total: int) -> range:
        """Return which of a step's crops are this process's."""
        return range(self.index, total, self.count)

    def sum_gradients(
        self, parameters: Iterable[nn.Parameter], numbers: Sequence[float]
    ) -> list[float]:
        """Add up gradients over the processes, in place, and numbers besides.

        Parameters
        ----------
        parameters : iterable of Parameter
            The same in every process; one without a gradient counts as 0.
        numbers : sequence of float

        Returns
        -------
        list of float
            The sums of ``numbers``.
        """
        if self.accelerator is None:
            return list(numbers)
        learning = [p for p in parameters if p.requires_grad]
        own = torch.tensor(list(numbers), device=self.device.torch_device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        flat = torch.cat([*(part.ravel().float() for part in parts), own])
        total: Tensor = self.accelerator.reduce(flat, reduction="sum")
        start = 0
        for parameter in learning:
            end = start + parameter.numel()
            parameter.grad = total[start:end].view_as(parameter).to(parameter)
            start = end
        return [float(value) for value in total[start:]]

    def agree(self, numbers: Sequence[float]) -> list[float]:
        """Return the first process's numbers, in every process."""
        mine = list(numbers) if self.leads else [0.0] * len(numbers)
        return self.sum_gradients((), mine)

    def close(self) -> None:
        """Wait for the others, and end the connection."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()


def join_team(device: str = "auto") -> Team:
    """Return this process's part in the training.

    ``accelerate launch`` tells its processes of each other by the environment.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}

    Raises
    ------
    DeviceError
        If it was launched so and accelerate is not installed.
    """
    if max(int(os.environ.get(name, "1")) for name in _SIZES) <= 1:
        return Team(select_device(device))
    try:
        from accelerate import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
            Accelerator,
            InitProcessGroupKwargs,
        )
    except ImportError as error:
        raise DeviceError(
            "Several processes were launched, and accelerate is not installed. "
            'Install it by: pip install "napari-sac[train]"'
        ) from error
    patience = InitProcessGroupKwargs(timeout=_PATIENCE)
    accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[patience])
    if accelerator.device.type == "cuda":
        torch.cuda.set_device(accelerator.device)
    found = select_device(accelerator.device.type)
    return Team(
        found, accelerator.process_index, accelerator.num_processes, accelerator
    )
