"""Adapters as a viewer knows them: which there are, what is wrong with them, new ones.

What reads weights runs in a worker's thread; the rest needs no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_sac.core.errors import (
    IncompatibleAdapterError,
    ModelNotFoundError,
    NapariSacError,
    WeightsError,
)
from napari_sac.core.io import atomic_path
from napari_sac.core.models.adapter import (
    SHIPPED_ADAPTERS,
    WEIGHT_NAMES,
    AdapterInfo,
    adapter_folders,
    add_adapter,
    check_base,
    export_merged,
    find_adapter,
    free_name,
    read_adapter_info,
    user_adapters,
)
from napari_sac.core.models.registry import (
    ModelSpec,
    download_model,
    get_spec,
    weights_sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sac.core.progress import Progress
    from napari_sac.viewer.inference import LoadedModel


@dataclass(frozen=True)
class ListedAdapter:
    """An adapter of the package or of the user, whole or not.

    Parameters
    ----------
    name : str
        Of its folder.
    path : Path
    own : bool
        Whether it is the user's; those of the package stay as they are.
    info : AdapterInfo or None
        None if it is damaged.
    problem : str
        Why it cannot be used, as a sentence; empty if it can.
    """

    name: str
    path: Path
    own: bool
    info: AdapterInfo | None
    problem: str = ""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name if self.info is None else self.info.shown_title


def every_adapter() -> tuple[ListedAdapter, ...]:
    """Return the user's adapters, the newest first, then those of the package."""
    own = [_look_at(folder, own=True) for folder in adapter_folders(user_adapters())]
    # of one day in order of the name
    own.sort(
        key=lambda listed: listed.info.created if listed.info else "", reverse=True
    )
    shipped = [
        _look_at(folder, own=False) for folder in adapter_folders(SHIPPED_ADAPTERS)
    ]
    return (*own, *shipped)


def adapter_key(info: AdapterInfo) -> str:
    """Return an adapter's name, or its folder where the name means another one."""
    try:
        known = find_adapter(info.name)
    except NapariSacError:
        return str(info.path)
    return info.name if known.path.resolve() == info.path.resolve() else str(info.path)


def adapter_path(adapter: str) -> Path | None:
    """Return the folder that a name or a folder means; None if it is gone."""
    try:
        return find_adapter(adapter).path.resolve()
    except NapariSacError:
        return None


def title_of(model: str, adapter: str | None) -> str:
    """Return what people call a model with its adapter, also where they are gone."""
    try:
        title = get_spec(model).title
    except NapariSacError:
        title = model
    if not adapter:
        return f"{title} without adapter"
    try:
        return f"{title} with {find_adapter(adapter).shown_title}"
    except NapariSacError:
        # a session may come from a computer that writes paths in another way
        folder = re.split(r"[\\/]", adapter)[-1]
        return f"{title} with {folder}"


def check_choice(model: str, adapter: str | None) -> None:
    """Raise unless there is such a model, and the adapter is whole and made for it.

    Raises
    ------
    NapariSacError
        Saying what is wrong, and what to choose.
    """
    spec = get_spec(model)
    if adapter:
        info = find_adapter(adapter)
        # without a hash at hand, only loading tells whether the weights are others
        own = info.base_sha256 if info.base == spec.name else ""
        check_base(info, spec.name, spec.sha256 or own)


def bring_adapter(folder: Path, progress: Progress) -> AdapterInfo:
    """Copy an adapter that fits a model here to the user's own; imports torch.

    Its name is its folder's; if that is taken, with a number behind.

    Raises
    ------
    NapariSacError
        If it is damaged, or for a model that is not here or has other weights;
        ``Cancelled`` from ``progress``. Nothing was copied.
    """
    from napari_sac.core.models.weight_files import read_weights

    progress("reading the adapter", 0, 0)
    info = read_adapter_info(folder)
    spec = _base_of(info)
    check_base(info, spec.name, weights_sha256(spec))
    for file in WEIGHT_NAMES:
        progress("reading the adapter", 0, 0)
        try:
            read_weights(info.path / file)
        except WeightsError as error:
            raise IncompatibleAdapterError(
                f"The adapter {folder} is damaged and was not added. {error}"
            ) from error
    progress("copying the adapter", 0, 0)
    return add_adapter(folder, free_name(info.name))


def write_merged(info: AdapterInfo, file: Path, progress: Progress) -> Path:
    """Write base and adapter as one SAM weight file; imports torch.

    Raises
    ------
    NapariSacError
        As :func:`~napari_sac.core.models.adapter.export_merged`; ``Cancelled`` from
        ``progress``. What was at ``file`` is kept.
    """
    spec = _base_of(info)
    if spec.url is not None:
        download_model(spec, progress)
    progress("merging the adapter into the model", 0, 0)
    with atomic_path(file) as partial:
        export_merged(info, partial)
        progress("writing the file", 0, 0)
    return file


def _look_at(folder: Path, *, own: bool) -> ListedAdapter:
    try:
        info = read_adapter_info(folder)
    except IncompatibleAdapterError as error:
        return ListedAdapter(folder.name, folder, own, None, str(error))
    try:
        spec = _base_of(info)
        check_base(info, spec.name, spec.sha256 or info.base_sha256)
    except IncompatibleAdapterError as error:
        return ListedAdapter(info.name, folder, own, info, str(error))
    return ListedAdapter(info.name, folder, own, info)


def _base_of(info: AdapterInfo) -> ModelSpec:
    try:
        return get_spec(info.base)
    except ModelNotFoundError as error:
        raise IncompatibleAdapterError(
            f"The adapter {info.shown_title} is for the model {info.base}, "
            "which is not here. Add that model first: napari-sac models import FILE"
        ) from error


def is_current(loaded: LoadedModel) -> bool:
    """Return whether a loaded model and its adapter are still those on the disk."""
    spec, before = loaded.model.spec, loaded.model.adapter
    try:
        if get_spec(spec.name).sha256 != spec.sha256:
            return False
        if loaded.choice.adapter is None or before is None:
            return True
        now = find_adapter(loaded.choice.adapter)
    except NapariSacError:
        return False
    # another title does not make it another adapter
    return replace(now, title=before.title) == before
