"""A table as a YAML file: what its rows, columns and seeds are, checked before anything runs.

:mod:`engine.tables.cells` makes the runs of it. :func:`schema` prints every key with its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.cluster.request import Request
from engine.config.components import ROOT
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config, PathSafe, RuleName
from engine.config.strict_yaml import read_yaml

PAPERS = ROOT / "experiments" / "papers"
RESULTS = ROOT / "experiments" / "results"

Seed = Annotated[int, Ge(0), Lt(2**32)]
# A row or column: --only separates the two by a slash.
Label = Annotated[str, Field(pattern=r"^[^/\s]([^/\n]*[^/\s])?$")]
Words = tuple[str, ...]
# A file that has none of them is of another kind, not a table with mistakes.
OWN_KEYS = {"title", "methods", "settings"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Method(_Section):
    """A row; a plain list is its words."""

    after: Label | None = Field(
        None,
        description="a row whose run of the same setting and seeds gives model.init_from: a second "
        "stage of training",
    )
    words: Words = Field((), description="words of its runs")


class Reference(_Section):
    """Where in ``experiments/published.csv`` the numbers of a paper's table stand."""

    paper: str = Field(description="the column paper")
    table: str = Field(description="the column table_or_place")
    methods: dict[Label, str] = Field(description="our method: theirs, the column method")


class TableFile(_Section):
    """What a table consists of; a word is ``key=value`` or the path of a YAML file."""

    name: PathSafe = Field(description="names the results file; the name of the YAML file")
    title: str = Field(description="heading of the table")
    base: Words = Field((), description="words of every run")
    methods: Annotated[dict[Label, Method], MinLen(1)] = Field(
        description="row: its words, or {after: a row, words: [...]} for a second stage"
    )
    settings: Annotated[dict[Label, Words], MinLen(1)] = Field(description="column: its words")
    seeds: Annotated[tuple[Seed, ...], MinLen(1)] = Field(description="values of the key seed")
    subset_seeds: Annotated[tuple[Seed, ...], MinLen(1)] = Field(
        (0,), description="values of data.imbalance.seed"
    )
    pairing: Literal["crossed", "paired"] = Field(
        "crossed", description="every seed on every subset, or the n-th seed on the n-th subset"
    )
    baseline: str = Field(description="the method that others are compared with")
    rule: RuleName = Field(description="selection rule of the table's numbers")
    tune: str | None = Field(
        None,
        description="a search file: --tune searches it in every row of every setting, with as many "
        "trials in each, and the runs of the table then have the values found; null: off",
    )
    axes: dict[Literal["methods", "settings"], str] = Field(
        {}, description="what rows and settings are, for --variance, as in {methods: loss}"
    )
    labels: dict[Label, str] = Field({}, description="method: how the printed table calls it")
    published: tuple[Reference, ...] = Field((), description="the same table in the literature")
    notes: str = Field("", description="what a reader has to know; free text")

    @property
    def seed_pairs(self) -> list[tuple[int, int]]:
        """(seed, subset seed) of the runs in each cell of the table."""
        if self.pairing == "paired":
            return list(zip(self.seeds, self.subset_seeds, strict=True))
        return [(seed, subset) for seed in self.seeds for subset in self.subset_seeds]

    def stages(self, method: str) -> list[str]:
        """Return the rows that a row starts from, the first stage first, itself the last.

        Raises:
            ConfigError: the rows start from each other, in a circle.
        """
        found = [method]
        while (before := self.methods[found[0]].after) is not None:
            if before in found:
                circle = [before, *found[: found.index(before) + 1]]
                raise ConfigError([f"methods.{method}.after: a circle: {' -> '.join(circle)}"])
            found.insert(0, before)
        return found


def read_table_file(path: Path) -> TableFile:
    """Read the table that a YAML file describes; its runs are not resolved yet.

    Raises:
        ConfigError: with every mistake in the file, one line each.
    """
    content = {key: _tuples(value) for key, value in read_yaml(path).items()}
    if _is_recipe(content):
        raise ConfigError([f"{path}: {_recipe(path)}"])
    if not content.keys() & OWN_KEYS:
        raise ConfigError([f"{path}: {_other_kind(content)}"])
    if isinstance(content.get("methods"), dict):
        rows = content["methods"].items()
        content["methods"] = {k: v if isinstance(v, dict) else {"words": v} for k, v in rows}
    try:
        table = TableFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError([f"{path}: {_sentence(e, path.stem)}" for e in error.errors()]) from error
    if mistakes := [f"{path}: {mistake}" for mistake in _mistakes(table, path.stem)]:
        raise ConfigError(mistakes)
    return table


def schema() -> str:
    """Return every key of a table file with what it takes and what it means, one line each."""
    lines = []
    for model, prefix in ((TableFile, ""), (Method, "methods.ROW."), (Reference, "published.N.")):
        for key, info in model.model_fields.items():
            usual = "required" if info.is_required() else f"default {_plain(info.default)}"
            lines.append(
                f"  {prefix + key:<22}{info.description} ({_kind(info.annotation)}; {usual})"
            )
    return "\n".join(lines) + "\n"


# --- checks --------------------------------------------------------------------------------------


def _is_recipe(content: Mapping[str, Any]) -> bool:
    """Whether a file has no key of a table, and mostly those of a run's config."""
    known = content.keys() & Config.model_fields
    return not content.keys() & TableFile.model_fields and 2 * len(known) > len(content)


def _recipe(path: Path) -> str:
    """Say that a file is a recipe, and which table is called as it is."""
    table = PAPERS / f"{path.stem}.yaml"
    if not table.is_file():
        return "a recipe for train.py, not a table; tables are in experiments/papers"
    here = Path.cwd()
    shown = table.relative_to(here) if table.is_relative_to(here) else table
    return f"a recipe for train.py, not a table; the table of the same name is {shown}"


def _other_kind(content: Mapping[str, Any]) -> str:
    """Say that a file has no key of a table's own, and what it seems to be."""
    kind = "a file of another kind"
    if "space" in content:
        kind = "a search file for sweep.py --search"
    elif content and content.keys() <= Request.model_fields.keys():
        kind = "a file for --submit"
    elif not content:
        kind = "an empty file"
    return (
        f"{kind}, not a table, which has title, methods and settings (python reproduce.py --help); "
        "tables are in experiments/papers"
    )


def _mistakes(table: TableFile, stem: str) -> Iterator[str]:
    if table.name != stem:
        yield f"name={table.name}: must be that of the file, {stem}"
    if table.baseline not in table.methods:
        known = ", ".join(table.methods)
        hint = nearest(table.baseline, table.methods)
        yield f"baseline={table.baseline}: no such method{hint}; one of {known}"
    yield from _broken_stages(table)
    named = [(f"labels.{method}", method) for method in table.labels]
    named += [
        (f"published.{number}.methods.{method}", method)
        for number, reference in enumerate(table.published)
        for method in reference.methods
    ]
    for place, method in named:
        if method not in table.methods:
            yield f"{place}: no such method of this table{nearest(method, table.methods)}"
    for key, values in (("seeds", table.seeds), ("subset_seeds", table.subset_seeds)):
        if len(set(values)) < len(values):
            yield f"{key}: the same seed twice"
    if table.pairing == "paired" and len(table.seeds) != len(table.subset_seeds):
        yield (
            f"pairing=paired: needs as many subset_seeds as seeds, not {len(table.subset_seeds)} "
            f"for {len(table.seeds)}"
        )


def _broken_stages(table: TableFile) -> Iterator[str]:
    """Report rows that start from no row or from themselves; a circle is reported once."""
    unknown = [
        f"methods.{method}.after={row.after}: no such method{nearest(row.after, table.methods)}; "
        f"one of {', '.join(table.methods)}"
        for method, row in table.methods.items()
        if row.after is not None and row.after not in table.methods
    ]
    yield from unknown
    if unknown:
        return
    for method in table.methods:
        try:
            table.stages(method)
        except ConfigError as error:
            yield from error.mistakes
            return


def _sentence(error: Any, name: str) -> str:
    """Put one of pydantic's errors in words, with the nearest key for an unknown one.

    Args:
        error: one of those that a ``ValidationError`` holds.
        name: of the file, which is that of the table.
    """
    location = error["loc"]
    path = ".".join(str(part) for part in location if part != "[key]")
    sections: dict[str, type[_Section]] = {"published": Reference, "methods": Method}
    model = sections.get(str(location[0]), TableFile)
    leaf = str(location[-1])
    if error["type"] == "extra_forbidden":
        known = model if len(location) > 1 else TableFile
        return f"{path}: unknown key{nearest(leaf, known.model_fields)}"
    if error["type"] == "missing":
        known = model if len(location) > 1 else TableFile
        if path == "name":
            return f"name: is missing; write name: {name}, as the file is called"
        return f"{path}: is missing ({known.model_fields[leaf].description})"
    if location[-1:] == ("[key]",):
        return f"{path}: a name has no slash, no line break and no space at its ends"
    if error["type"] == "tuple_type" and model is Method:
        path = path.removesuffix(".words")
    reason = str(error["msg"]).replace("tuple", "list")
    return f"{path}: {reason[:1].lower()}{reason[1:]}"


def _tuples(value: Any) -> Any:
    """Turn lists into the tuples that strict pydantic wants."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value


# --- words for the schema ------------------------------------------------------------------------


def _kind(annotation: Any) -> str:
    """Say what a key takes, in YAML's words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if origin is tuple:
        return "list"
    if origin is dict:
        return "mapping"
    return "text"


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value) or '""'
