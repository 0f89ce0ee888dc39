"""Weight files in and out: tensors and nothing else.

A file from the internet is data, never code: safetensors, or torch files by the loader
that rebuilds tensors and refuses everything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_sac.core.errors import OutputError, WeightsError
from napari_sac.core.io import atomic_path
from napari_sac.core.models.prompt_generator import PromptGenerator

if TYPE_CHECKING:
    from collections.abc import Mapping

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")

_MOST_LEVELS = 4
"""Of a prompt generator: ``GENERATOR_STRIDE`` is that of four."""

MAXIMUM_FILE_BYTES = 16 << 30
"""A training checkpoint of the largest SAM, with its optimiser, is about 8 GiB."""

# Where training programs keep the weights inside a checkpoint: MedSAM, micro-sam
# (torch-em), Lightning, and what many scripts do.
_NESTED = ("model", "model_state", "state_dict", "model_state_dict")
# What wrappers put before every name: DistributedDataParallel, micro-sam, Lightning.
_PREFIXES = ("module.", "sam.", "model.")

# What torch.load raises, by experiment, for files that are damaged or made to harm.
_LOAD_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    AssertionError,
    ImportError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the named tensors of a weight file, on the CPU, of the stored type.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors``, ``.pth`` or ``.pt`` file. In a training checkpoint the
        weights are found under ``model``, ``model_state``, ``state_dict`` or
        ``model_state_dict``; a prefix that a wrapper gave to every name is removed.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, absurdly large, holds code, is not a table of
        tensors, or has values that are not finite or of a type that is not known.
    """
    file = Path(path)
    size = _checked_size(file)
    if file.suffix.lower() == SAFETENSORS_SUFFIX:
        return _checked_values(file, _read_safetensors(file))
    if file.suffix.lower() not in TORCH_SUFFIXES:
        raise WeightsError(
            f"{file} is not a weight file by its name: it must end in "
            f"{SAFETENSORS_SUFFIX} or {', '.join(TORCH_SUFFIXES)}."
        )
    weights = _find_tensors(file, _read_torch(file))
    claimed = sum(t.numel() * t.element_size() for t in weights.values())
    if claimed > 2 * size:
        raise WeightsError(
            f"{file} claims {claimed:,} bytes of weights in a file of {size:,}: "
            "it is damaged or made to harm, and was not loaded."
        )
    return _checked_values(file, weights)


def write_weights(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = False,
) -> None:
    """Write named tensors as safetensors, atomically.

    Parameters
    ----------
    path : str or Path
    tensors : mapping of str to tensor
    metadata : mapping of str to str, optional
    half : bool
        Whether fractions are written in half precision, as what ships is.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is kept.
    """
    plain = {
        name: _own_storage(
            tensor.half() if half and tensor.is_floating_point() else tensor
        )
        for name, tensor in tensors.items()
    }
    with atomic_path(path) as partial:
        # safetensors makes files that nobody else may read, whatever the umask
        partial.touch()
        mode = partial.stat().st_mode
        try:
            safetensors.torch.save_file(plain, partial, dict(metadata or {}))
            partial.chmod(mode)
        except SafetensorError as error:
            raise OutputError(
                f"{path} could not be written ({error}). Nothing there was changed; "
                "choose a folder that you may write to and that has space left."
            ) from error


def write_generator(
    path: str | Path, generator: PromptGenerator, *, half: bool = False
) -> None:
    """Write a prompt generator, with its widths in the file's metadata.

    The parameters are those of :func:`write_weights`.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is kept.
    """
    metadata = {"widths": json.dumps(generator.widths)}
    write_weights(path, generator.state_dict(), metadata, half=half)


def read_generator(path: str | Path) -> PromptGenerator:
    """Return the prompt generator of a file, in evaluation mode and float32.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or not a prompt generator.
    """
    file = Path(path)
    weights = read_weights(file)
    try:
        with safe_open(file, framework="numpy") as opened:
            widths = json.loads((opened.metadata() or {})["widths"])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise _damaged(file, ValueError("it does not tell its widths")) from error
    if (
        not isinstance(widths, list)
        or not 2 <= len(widths) <= _MOST_LEVELS
        or not all(isinstance(n, int) and 1 <= n <= 4096 for n in widths)
    ):
        raise _damaged(file, ValueError(f"its widths are {widths!r:.80}"))
    # on "meta" nothing is allocated for widths that the file only claims
    with torch.device("meta"):
        generator = PromptGenerator(widths)
    problem = describe_misfit(generator.state_dict(), weights)
    if problem:
        raise _misfit(file, problem)
    generator.load_state_dict(_as_float32(weights), assign=True)
    return generator.eval()


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_into(
    module: torch.nn.Module, weights: Mapping[str, Tensor], path: Path
) -> None:
    """Load weights into a module of exactly the same names and shapes, as float32.

    The module is changed only if every tensor fits.

    Raises
    ------
    WeightsError
        If a name is missing or too many, or a shape differs; ``path`` is named.
    """
    problem = describe_misfit(module.state_dict(), weights)
    if problem:
        raise _misfit(path, problem)
    module.load_state_dict(_as_float32(weights))


def describe_misfit(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> str | None:
    """Return in words why weights cannot take the place of others, or None.

    They must have the same names and shapes, and fractions where those have them.
    """
    missing = [name for name in expected if name not in weights]
    if missing:
        return f"{len(missing)} of {len(expected)} tensors are missing, as {missing[0]}"
    extra = [name for name in weights if name not in expected]
    if extra:
        return f"{len(extra)} tensors are too many, as {extra[0]}"
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            return (
                f"{name} has the shape {tuple(weights[name].shape)} "
                f"in place of {tuple(tensor.shape)}"
            )
        if tensor.is_floating_point() != weights[name].is_floating_point():
            return f"{name} has numbers of the type {weights[name].dtype}"
    return None


def _misfit(path: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"{path} does not fit: {problem}. It is damaged or made for another model."
    )


def _as_float32(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: as_float32(tensor) for name, tensor in weights.items()}


def as_float32(tensor: Tensor) -> Tensor:
    """Return floating-point tensors as float32, others (counters) as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _checked_size(file: Path) -> int:
    # pathlib raises where one may not look
    if not os.path.isfile(file):
        what = "is a folder" if os.path.isdir(file) else "is not there"
        raise WeightsError(f"{file} {what}. Choose a weight file.")
    size = file.stat().st_size
    if not 0 < size <= MAXIMUM_FILE_BYTES:
        raise WeightsError(
            f"{file} has {size:,} bytes: no weights that this program knows are like "
            "that. Get the file again from its source."
        )
    return size


def _checked_values(file: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # with one such value a model finds nothing anywhere, and does not say why
    for name, tensor in weights.items():
        try:
            finite = bool(tensor.isfinite().all())
        except NotImplementedError as error:
            # of 4 bits, and in some versions of torch of 8
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{file} has numbers of the type {kind} ({name}), with which torch "
                "does not compute. Nothing was loaded; get the weights in float32."
            ) from error
        if not finite:
            raise _damaged(file, ValueError(f"{name} has values that are no numbers"))
    return weights


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file, device="cpu")
    except (SafetensorError, *_LOAD_ERRORS) as error:
        raise _damaged(file, error) from error


def _read_torch(file: Path) -> object:
    """Return what a torch file holds, rebuilt without running any of its code."""
    try:
        _check_archive(file)
        with warnings.catch_warnings():
            # torch warns of old pickle protocols and sparse tensors; both end below
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise WeightsError(
                f"{file} holds code besides weights; it was not run and nothing was "
                "loaded. Ask its source for a file with weights only (safetensors)."
            ) from error
        raise _damaged(file, error) from error
    except _LOAD_ERRORS as error:
        raise _damaged(file, error) from error


def _check_archive(file: Path) -> None:
    # torch stores without compression; a compressed part may unpack to any size
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("it is compressed, which torch files are not")
        # entries may share their bytes, and be read once each all the same
        if sum(part.file_size for part in parts) > file.stat().st_size:
            raise ValueError("it claims more bytes than it has")


def _find_tensors(file: Path, content: object) -> dict[str, Tensor]:
    """Return the table of tensors in a checkpoint, without wrappers' prefixes."""
    tables = [content]
    if isinstance(content, dict):
        tables += [content[key] for key in _NESTED if key in content]
    for table in tables:
        if isinstance(table, dict) and table and all(map(_is_weight, table.items())):
            return _without_prefixes(table)
    raise WeightsError(
        f"{file} is not a table of named tensors, so it holds no weights that can be "
        "used. Choose the file of a model's weights (its state dict)."
    )


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_complex()
    )


def _without_prefixes(table: dict[str, Tensor]) -> dict[str, Tensor]:
    while True:
        shared = [p for p in _PREFIXES if all(name.startswith(p) for name in table)]
        if not shared:
            return dict(table)
        table = {name.removeprefix(shared[0]): t for name, t in table.items()}


def _own_storage(tensor: Tensor) -> Tensor:
    """Return the values alone in memory: safetensors refuses views of shared memory."""
    plain = tensor.detach().cpu().contiguous()
    return plain if plain.untyped_storage().nbytes() == plain.nbytes else plain.clone()


def _damaged(file: Path, error: Exception) -> WeightsError:
    text = str(error).strip().splitlines()
    reason = text[0].strip().rstrip(".")[:200] if text else type(error).__name__
    return WeightsError(
        f"{file} is damaged or not a weight file ({reason}). "
        "Nothing was loaded; get the file again from its source."
    )
