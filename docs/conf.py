"""Sphinx configuration: Markdown pages by MyST, the API from the docstrings."""

from napari_sac import __version__

project = "napari-sac"
author = "napari-sac developers"
copyright = "napari-sac developers"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the docstrings give types with shapes and ranges
napoleon_google_docstring = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = "napari-sac"
