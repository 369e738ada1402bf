"""How a script starts: what it needs is there, and Ctrl-C is one line from the first moment on.

Imported before anything else is, by whatever Python there is and perhaps without the environment:
it takes from the standard library alone.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

OLDEST = (3, 11)
STOPPED = "stopped by SIGINT; run the same command to resume"
USUAL_THRESHOLDS = gc.get_threshold()
IMPORTING_THRESHOLDS = (1_000_000, *USUAL_THRESHOLDS[1:])


def launch(script: str) -> int:
    """Run ``main`` of a script with the words of the command line, and return its exit code.

    Args:
        script: the module, such as ``train``.
    """
    if sys.version_info[:2] < OLDEST:
        return _refused("Python {}.{} is too old".format(*sys.version_info[:2]))
    signal.signal(signal.SIGINT, _leave)
    homeless = [word for word in sys.argv[1:] if _home_of_nobody(word)]
    for word in homeless:
        _say(f"{word}: {_home_of_nobody(word)} has no home folder; write it in full")
    if homeless:
        return 2
    # Imports make half a million objects that stay: to look through them for garbage again and
    # again took a fifth of the start-up.
    gc.set_threshold(*IMPORTING_THRESHOLDS)
    import importlib.util

    name_the_importer()

    try:
        code: int = importlib.import_module(script).main(sys.argv[1:])
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if importlib.util.find_spec(missing) is not None:
            raise
        return _refused(missing + " is not installed here")
    except KeyboardInterrupt:
        _say(STOPPED)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _left_by_the_reader()
    except Exception as error:
        from engine.config.mistakes import ConfigError

        # Some files of ours are read while modules are imported, before main can catch it.
        if not isinstance(error, ConfigError):
            raise
        for mistake in error.mistakes:
            _say(mistake)
        return 2
    # As Python ends it would look through all that is there once more, for memory that the system
    # is about to take back.
    gc.freeze()
    return code


def _home_of_nobody(word: str) -> str:
    """Return the ``~user`` at the beginning of a word or an option's value if there is no such one.

    Whatever opens such a path would raise. Keys of a config say so themselves.
    """
    path = word.partition("=")[2] if word.startswith("--") else word
    # Unlike that of pathlib this one leaves a path as it is where there is no such folder.
    is_there = not path.startswith("~") or os.path.expanduser(path) != path  # noqa: PTH111
    return "" if is_there else path.partition("/")[0]


def name_the_importer() -> None:
    """Tell ``inspect`` which modules the frozen code of ``import`` is.

    It looks for a module that it does not know among all that are there, each time. Pydantic asks
    it about every frame, those of ``import`` among them, for each class that has docstrings at its
    fields, and W&B has dozens: so most of the time went that W&B takes to start.
    """
    import inspect
    from pathlib import Path

    for name in ("_bootstrap", "_bootstrap_external"):
        file = Path(f"<frozen importlib.{name}>").absolute()
        inspect.modulesbyfile[str(file)] = f"importlib.{name}"


def work_begins() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again: from here on there is something to clean up.

    What a script has imported by then stays to its end, and no garbage collection looks at it
    again; later garbage may hold tensors, and is collected as soon as it usually is.
    """
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        gc.freeze()
        gc.set_threshold(*USUAL_THRESHOLDS)


def _left_by_the_reader() -> int:
    """End as other commands do when ``| head`` has read enough: silently."""
    # What is still buffered would be written, and fail again, as Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _leave(number: int, _frame: object) -> None:
    """End the process without an exception, which some library would catch as it is imported."""
    _say(STOPPED)
    os._exit(128 + number)


def _refused(reason: str) -> int:
    _say(f"{reason}: activate the environment (source .venv/bin/activate), or use make train")
    return 2


def is_first_here() -> bool:
    """Return whether this is the first, or the only, process of a run on this machine."""
    return os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0"


def _say(line: str) -> None:
    """Print a line, of several processes of one run the first of each machine alone."""
    if is_first_here():
        os.write(2, (line + "\n").encode())
