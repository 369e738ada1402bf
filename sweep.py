"""Tune any keys of a run with Optuna, and find out whether the answer can be believed.

``python sweep.py --help`` shows what a search file holds. Heavy imports wait until a study begins.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
