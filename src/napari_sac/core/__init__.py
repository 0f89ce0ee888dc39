"""The library: no napari and no Qt in here."""
