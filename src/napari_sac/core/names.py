"""What files of an image's nuclei are called: like the image, with one of these behind.

Nothing is imported here: the command line needs them before anything heavy is loaded.
"""

LABELS_ENDING = "_labels"
LABELS_FILE = f"{LABELS_ENDING}.tif"
PROMPTS_FILE = "_prompts.csv"
OUTLINES_FILE = ".geojson"
OME_ZARR_FOLDER = ".ome.zarr"

PROMPTS_FILES = (PROMPTS_FILE, ".csv")
"""Where prompts are looked for, the first that is there."""

POINTS_FILES = ("_points.csv", ".csv", PROMPTS_FILE)
"""Where points are looked for, the first that is there."""
