"""Our layers in a napari viewer, and what was decided about them; no Qt."""
