"""What the user has set in napari's Preferences."""

from __future__ import annotations

from dataclasses import dataclass

from napari.settings import get_plugin_settings

from napari_sac.viewer.session import DEFAULT_CACHE_BYTES

_PLUGIN = "napari-sac"


@dataclass(frozen=True)
class ComputeSettings:
    """The category *Compute*; the defaults are those of ``napari.yaml``.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        What a dock chooses when it is opened.
    cache_mb : int
        Memory for embeddings.
    """

    device: str = "auto"
    cache_mb: int = DEFAULT_CACHE_BYTES >> 20


def compute_settings() -> ComputeSettings:
    """Return the settings; the defaults if napari does not know the plugin."""
    plugins = get_plugin_settings()
    if _PLUGIN not in plugins:
        return ComputeSettings()
    compute = plugins[_PLUGIN].compute
    return ComputeSettings(compute.device, compute.cache_mb)


def key_settings() -> dict[str, str]:
    """Return the key of each action as it is set; nothing if napari knows no plugin.

    The actions are those of :mod:`napari_sac.viewer.keys`.
    """
    plugins = get_plugin_settings()
    if _PLUGIN not in plugins:
        return {}
    shortcuts = plugins[_PLUGIN].shortcuts
    return {name: str(key) for name, key in shortcuts.model_dump().items()}
