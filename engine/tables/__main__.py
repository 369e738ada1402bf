"""``python -m engine.tables``: see :mod:`engine.tables.table`."""

import sys

from engine.tables.table import main

sys.exit(main(sys.argv[1:]))
