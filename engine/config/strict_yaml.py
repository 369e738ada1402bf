"""YAML as a config is written: safe, no key twice, 1e-3 a number, on, off and 010 words."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from engine.config.messages import shown
from engine.config.mistakes import ConfigError, nearest


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads plain words as YAML 1.2 does.

    Keys are text as they are written: a class may be called 0, 1e3 or null.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not supported, write it out")
        return super().compose_node(parent, index)

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: Any = None,  # noqa: ARG002 - whatever is asked, values are whole
    ) -> dict[Any, Any]:
        seen: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                key = shown(self.construct_object(key_node, True))
                raise yaml.YAMLError(f"line {line}: expected a key, not {key}")
            key, value = key_node.value, self.construct_object(value_node, True)
            if key in seen and seen[key] != value:
                raise yaml.YAMLError(f"line {line}: key {key} appears twice with different values")
            seen[key] = value
        return seen


# The core schema of YAML 1.2, but for 010: YAML 1.1 reads it as 8 and YAML 1.2 as 10, so that it is
# text here. YAML 1.1 also makes objects of dates, booleans of on and off, and 90 of 1:30.
_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
)
_Loader.yaml_implicit_resolvers = {}


class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Safe YAML that quotes text which this dialect, or YAML 1.1, would not read as text.

    The one in C, where PyYAML has it, is three times as fast.
    """


_BOTH: tuple[Any, ...] = (_Loader, Dumper)
for _kind, _pattern, _first in _CORE:
    for _class in _BOTH:
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _first
        )


def plain_number(text: str) -> str:
    """Return how to write a text that YAML 1.1 reads as a number and this dialect does not.

    >>> plain_number("010"), plain_number("1_000"), plain_number("ten")
    ('10', '1000', '')
    """
    return str(int(text)) if re.fullmatch(r"[-+]?[0-9]+(_[0-9]+)*", text) else ""


def parse(text: str) -> Any:
    """Return the value of a text in this dialect.

    Raises:
        yaml.YAMLError: it is not of it.
    """
    return deepcopy(_parsed(text))


@lru_cache(maxsize=1024)  # a table or a sweep reads the same few files and words once a run
def _parsed(text: str) -> Any:
    # _Loader is a SafeLoader: it constructs plain values only.
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file as strictly as a config's.

    Raises:
        ConfigError: it cannot be read, or holds no keys and values.
    """
    return deepcopy(read_shared_yaml(path))


def read_shared_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file as :func:`read_yaml` for who changes nothing of what is returned.

    Raises:
        ConfigError: as :func:`read_yaml`.
    """
    try:
        file = path.expanduser()
    except RuntimeError:
        message = f"{path}: {path.parts[0]} has no home folder; write it in full"
        raise ConfigError([message]) from None
    try:
        content = _parsed(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError([f"{path}: no such file{nearest(str(path), there)}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError([f"{path}: cannot be read: {reason}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: not valid YAML: {_yaml_reason(error)}"]) from error
    if isinstance(content, dict):
        return content
    if content is None:
        return {}
    raise ConfigError([f"{path}: expected keys and values, such as 'seed: 1'"])


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + " ".join(str(getattr(error, "problem", None) or error).split())
