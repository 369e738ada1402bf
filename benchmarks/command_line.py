"""The command line of a benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """The options of one benchmark, whose help begins with the file's own text.

    Args:
        module: what Python is to run.
        text: its docstring.
    """

    def __init__(self, module: str, text: str | None) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_numbers(self, *options: tuple[str, int, str]) -> None:
        """Add options that take a whole number from 1 on.

        Args:
            options: of each its name, its default, and what the number is of.
        """
        for option, default, meaning in options:
            self.add_argument(
                option,
                type=at_least(1),
                default=default,
                metavar="N",
                help=f"{meaning} ({default})",
            )


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number of a command line that must not be smaller.

    Args:
        least: the smallest number.
    """

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number >= {least}, not {text}")
        return int(text)

    return number
