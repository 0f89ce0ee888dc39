"""Which base models there are, where their weights lie, and how to load one.

Listing models needs no torch, so that a dock can do it; loading imports it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError, safe_open

from napari_sac.core.config import DEFAULT_MODEL
from napari_sac.core.device import Device, is_out_of_memory, select_device
from napari_sac.core.errors import (
    DeviceError,
    ModelNotFoundError,
    WeightsError,
)
from napari_sac.core.io import atomic_path, data_folder
from napari_sac.core.models.adapter import (
    CONFIG_FILE,
    NAME,
    NAME_RULE,
    WEIGHT_NAMES,
    AdapterInfo,
    apply_adapter,
    check_base,
    find_adapter,
)
from napari_sac.core.progress import Progress, format_bytes, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from segment_anything.modeling import Sam
    from torch import Tensor

    from napari_sac.core.models.prompt_generator import PromptGenerator
    from napari_sac.core.models.sam import SamArchitecture

ArchitectureName = Literal["sac_tiny", "vit_b", "vit_l", "vit_h"]

SHIPPED_WEIGHTS = Path(__file__).parent / "weights"

_NOTE = "napari_sac"
_NOTE_FORMAT = 1
_META = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True)
class ModelSpec:
    """A base model, as the registry knows it.

    Parameters
    ----------
    name : str
        As the command line and the dock call it.
    title, description : str
        For a biologist.
    sizes : str or SamArchitecture
        The architecture, or its name: a name needs no torch until it is used.
    nucleus_diameter : float
        Diameter of a nucleus, in pixels of the model's input, at which it works best.
    window : int
        Side, in tokens, of the part of the embedding that one nucleus is decoded from.
    local_frame : bool
        Whether positions are encoded relative to that window (trained so), or to the
        whole input as in Meta's models.
    url : str or None
        Where to download the weights; None for shipped and imported ones.
    sha256 : str or None
        Hash of the weight file; None for shipped ones, whose file is at hand.
    size_bytes : int or None
        Of the weight file; None for shipped ones.
    licence : str
        Of the weights.
    source : str
        Who made them.
    imported : bool
        Whether the user added it.
    """

    name: str
    title: str
    description: str
    sizes: ArchitectureName | SamArchitecture
    nucleus_diameter: float
    window: int
    local_frame: bool
    url: str | None
    sha256: str | None
    size_bytes: int | None
    licence: str
    source: str
    imported: bool = False

    @property
    def architecture(self) -> SamArchitecture:
        """The sizes of the SAM; imports torch."""
        from napari_sac.core.models import sam

        if isinstance(self.sizes, sam.SamArchitecture):
            return self.sizes
        return {
            "sac_tiny": sam.SAC_TINY,
            "vit_b": sam.VIT_B,
            "vit_l": sam.VIT_L,
            "vit_h": sam.VIT_H,
        }[self.sizes]


@dataclass(frozen=True, eq=False)
class Model:
    """A base model with its prompt generator, loaded and ready on a device.

    Parameters
    ----------
    spec : ModelSpec
    sam : Sam
        With split attention, the adapter merged, in evaluation mode, frozen.
    generator : PromptGenerator
        The adapter's if there is one, else the shipped one.
    device : Device
        Where both lie.
    adapter : AdapterInfo or None
    key : str
        Identifies all weights: models with the same key compute the same.
    """

    spec: ModelSpec
    sam: Sam
    generator: PromptGenerator
    device: Device
    adapter: AdapterInfo | None
    key: str


def _meta_model(
    name: ArchitectureName, words: str, file: str, sha256: str, size_bytes: int
) -> ModelSpec:
    return ModelSpec(
        name=name,
        title=f"SAM ViT-{name[-1].upper()}",
        description=f"Meta's Segment Anything, {words}. It was not trained on nuclei, "
        "so expect to correct more, or use it with an adapter. Downloaded once, "
        f"{format_bytes(size_bytes)}.",
        sizes=name,
        # our choice, not measured: 2.5 tokens, and about 25 nuclei across the input
        nucleus_diameter=40.0,
        window=16,
        local_frame=False,
        url=_META + file,
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        source="Meta AI, https://github.com/facebookresearch/segment-anything",
    )


_REGISTERED = (
    ModelSpec(
        name="sac_tiny",
        title="SAC tiny",
        description="Our own small model for nuclei. Part of the installation, works "
        "offline and is fast without a GPU. Start with this one.",
        sizes="sac_tiny",
        nucleus_diameter=24.0,
        window=8,
        local_frame=True,
        url=None,
        sha256=None,
        size_bytes=None,
        licence="BSD-3-Clause",
        source="napari-sac, trained from scratch on CC0 images",
    ),
    # Meta publishes no SHA-256; these are the ones that micro-sam, SlicerSegmentWithSAM
    # and others check against. The file names carry the first digits of the MD5.
    _meta_model(
        "vit_b",
        "the smallest of its sizes (91 million parameters)",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    _meta_model(
        "vit_l",
        "the middle size (308 million parameters), slow without a GPU",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    _meta_model(
        "vit_h",
        "the largest size (636 million parameters), very slow without a GPU",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
)


def model_specs() -> tuple[ModelSpec, ...]:
    """Return all models: the registered ones, then the user's imported ones by name."""
    files = sorted(_imported_folder().glob("*.safetensors"))
    imported = [_read_imported(file) for file in files]
    taken = {spec.name for spec in _REGISTERED}
    others = [s for s in imported if s is not None and s.name not in taken]
    return (*_REGISTERED, *others)


def get_spec(name: str) -> ModelSpec:
    """Return the model of that name.

    Raises
    ------
    ModelNotFoundError
        If it is neither registered nor imported.
    """
    specs = {spec.name: spec for spec in model_specs()}
    if name not in specs:
        raise ModelNotFoundError(
            f"There is no model {name}. Choose one of {', '.join(specs)}, or add a "
            "weight file by: napari-sac models import FILE"
        )
    return specs[name]


def licence_of(model: str, adapter: str | Path | None) -> str:
    """Return the licence of the weights that a training starts from.

    What is trained on from them has it too.

    Raises
    ------
    ModelNotFoundError, IncompatibleAdapterError
        As :func:`find_adapter`.
    """
    return get_spec(model).licence if adapter is None else find_adapter(adapter).licence


def weights_path(spec: ModelSpec, shipped: Path = SHIPPED_WEIGHTS) -> Path:
    """Return where the model's weight file is, or will be once it is downloaded."""
    if spec.imported:
        return _imported_folder() / f"{spec.name}.safetensors"
    if spec.url is None:
        return shipped / f"{spec.name}.safetensors"
    return data_folder() / "models" / spec.url.rpartition("/")[2]


def is_downloaded(spec: ModelSpec) -> bool:
    """Return whether the weight file is there, and of the right size."""
    path = weights_path(spec)
    if not path.is_file():
        return False
    return spec.url is None or path.stat().st_size == spec.size_bytes


def download_model(
    model: str | ModelSpec,
    progress: Progress = ignore_progress,
    *,
    check: bool = False,
) -> Path:
    """Return the model's weight file; download it if it is not there.

    Parameters
    ----------
    model : str or ModelSpec
    progress : Progress, optional
    check : bool
        Whether also the bytes of a file that is there must be the right ones, and not
        only its size; to read gigabytes takes a while.

    Raises
    ------
    DownloadError
        If it cannot be downloaded; what came is kept, and the next call goes on there.
    ModelNotFoundError
        If there is no such model.
    """
    spec = get_spec(model) if isinstance(model, str) else model
    path = weights_path(spec)
    if spec.url is not None and (check or not is_downloaded(spec)):
        from napari_sac.core.models.download import download_file

        if spec.sha256 is None or spec.size_bytes is None:
            raise ValueError(f"{spec.name} has a URL and no hash or size")
        download_file(
            spec.url,
            path,
            sha256=spec.sha256,
            size_bytes=spec.size_bytes,
            progress=progress,
        )
    return path


def import_model(
    file: str | Path, name: str | None = None, progress: Progress = ignore_progress
) -> ModelSpec:
    """Add the weights of a SAM to the models of this user.

    Parameters
    ----------
    file : str or Path
        Weights of SAM ViT-B, -L or -H, or of ``sac_tiny``, by any tool that keeps SAM's
        names (MedSAM, micro-sam, PathoSAM, ...); the file is not needed afterwards.
        One that a registered model would download becomes that model.
    name : str, optional
        What to call the model; by default the stem of ``file``.
    progress : Progress, optional

    Raises
    ------
    WeightsError
        If the file is damaged, holds code, or is not of one of these architectures, or
        if the name is taken or not usable.
    """
    from napari_sac.core.models.weight_files import (
        file_hash,
        read_weights,
        write_weights,
    )

    path = Path(file)
    known = _find_registered(path)
    if known is not None and name in (None, known.name):
        progress(f"copying {path.name}", 0, 1)
        with atomic_path(weights_path(known)) as partial:
            shutil.copyfile(path, partial)
        progress(f"copying {path.name}", 1, 1)
        return known
    chosen = path.stem if name is None else name
    _check_new_name(chosen)
    progress(f"reading {path.name}", 0, 3)
    weights = read_weights(path)
    kind = deduce_architecture(path, weights)
    progress(f"checking {path.name}", 1, 3)
    note = {"format": _NOTE_FORMAT, "architecture": kind, "source": path.name}
    note["sha256"] = file_hash(path)
    progress(f"saving {chosen}", 2, 3)
    target = _imported_folder() / f"{chosen}.safetensors"
    write_weights(target, weights, {_NOTE: json.dumps(note)})
    progress(f"saving {chosen}", 3, 3)
    return get_spec(chosen)


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    adapter: str | Path | None = None,
    device: str = "auto",
    progress: Progress = ignore_progress,
    shipped: Path = SHIPPED_WEIGHTS,
) -> Model:
    """Return a model that is ready to segment; download its weights if need be.

    Parameters
    ----------
    name : str
        A name from :func:`model_specs`.
    adapter : str or Path, optional
        Name of an adapter, or its folder.
    device : {"auto", "cpu", "cuda", "mps"}
    progress : Progress, optional
    shipped : Path, optional
        Folder of the weights that are part of the package.

    Raises
    ------
    NapariSacError
        ``ModelNotFoundError``, ``WeightsError``, ``IncompatibleAdapterError``,
        ``DownloadError`` or ``DeviceError``.
    """
    spec = get_spec(name)
    where = select_device(device)
    info = None if adapter is None else find_adapter(adapter, shipped / "adapters")
    if info is not None and spec.sha256 is not None:
        # before gigabytes come that it does not fit
        check_base(info, spec.name, spec.sha256)
    if spec.url is not None:
        download_model(spec, progress)
    path = weights_path(spec, shipped)
    if not path.is_file():
        raise ModelNotFoundError(
            f"The weights of {spec.name} are not at {path}. "
            "Install napari-sac again, or choose another model."
        )
    progress(f"loading {spec.name}", 0, 1)
    base_sha256 = weights_sha256(spec, shipped)
    if info is not None:
        check_base(info, spec.name, base_sha256)
    sam = _load_sam(spec.architecture, path)
    generator, parts = _load_generator(sam, info, shipped)
    _move((sam, generator), where, spec)
    progress(f"loading {spec.name}", 1, 1)
    key = hashlib.sha256(" ".join([base_sha256, *parts]).encode()).hexdigest()
    return Model(spec, sam, generator, where, info, key)


def weights_sha256(spec: ModelSpec, shipped: Path = SHIPPED_WEIGHTS) -> str:
    """Return the hash that identifies the model's weights, as adapters note it."""
    if spec.sha256 is not None:
        return spec.sha256
    from napari_sac.core.models.weight_files import file_hash

    return file_hash(weights_path(spec, shipped))


def deduce_architecture(path: Path, weights: Mapping[str, Tensor]) -> ArchitectureName:
    """Return which architecture has exactly these names and shapes.

    Raises
    ------
    WeightsError
        If none has; ``path`` is named, and what differs from the nearest.
    """
    import torch

    from napari_sac.core.models.sam import build_sam
    from napari_sac.core.models.weight_files import describe_misfit

    problems = {}
    for spec in _REGISTERED:
        with torch.device("meta"):
            expected = build_sam(spec.architecture, split=False).state_dict()
        problem = describe_misfit(expected, weights)
        if problem is None:
            return spec.name  # type: ignore[return-value]
        shared = sum(
            name in weights and weights[name].shape == tensor.shape
            for name, tensor in expected.items()
        )
        problems[spec.name] = (shared / len(expected), problem)
    nearest = max(problems, key=lambda name: problems[name][0])
    raise WeightsError(
        f"{path} is not a SAM that this program knows ({', '.join(problems)}). "
        f"Nearest is {nearest}, but {problems[nearest][1]}."
    )


def _load_sam(architecture: SamArchitecture, path: Path) -> Sam:
    import torch

    from napari_sac.core.models.attention import split_qkv
    from napari_sac.core.models.sam import build_sam
    from napari_sac.core.models.weight_files import (
        as_float32,
        describe_misfit,
        read_weights,
    )

    weights = read_weights(path)
    # on "meta" nothing is allocated or initialised only to be overwritten
    with torch.device("meta"):
        sam = build_sam(architecture)
    state = split_qkv({name: as_float32(t) for name, t in weights.items()})
    problem = describe_misfit(sam.state_dict(), state)
    if problem:
        raise WeightsError(
            f"{path} does not fit its model: {problem}. "
            "Get the file again from its source."
        )
    sam.load_state_dict(state, assign=True)
    # the two buffers that a state dict does not hold
    for name in ("pixel_mean", "pixel_std"):
        values = torch.tensor(getattr(architecture, name)).view(-1, 1, 1)
        sam.register_buffer(name, values, persistent=False)
    return sam.eval()


def _load_generator(
    sam: Sam, info: AdapterInfo | None, shipped: Path
) -> tuple[PromptGenerator, list[str]]:
    """Return the generator, the adapter merged, and hashes of the files used."""
    from napari_sac.core.models.weight_files import file_hash, read_generator

    if info is None:
        path = shipped / "prompt_generator.safetensors"
        return read_generator(path), [file_hash(path)]
    generator = apply_adapter(sam, info)
    # its config holds the scale of LoRA
    names = (CONFIG_FILE, *WEIGHT_NAMES)
    return generator, [file_hash(info.path / name) for name in names]


def _move(
    modules: tuple[Sam, PromptGenerator], device: Device, spec: ModelSpec
) -> None:
    for module in modules:
        module.requires_grad_(False)
        try:
            module.to(device.torch_device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"{device.title} has too little free memory for {spec.name}. Close "
                "other programs that use it, or choose a smaller model or the cpu."
            ) from error


def _find_registered(file: Path) -> ModelSpec | None:
    """Return the model that would download just this file."""
    from napari_sac.core.models.weight_files import file_hash

    # pathlib raises where one may not look
    size = os.path.getsize(file) if os.path.isfile(file) else -1
    # to hash gigabytes takes a while, to compare sizes nothing
    alike = [s for s in _REGISTERED if s.url is not None and s.size_bytes == size]
    sha256 = file_hash(file) if alike else ""
    return next((spec for spec in alike if spec.sha256 == sha256), None)


def _imported_folder() -> Path:
    return data_folder() / "models" / "imported"


def _read_imported(file: Path) -> ModelSpec | None:
    """Return the model of a file that import_model wrote, or None for other files."""
    try:
        with safe_open(file, framework="numpy") as opened:
            note = json.loads((opened.metadata() or {})[_NOTE])
        if note["format"] != _NOTE_FORMAT:
            return None
        kind, source, sha256 = note["architecture"], note["source"], note["sha256"]
        base = {spec.name: spec for spec in _REGISTERED}[kind]
    except (
        OSError,
        SafetensorError,
        LookupError,
        ValueError,
        TypeError,
        RecursionError,
    ):
        return None
    return replace(
        base,
        name=file.stem,
        title=f"{file.stem} (imported)",
        description=f"Imported by you from {source}; built like {kind}.",
        url=None,
        sha256=sha256,
        size_bytes=file.stat().st_size,
        licence="unknown to napari-sac: see where you got it",
        source=str(source),
        imported=True,
    )


def _check_new_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise WeightsError(f"{name!r} cannot be the name of a model. {NAME_RULE}")
    # also of files that this version cannot read, and where case does not matter
    taken = {spec.name for spec in model_specs()}
    taken |= {file.stem for file in _imported_folder().glob("*.safetensors")}
    if name.casefold() in {other.casefold() for other in taken}:
        raise WeightsError(
            f"There is a model {name} already, and it was kept. Give another name."
        )
