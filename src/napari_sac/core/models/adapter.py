"""An adapter: one folder with what fine-tuning changed, for one base model.

``adapter_config.json`` and ``adapter_model.safetensors`` are peft's own; beside them
lie the mask decoder, the prompt generator, and ``napari_sac.json``, which says what the
adapter is for. Listing adapters needs no torch.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sac.core.errors import (
    IncompatibleAdapterError,
    ModelNotFoundError,
    OutputError,
    WeightsError,
)
from napari_sac.core.folders import rename, whole_folder
from napari_sac.core.io import atomic_path, data_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from segment_anything.modeling import Sam
    from torch import Tensor

    from napari_sac.core.models.prompt_generator import PromptGenerator

FORMAT = 1
"""Version of the folder's layout; a larger one is from a newer program."""

INFO_FILE = "napari_sac.json"
CONFIG_FILE = "adapter_config.json"
LEARNED_FILE = "learned_from.json"
"""Which nuclei it has learned from; those that came with napari-sac have none."""

LORA_FILE = "adapter_model.safetensors"
DECODER_FILE = "mask_decoder.safetensors"
GENERATOR_FILE = "prompt_generator.safetensors"
WEIGHT_NAMES = (LORA_FILE, DECODER_FILE, GENERATOR_FILE)

LONGEST_TITLE = 60
"""Characters of an adapter's title."""

SHIPPED_ADAPTERS = Path(__file__).parent / "weights" / "adapters"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of an adapter or a model."""

NAME_RULE = (
    "Use up to 64 letters, digits, dots, dashes and underscores, and begin with a "
    "letter or a digit."
)

_MAXIMUM_JSON_BYTES = 1 << 20
_LONGEST_STEM = 50
"""Of a name that is suggested; the rest is for what tells it from others."""
_TEXTS = (
    "title",
    "description",
    "base",
    "base_sha256",
    "licence",
    "data_sha256",
    "parent",
    "data",
    "tissue",
    "created",
)
# What peft can do beside plain LoRA, and we do not: each must be off.
_UNSUPPORTED = (
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
)


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter says of itself.

    Parameters
    ----------
    name : str
        Name of its folder.
    path : Path
        The folder.
    title, description : str
        For people.
    base : str
        Name of the base model.
    base_sha256 : str
        Hash of that model's weight file.
    licence : str
        Of the weights.
    data_sha256 : str
        Hash of the training data, or empty.
    metrics : mapping
        ``before`` and ``after`` training, each name to number; or empty.
    versions : mapping of str to str
        Programs that made it.
    parent : str
        Name of the adapter that it was trained on from, or empty.
    data : str
        What it was trained on, in words.
    tissue : str
        What the images show, as the user calls it.
    created : str
        The day, as YYYY-MM-DD.
    promoted : bool
        Whether it was better than what it came from, on images held out.
    """

    name: str
    path: Path
    title: str
    description: str
    base: str
    base_sha256: str
    licence: str
    data_sha256: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    data: str = ""
    tissue: str = ""
    created: str = ""
    promoted: bool = True

    @property
    def shown_title(self) -> str:
        """What people call it: its title, or its name if it has none."""
        return self.title or self.name


def user_adapters() -> Path:
    """Return the folder of the user's own adapters; it may not exist yet."""
    return data_folder() / "adapters"


def adapter_folders(root: Path) -> list[Path]:
    """Return the folders in ``root`` that hold an adapter, by name.

    What a killed copy left is not among them.
    """
    files = root.glob(f"*/{INFO_FILE}")
    return sorted(file.parent for file in files if NAME.fullmatch(file.parent.name))


def list_adapters(shipped: Path = SHIPPED_ADAPTERS) -> tuple[AdapterInfo, ...]:
    """Return the adapters in the package, then the user's own, each by name.

    Damaged ones are left out; :func:`find_adapter` says what is wrong with them.
    """
    found: dict[str, AdapterInfo] = {}
    for folder in (shipped, user_adapters()):
        for place in adapter_folders(folder):
            try:
                info = read_adapter_info(place)
            except IncompatibleAdapterError:
                continue
            found.setdefault(info.name, info)
    return tuple(found.values())


def find_adapter(name: str | Path, shipped: Path = SHIPPED_ADAPTERS) -> AdapterInfo:
    """Return the adapter of that name, or in that folder.

    Parameters
    ----------
    name : str or Path
        A path is a folder. A text is a name where there is an adapter of that name,
        else a folder.
    shipped : Path, optional
        Where the adapters of the package are.

    Raises
    ------
    ModelNotFoundError
        If there is none.
    IncompatibleAdapterError
        If it is damaged.
    """
    places = []
    if isinstance(name, str) and NAME.fullmatch(name):
        places = [shipped / name, user_adapters() / name]
    for folder in (*places, Path(name)):
        if name != "" and _is_folder(folder):
            return read_adapter_info(folder)
    known = ", ".join(info.name for info in list_adapters(shipped)) or "none"
    raise ModelNotFoundError(
        f"There is no adapter {name}. Give the path of an adapter's folder, "
        f"or one of these names: {known}."
    )


def adapter_here(recorded: str) -> str:
    """Return where the adapter is that a session names, perhaps of another computer.

    Parameters
    ----------
    recorded : str
        A name or a folder. Of a folder that is not here only its name counts, if there
        is an adapter of that name; whether its weights are the same, the model's key
        in the session tells.
    """
    name = re.split(r"[\\/]", recorded)[-1]
    if name == recorded or not NAME.fullmatch(name) or _is_folder(recorded):
        return recorded
    folders = (SHIPPED_ADAPTERS / name, user_adapters() / name)
    return next((str(folder) for folder in folders if folder.is_dir()), recorded)


def _is_folder(path: str | Path) -> bool:
    """Return whether a folder can be seen there.

    pathlib raises where the path leads through another user's home, or is too long.
    """
    return os.path.isdir(path)


def read_adapter_info(path: str | Path) -> AdapterInfo:
    """Return what the adapter in a folder says of itself, and check that it is whole.

    Raises
    ------
    IncompatibleAdapterError
        If a file is missing, lies outside the folder, or is not as it should be.
    """
    folder = Path(path)
    for name in (INFO_FILE, CONFIG_FILE, *WEIGHT_NAMES, LEARNED_FILE):
        file = folder / name
        # pathlib raises where one may not look
        if not os.path.isfile(file):
            if name == LEARNED_FILE:
                continue
            raise _damaged(folder, f"{name} is missing")
        if file.resolve().parent != folder.resolve():
            raise _damaged(folder, f"{name} is a link to a place outside it")
    values = _read_json(folder, INFO_FILE)
    version = values.pop("format", None)
    if isinstance(version, int) and version > FORMAT:
        raise IncompatibleAdapterError(
            f"The adapter {folder} was made by a newer napari-sac (its format is "
            f"{version}, this program knows {FORMAT}). Update napari-sac to use it."
        )
    if version != FORMAT:
        raise _damaged(folder, f"{INFO_FILE} has the format {version!r}")
    try:
        info = AdapterInfo(name=folder.resolve().name, path=folder, **values)
    except TypeError as error:
        raise _damaged(folder, f"{INFO_FILE} has other fields than known") from error
    _check_types(info)
    return info


def check_base(info: AdapterInfo, name: str, sha256: str) -> None:
    """Raise unless the adapter was trained on the weights with this hash.

    Raises
    ------
    IncompatibleAdapterError
        Saying which model it needs.
    """
    if info.base_sha256 == sha256:
        return
    if info.base == name:
        raise IncompatibleAdapterError(
            f"The adapter {info.name} was trained on other weights of {name} than "
            "those here. Get the adapter for this version, or fine-tune again."
        )
    raise IncompatibleAdapterError(
        f"The adapter {info.name} was trained on {info.base} and does not fit {name}. "
        f"Choose the model {info.base}, or another adapter."
    )


def save_adapter(
    folder: str | Path,
    sam: Sam,
    generator: PromptGenerator,
    info: AdapterInfo,
    *,
    half: bool = False,
) -> AdapterInfo:
    """Write an adapter; it appears at ``folder``, whole, or not at all.

    Parameters
    ----------
    folder : str or Path
        Replaced if an adapter or an empty folder is there.
    sam : Sam
        With injected LoRA.
    generator : PromptGenerator
    info : AdapterInfo
        Its name and path are taken from ``folder``.
    half : bool
        Whether weights are written in half precision, as what ships is.

    Returns
    -------
    AdapterInfo
        As it can be read from ``folder``.

    Raises
    ------
    OutputError
        If the folder cannot be written, or something else than an adapter is there;
        what was there is kept.
    ValueError
        If ``sam`` has no LoRA.
    """
    target = Path(folder)
    if not _may_replace(target):
        raise OutputError(
            f"{target} is there already and is no adapter. Nothing was changed; "
            "choose another folder."
        )
    try:
        with whole_folder(target) as partial:
            _write_files(partial, sam, generator, info, half=half)
    except OSError as error:
        raise OutputError(
            f"The adapter {target} could not be written ({error.strerror or error}). "
            "What was there is kept; choose a folder that you may write to and that "
            "has space left."
        ) from error
    return replace(info, name=target.resolve().name, path=target)


def fill_adapter(
    folder: str | Path, sam: Sam, generator: PromptGenerator, info: AdapterInfo
) -> AdapterInfo:
    """Write an adapter into a folder that holds other files too, and keep those.

    The folder is an adapter from the moment that its last file, ``napari_sac.json``,
    is there.

    The parameters are those of :func:`save_adapter`.

    Raises
    ------
    OutputError
        If there is an adapter already, or the files cannot be written.
    """
    target = Path(folder)
    if (target / INFO_FILE).exists():
        raise OutputError(
            f"There is an adapter in {target} already, and it was kept. "
            "Choose another folder."
        )
    partial = target / f".{secrets.token_hex(6)}.part"
    try:
        partial.mkdir(parents=True)
        _write_files(partial, sam, generator, info)
        for name in (CONFIG_FILE, *WEIGHT_NAMES, INFO_FILE):
            rename(partial / name, target / name)
    except OSError as error:
        raise OutputError(
            f"The adapter {target} could not be written ({error.strerror or error}). "
            "Choose a folder that you may write to and that has space left."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(info, name=target.resolve().name, path=target)


def add_adapter(source: str | Path, name: str | None = None) -> AdapterInfo:
    """Copy an adapter's folder to the user's adapters, whole or not at all.

    Parameters
    ----------
    source : str or Path
        A folder with an adapter, as fine-tuning leaves it or somebody sent it.
    name : str, optional
        By default the folder's.

    Raises
    ------
    IncompatibleAdapterError
        If it is damaged.
    OutputError
        If the name is taken or not usable, or the copy cannot be written.
    """
    info = read_adapter_info(source)
    chosen = info.name if name is None else name
    target = new_adapter_folder(chosen)
    _copy_files(info.path, target)
    return read_adapter_info(target)


def retitle_adapter(name: str, title: str) -> AdapterInfo:
    """Give one of the user's adapters another title, which is what lists show.

    Its folder stays where it is, so sessions that were made with it find it.

    Raises
    ------
    ModelNotFoundError
        If the user has no adapter of that name; shipped ones cannot be renamed.
    IncompatibleAdapterError
        If it is damaged.
    OutputError
        If the title is empty or longer than a line, or cannot be written; the old one
        is kept.
    """
    info = _own(name)
    wanted = " ".join(title.split())
    if not 0 < len(wanted) <= LONGEST_TITLE:
        raise OutputError(
            f"A name has 1 to {LONGEST_TITLE} characters. The adapter {info.title} "
            "keeps its name; give it a shorter one."
        )
    with atomic_path(info.path / INFO_FILE) as partial:
        partial.write_text(_info_text(replace(info, title=wanted)), encoding="utf-8")
    return read_adapter_info(info.path)


def delete_adapter(name: str) -> None:
    """Delete one of the user's adapters.

    Raises
    ------
    ModelNotFoundError
        If the user has no adapter of that name; shipped ones cannot be deleted.
    OutputError
        If the folder cannot be deleted.
    """
    folder = user_adapters() / name
    if not NAME.fullmatch(name) or not (folder / INFO_FILE).is_file():
        raise _not_own(name)
    try:
        if folder.is_symlink():
            # what it leads to may be others' too
            folder.unlink()
            return
        # a folder that is half deleted must not be listed
        (folder / INFO_FILE).unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(
            f"The adapter {name} could not be deleted ({error.strerror or error}). "
            f"Delete the folder {folder} by hand."
        ) from error


def export_adapter(info: AdapterInfo, folder: str | Path) -> Path:
    """Copy an adapter to a new folder, whole or not at all, and return it.

    Raises
    ------
    OutputError
        If the folder is there already or cannot be written.
    """
    target = Path(folder)
    # pathlib raises where one may not look
    if os.path.exists(target):
        raise OutputError(
            f"{target} is there already, and it was kept. Choose another folder."
        )
    _copy_files(info.path, target)
    return target


def export_merged(info: AdapterInfo, file: str | Path) -> Path:
    """Write base and adapter as one SAM weight file, with SAM's own names.

    Other SAM tools can read it; what only this program has, the prompt generator, is
    not in it.

    Parameters
    ----------
    info : AdapterInfo
    file : str or Path
        Ends in ``.pth``.

    Raises
    ------
    NapariSacError
        If the base model cannot be got or is another one, or the file cannot be
        written.
    """
    import torch

    from napari_sac.core.models.attention import fuse_qkv
    from napari_sac.core.models.registry import load_model

    model = load_model(info.base, adapter=info.path, device="cpu")
    # given a path, torch raises something else than OSError where it cannot write
    with atomic_path(file) as partial, partial.open("wb") as opened:
        torch.save(fuse_qkv(model.sam.state_dict()), opened)
    return Path(file)


def restore_adapter(sam: Sam, info: AdapterInfo) -> PromptGenerator:
    """Put an adapter into ``sam``, in place, so that it can be trained on.

    Unlike :func:`apply_adapter` its LoRA stays LoRA.

    Raises
    ------
    IncompatibleAdapterError
        If a file is damaged, does not fit the sizes of ``sam``, or is not a LoRA as
        this program makes them; ``sam`` is then as it was.
    """
    import torch

    from napari_sac.core.models.lora import (
        PEFT_PREFIX,
        describe_training_misfit,
        inject_lora,
    )
    from napari_sac.core.models.weight_files import load_into

    scale, lora, decoder, generator = _read_checked(sam, info)
    problem = describe_training_misfit(lora)
    if problem:
        raise IncompatibleAdapterError(
            f"The adapter {info.path} can be used, but not trained on: {problem}. "
            "Nothing was changed; train on another one, or on the model alone."
        )
    rank = next(len(t) for name, t in lora.items() if name.endswith(".lora_A.weight"))
    numbers = {int(name.split(".blocks.")[1].split(".")[0]) for name in lora}
    inject_lora(sam, rank, alpha=scale * rank, blocks=sorted(numbers))
    parameters = dict(sam.named_parameters())
    with torch.no_grad():
        for name, tensor in lora.items():
            own = name.removeprefix(PEFT_PREFIX).replace(".weight", ".default.weight")
            parameters[own].copy_(tensor)
    load_into(sam.mask_decoder, decoder, info.path / DECODER_FILE)
    return generator


def apply_adapter(sam: Sam, info: AdapterInfo) -> PromptGenerator:
    """Merge an adapter into ``sam``, in place, and return its prompt generator.

    Whether the base is the right one is for :func:`check_base`. ``sam`` is changed only
    if everything fits.

    Raises
    ------
    IncompatibleAdapterError
        If a file is damaged or does not fit the sizes of ``sam``.
    """
    from napari_sac.core.models.lora import merge_lora_weights
    from napari_sac.core.models.weight_files import load_into

    scale, lora, decoder, generator = _read_checked(sam, info)
    merge_lora_weights(sam, lora, scale)
    load_into(sam.mask_decoder, decoder, info.path / DECODER_FILE)
    return generator


def _read_checked(
    sam: Sam, info: AdapterInfo
) -> tuple[float, dict[str, Tensor], dict[str, Tensor], PromptGenerator]:
    """Return LoRA's scale, its weights, the decoder's, and the prompt generator.

    All of them fit ``sam``, or it is an error.
    """
    from napari_sac.core.models.lora import describe_lora_misfit
    from napari_sac.core.models.weight_files import (
        describe_misfit,
        read_generator,
        read_weights,
    )

    scale = _lora_scale(info.path)
    try:
        lora = read_weights(info.path / LORA_FILE)
        decoder = read_weights(info.path / DECODER_FILE)
        generator = read_generator(info.path / GENERATOR_FILE)
    except WeightsError as error:
        raise _damaged(info.path, str(error)) from error
    problem = describe_lora_misfit(sam, lora)
    if problem is None:
        problem = describe_misfit(sam.mask_decoder.state_dict(), decoder)
    if problem is not None:
        raise _damaged(info.path, f"its weights do not fit {info.base}: {problem}")
    return scale, lora, decoder, generator


def _own(name: str) -> AdapterInfo:
    folder = user_adapters() / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        raise _not_own(name)
    return read_adapter_info(folder)


def _not_own(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"You have no adapter {name} of your own. Those that came with napari-sac "
        "stay as they are; export one to have a copy."
    )


def new_adapter_folder(name: str) -> Path:
    """Return the folder of an adapter that the user is going to make.

    Raises
    ------
    OutputError
        If the name is taken or not usable.
    """
    if not NAME.fullmatch(name):
        raise OutputError(f"{name!r} cannot be the name of an adapter. {NAME_RULE}")
    if _is_taken(name):
        raise OutputError(
            f"There is an adapter {name} already, and it was kept. Give another name."
        )
    return user_adapters() / name


def free_name(wanted: str, ending: str = "") -> str:
    """Return a name that no adapter has, as near to the wanted one as can be."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", wanted).strip("._-")[:_LONGEST_STEM]
    first = f"{stem or 'adapter'}{ending}"
    names = (first if i == 1 else f"{first}_{i}" for i in itertools.count(1))
    return next(name for name in names if not _is_taken(name))


def _is_taken(name: str) -> bool:
    return (user_adapters() / name).exists() or (SHIPPED_ADAPTERS / name).exists()


def _copy_files(source: Path, target: Path) -> None:
    try:
        with whole_folder(target) as partial:
            for name in (CONFIG_FILE, *WEIGHT_NAMES, INFO_FILE):
                shutil.copyfile(source / name, partial / name)
            if os.path.isfile(source / LEARNED_FILE):
                shutil.copyfile(source / LEARNED_FILE, partial / LEARNED_FILE)
            if target.exists():
                # made meanwhile: a copy replaces nothing
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except OSError as error:
        raise OutputError(
            f"The adapter could not be copied to {target} ({error.strerror or error}). "
            "Choose a folder that you may write to and that has space left."
        ) from error


def _write_files(
    folder: Path,
    sam: Sam,
    generator: PromptGenerator,
    info: AdapterInfo,
    *,
    half: bool = False,
) -> None:
    from napari_sac.core.models.lora import lora_state_dict
    from napari_sac.core.models.weight_files import write_generator, write_weights

    lora = lora_state_dict(sam)
    write_weights(folder / LORA_FILE, lora, {"format": "pt"}, half=half)
    config = replace(
        sam.peft_config["default"],
        base_model_name_or_path=info.base,
        inference_mode=True,
    )
    config.save_pretrained(folder)
    write_weights(folder / DECODER_FILE, sam.mask_decoder.state_dict(), half=half)
    write_generator(folder / GENERATOR_FILE, generator, half=half)
    (folder / INFO_FILE).write_text(_info_text(info), encoding="utf-8")


def _info_text(info: AdapterInfo) -> str:
    values = {k: v for k, v in asdict(info).items() if k not in ("name", "path")}
    return json.dumps({"format": FORMAT, **values}, indent=2) + "\n"


def _may_replace(target: Path) -> bool:
    # pathlib raises where one may not look
    if os.path.isdir(target):
        return os.path.isfile(target / INFO_FILE) or not any(target.iterdir())
    return not os.path.exists(target)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    try:
        if file.stat().st_size > _MAXIMUM_JSON_BYTES:
            raise _damaged(folder, f"{name} is too large")
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"{name} is not JSON") from error
    if not isinstance(values, dict):
        raise _damaged(folder, f"{name} is not a JSON object")
    return values


def _check_types(info: AdapterInfo) -> None:
    wrong = [name for name in _TEXTS if not isinstance(getattr(info, name), str)]
    wrong += [] if isinstance(info.promoted, bool) else ["promoted"]
    wrong += [
        n for n in ("metrics", "versions") if not isinstance(getattr(info, n), dict)
    ]
    if wrong:
        raise _damaged(info.path, f"{INFO_FILE} has no proper {', '.join(wrong)}")


def _lora_scale(folder: Path) -> float:
    config = _read_json(folder, CONFIG_FILE)
    used = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("peft_type") != "LORA" or used or config.get("bias") != "none":
        raise IncompatibleAdapterError(
            f"The adapter {folder} is of a kind that napari-sac does not know ("
            f"{', '.join(used) or config.get('peft_type')}). Use plain LoRA on q and v."
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    scale = math.nan
    if isinstance(rank, int) and rank >= 1 and isinstance(alpha, int | float):
        # whole numbers of JSON may be larger than any float
        with suppress(OverflowError):
            scale = alpha / rank
    if not math.isfinite(scale):
        raise _damaged(folder, f"{CONFIG_FILE} has no proper r and lora_alpha")
    return scale


def _damaged(folder: Path, what: str) -> IncompatibleAdapterError:
    return IncompatibleAdapterError(
        f"The adapter {folder} cannot be used: {what}. "
        "Get it again from its source, or fine-tune again."
    )
