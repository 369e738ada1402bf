"""A table as YAML: methods x settings x seeds become cells, each a config that ``train.run`` takes.

Everything is checked before the first run: every cell resolves, and no two are the same run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config import command_line
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError, nearest
from engine.config.rules import has_validation
from engine.config.schema import Config, PathSafe, RuleName
from engine.config.selection_rules import FINAL, catalogue
from engine.config.strict_yaml import read_yaml
from engine.training.run_folder import RunFolder

Seed = Annotated[int, Ge(0), Lt(2**32)]
# A row or column: --only separates the two by a slash.
Label = Annotated[str, Field(pattern=r"^[^/\s]([^/\n]*[^/\s])?$")]
Words = tuple[str, ...]

# A table is many runs: each leaves numbers and predictions, and no W&B folder and no figures.
QUIET = {"track.wandb": "disabled", "track.figures": "false"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Published(_Section):
    """Where in ``experiments/published.csv`` the numbers of a paper's table stand."""

    paper: str = Field(description="the column paper")
    table: str = Field(description="the column table_or_place")
    methods: dict[Label, str] = Field(description="our method: theirs, the column method")


class Grid(_Section):
    """What a table consists of; a word is ``key=value`` or the path of a YAML file."""

    name: PathSafe = Field(description="names the results file; the name of the YAML file")
    title: str = Field(description="heading of the table")
    base: Words = Field((), description="words of every run")
    methods: Annotated[dict[Label, Words], MinLen(1)] = Field(description="row: its words")
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
    published: tuple[Published, ...] = Field((), description="the same table in the literature")
    notes: str = Field("", description="what a reader has to know; free text")

    @property
    def seed_pairs(self) -> list[tuple[int, int]]:
        """(seed, subset seed) of the runs in each cell of the table."""
        if self.pairing == "paired":
            return list(zip(self.seeds, self.subset_seeds, strict=True))
        return [(seed, subset) for seed in self.seeds for subset in self.subset_seeds]


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        words: what ``python train.py`` has to be given for it.
        config: the run; it keeps W&B and figures off unless the table says otherwise.
    """

    method: str
    setting: str
    seed: int
    subset_seed: int
    words: Words
    config: Config
    fingerprint: str

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.method} / {self.setting} / seed {self.seed} / subset {self.subset_seed}"

    @property
    def folder(self) -> Path:
        """The run folder, as train.py chooses it."""
        return RunFolder.of(self.config, fingerprint=self.fingerprint).path

    def with_threads(self, threads: int) -> Cell:
        """This run on so many threads, unless the table says how many."""
        runtime = self.config.runtime
        if runtime.threads is not None:
            return self
        settled = {"runtime": runtime.model_copy(update={"threads": threads})}
        return replace(
            self,
            words=(*self.words, f"runtime.threads={threads}"),
            config=self.config.model_copy(update=settled),
        )

    def below(self, root: Path) -> Cell:
        """This run with its folder below ``root``."""
        track = self.config.track.model_copy(update={"root": str(root)})
        return replace(self, config=self.config.model_copy(update={"track": track}))


def read_grid(path: Path) -> Grid:
    """The table that a YAML file describes; its runs are not resolved yet.

    Raises:
        ConfigError: with every mistake in the file, one line each.
    """
    content = {key: _tuples(value) for key, value in read_yaml(path).items()}
    try:
        grid = Grid.model_validate(content)
    except ValidationError as error:
        raise ConfigError([f"{path}: {_sentence(e)}" for e in error.errors()]) from error
    if mistakes := [f"{path}: {mistake}" for mistake in _mistakes(grid, path.stem)]:
        raise ConfigError(mistakes)
    return grid


def cells(grid: Grid) -> list[Cell]:
    """Every run of the table, the first seed of all cells first, so that n grows evenly.

    Raises:
        ConfigError: with every mistake in any of them, and every pair that is the same run.
    """
    pairs = [(method, setting) for setting in grid.settings for method in grid.methods]
    found: dict[tuple[str, str], list[Cell]] = {}
    mistakes: dict[str, list[tuple[str, str]]] = {}
    for method, setting in pairs:
        try:
            found[method, setting] = _runs(grid, method, setting)
        except ConfigError as error:
            for mistake in error.mistakes:
                mistakes.setdefault(mistake, []).append((method, setting))
    lines = [
        f"{grid.name}: {_place(where, grid)}: {mistake}" for mistake, where in mistakes.items()
    ]
    lines += [f"{grid.name}: {line}" for line in _twins(found)]
    if lines:
        raise ConfigError(lines)
    return [found[pair][n] for n in range(len(grid.seed_pairs)) for pair in pairs]


def only(chosen: Sequence[Cell], method: str, setting: str | None = None) -> list[Cell]:
    """The cells of a method, or of a method in a setting.

    Raises:
        ConfigError: the table has no such method or setting.
    """
    mistakes = []
    for option, value, known in (
        ("method", method, dict.fromkeys(cell.method for cell in chosen)),
        ("setting", setting, dict.fromkeys(cell.setting for cell in chosen)),
    ):
        if value is not None and value not in known:
            mistakes.append(
                f"--only: no {option} {value!r}{nearest(value, known)}; one of {', '.join(known)}"
            )
    if mistakes:
        raise ConfigError(mistakes)
    return [c for c in chosen if c.method == method and setting in (None, c.setting)]


# --- checks --------------------------------------------------------------------------------------


def _mistakes(grid: Grid, stem: str) -> Iterator[str]:
    if grid.name != stem:
        yield f"name={grid.name}: must be that of the file, {stem}"
    if grid.baseline not in grid.methods:
        known = ", ".join(grid.methods)
        hint = nearest(grid.baseline, grid.methods)
        yield f"baseline={grid.baseline}: no such method{hint}; one of {known}"
    for number, reference in enumerate(grid.published):
        for method in reference.methods:
            if method not in grid.methods:
                hint = nearest(method, grid.methods)
                yield f"published.{number}.methods.{method}: no such method of this table{hint}"
    for key, values in (("seeds", grid.seeds), ("subset_seeds", grid.subset_seeds)):
        if len(set(values)) < len(values):
            yield f"{key}: the same seed twice"
    if grid.pairing == "paired" and len(grid.seeds) != len(grid.subset_seeds):
        yield (
            f"pairing=paired: needs as many subset_seeds as seeds, not {len(grid.subset_seeds)} "
            f"for {len(grid.seeds)}"
        )


def _sentence(error: Any) -> str:
    """One of pydantic's errors, with the nearest key for an unknown one."""
    path = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        model = Published if path.startswith("published.") else Grid
        leaf = str(error["loc"][-1])
        return f"{path}: unknown key{nearest(leaf, model.model_fields)}"
    if error["type"] == "missing":
        model = Published if path.startswith("published.") else Grid
        return f"{path}: is missing ({model.model_fields[str(error['loc'][-1])].description})"
    if error["loc"][-1:] == ("[key]",):
        return f"{path}: a name has no slash, no line break and no space at its ends"
    reason = str(error["msg"]).replace("tuple", "list")
    return f"{path}: {reason[:1].lower()}{reason[1:]}"


def _runs(grid: Grid, method: str, setting: str) -> list[Cell]:
    """The runs of one cell of the table, one a pair of seeds."""
    given = command_line.parse([*grid.base, *grid.settings[setting], *grid.methods[method]])
    if given.seeds or given.fresh or given.print_config or given.help is not None:
        raise ConfigError(["options such as --seeds have no place in a table"])
    words = [word for word in given.overrides if not word.startswith("track.")]
    track = [word for word in given.overrides if word.startswith("track.")]
    said = {word.partition("=")[0] for word in track}
    track += [f"{key}={value}" for key, value in QUIET.items() if key not in said]
    files = tuple(file.as_posix() for file in given.files)
    usual = load(given.files, [*words, *_seed_words(*grid.seed_pairs[0]), *track])
    if catalogue()[grid.rule].needs_validation and not has_validation(usual):
        raise ConfigError([f"rule={grid.rule}: the run has no validation split; set rule: {FINAL}"])
    if grid.rule not in usual.evaluate.rules:
        kept = ", ".join((*usual.evaluate.rules, grid.rule))
        raise ConfigError([f"rule={grid.rule}: needs evaluate.rules=[{kept}]"])
    runs = []
    for seed, subset in grid.seed_pairs:
        # Reading the same files for every seed would take most of the time.
        imbalance = usual.data.imbalance.model_copy(update={"seed": subset})
        data = usual.data.model_copy(update={"imbalance": imbalance})
        config = usual.model_copy(update={"seed": seed, "data": data})
        runs.append(
            Cell(
                method=method,
                setting=setting,
                seed=seed,
                subset_seed=subset,
                words=(*files, *words, *_seed_words(seed, subset)),
                config=config,
                fingerprint=fingerprint(config),
            )
        )
    return runs


def _seed_words(seed: int, subset_seed: int) -> Words:
    return f"seed={seed}", f"data.imbalance.seed={subset_seed}"


def _place(where: Sequence[tuple[str, str]], grid: Grid) -> str:
    """Which part of the table to mend: a mistake of a method shows in all settings."""
    methods = list(dict.fromkeys(method for method, _ in where))
    settings = list(dict.fromkeys(setting for _, setting in where))
    if len(where) == len(grid.methods) * len(grid.settings) and len(where) > 1:
        return "base or every run"
    if len(where) == len(methods) * len(grid.settings):
        return ", ".join(f"methods.{method}" for method in methods)
    if len(where) == len(settings) * len(grid.methods):
        return ", ".join(f"settings.{setting}" for setting in settings)
    return ", ".join(f"methods.{method} with settings.{setting}" for method, setting in where)


def _twins(found: Mapping[tuple[str, str], Iterable[Cell]]) -> Iterator[str]:
    """Cells of the table whose runs are the same."""
    seen: dict[str, tuple[str, str]] = {}
    for pair, runs in found.items():
        for run in runs:
            first = seen.setdefault(run.fingerprint, pair)
            if first != pair:
                yield (
                    f"{first[0]} / {first[1]} and {pair[0]} / {pair[1]} are the same run "
                    f"({run.fingerprint})"
                )
                break


def _tuples(value: Any) -> Any:
    """Lists as the tuples that strict pydantic wants."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
