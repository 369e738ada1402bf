"""What of these tests there is where Triton, which is made for Linux alone, is missing."""

import importlib.util

OF_TRITON = ["_interpreted.py", "_launched.py", "test_device_losses.py"]
collect_ignore = [] if importlib.util.find_spec("triton") else OF_TRITON
