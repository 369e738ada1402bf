"""Mistakes in what was asked: the error that carries them, and the nearest right word."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from engine.config.messages import one_line

MOST = 3  # names suggested at once


class ConfigError(Exception):
    """Mistakes in the config, one line each; nothing has been run or written."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(one_line(mistake) for mistake in mistakes)
        super().__init__("\n".join(self.mistakes))


@contextlib.contextmanager
def mistakes_of(*kinds: type[Exception]) -> Iterator[None]:
    """Turn a package's own error into a :class:`ConfigError`: one line, exit code 2."""
    try:
        yield
    except kinds as error:
        raise ConfigError([str(error)]) from error


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return ``" (did you mean x?)"``, or nothing when no candidate is near.

    Candidates that have the word in them come before those that are spelled alike.
    """
    names = list(candidates)
    having = sorted((name for name in names if len(word) > 2 and word in name), key=len)[:MOST]
    close = having or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
