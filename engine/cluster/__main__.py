"""``python -m engine.cluster [FOLDER]``: what is queued, running, done, and what has failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.cluster.request import Request
from engine.cluster.states import read_submitted, states_of
from engine.config.homes import expanded
from engine.config.mistakes import ConfigError

HELP = """\
usage: python -m engine.cluster [FOLDER]

Show the jobs that --submit sent, by command: queued, running, done, or failed, with the file of
their output. FOLDER is that of the file of --submit (default: runs/jobs).
"""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    if {"-h", "--help"} & set(argv):
        print(HELP, end="")
        return 0
    folder = expanded(argv[0] if argv else Request().folder)
    try:
        if len(argv) > 1:
            raise ConfigError([f"{argv[1]}: one folder at a time"])
        for submitted in read_submitted(folder):
            print(f"{submitted.time}  {submitted.command}")
            states = states_of(submitted, folder)
            for job, state in states.items():
                print(f"  {job:<12} {state}")
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
