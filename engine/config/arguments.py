"""What the command lines of the small commands share; mistakes are lines, never a usage text."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import NoReturn

from engine.config.mistakes import ConfigError, nearest


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are a :class:`ConfigError` that names the help of its command.

    Args:
        command: as it is typed, such as ``python -m engine.card``.
    """

    def __init__(self, command: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self._command = command
        self.add_argument("-h", "--help", action="store_true")

    def error(self, message: str) -> NoReturn:
        """Raise the mistake."""
        raise ConfigError([f"{message}; see {self._command} --help"])


def unknown_options(words: Iterable[str], options: Sequence[str]) -> list[str]:
    """Return a line for each word that is no option, with the nearest one.

    >>> unknown_options(["--rul"], ["--rule"])
    ['--rul: unknown option (did you mean --rule?)']
    """
    return [f"{word}: unknown option{nearest(word, options)}" for word in words]
