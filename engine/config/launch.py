"""How a script starts: what it needs is there, and Ctrl-C is one line from the first moment on.

Imported before anything else is, by whatever Python there is and perhaps without the environment:
it takes from the standard library alone.
"""

from __future__ import annotations

import os
import signal
import sys

OLDEST = (3, 11)
STOPPED = "stopped by SIGINT; run the same command to resume"


def launch(script: str) -> int:
    """Run ``main`` of a script with the words of the command line, and return its exit code.

    Args:
        script: the module, such as ``train``.
    """
    if sys.version_info[:2] < OLDEST:
        return _refused("Python {}.{} is too old".format(*sys.version_info[:2]))
    signal.signal(signal.SIGINT, _leave)
    import importlib.util

    try:
        code: int = importlib.import_module(script).main(sys.argv[1:])
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if importlib.util.find_spec(missing) is not None:
            raise
        return _refused(missing + " is not installed here")
    except KeyboardInterrupt:
        _say(STOPPED)
        return 128 + signal.SIGINT
    return code


def work_begins() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again: from here on there is something to clean up."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, _frame: object) -> None:
    """End the process without an exception, which some library would catch as it is imported."""
    _say(STOPPED)
    os._exit(128 + number)


def _refused(reason: str) -> int:
    _say(f"{reason}: activate the environment (source .venv/bin/activate), or use make train")
    return 2


def _say(line: str) -> None:
    """Print a line, of several processes of one run the first alone."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, (line + "\n").encode())
