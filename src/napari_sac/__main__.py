"""``python -m napari_sac`` is the same as ``napari-sac``."""

import sys

from napari_sac.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
