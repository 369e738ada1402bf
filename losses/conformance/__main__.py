"""The command line of the conformance suite; the package's docstring says how to call it."""

from __future__ import annotations

import sys

from ._command import main

if __name__ == "__main__":
    sys.exit(main())
