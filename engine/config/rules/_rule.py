"""What a rule is."""

from collections.abc import Callable, Iterator

from engine.config.schema import Config

# Takes the whole config, and yields one line for each mistake.
Rule = Callable[[Config], Iterator[str]]
