"""The runs of a table: methods x settings x seeds, each a config that ``train.run`` takes.

Everything is checked before the first run: every cell resolves, and no two are the same run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import command_line
from engine.config.derived import has_validation
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config, ModelConfig
from engine.config.selection_rules import FINAL, catalogue
from engine.tables.table_file import TableFile, Words
from engine.training.named_precision import settled
from engine.training.run_folder import RunFolder

# A table is many runs: each leaves numbers and predictions, and no W&B folder and no figures.
QUIET = {"track.wandb": "disabled", "track.figures": "false"}
INIT_FROM = "model.init_from"
USUAL_ROOT = Path("runs")
"""Where the words of a second stage look for the first: the default of ``track.root``."""

Found = dict[tuple[str, str], list["Cell"]]
"""The runs of each method in each setting."""


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        words: what ``python train.py`` has to be given for it.
        config: the run; it keeps W&B and figures off unless the table says otherwise.
        after: the run whose weights this one starts from; None for a run of one stage.
    """

    method: str
    setting: str
    seed: int
    subset_seed: int
    words: Words
    config: Config
    fingerprint: str
    after: Cell | None = None

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.method} / {self.setting} / seed {self.seed} / subset {self.subset_seed}"

    @property
    def folder(self) -> Path:
        """The run folder, as train.py chooses it."""
        return RunFolder.of(self.config, fingerprint=self.fingerprint).path

    @property
    def usual_folder(self) -> Path:
        """The run folder where its words alone put it."""
        return USUAL_ROOT / self.config.data.name / self.fingerprint

    def stages_before(self) -> list[Cell]:
        """Return the runs it starts from, the first stage first."""
        return [] if self.after is None else [*self.after.stages_before(), self.after]

    def with_threads(self, threads: int) -> Cell:
        """Return this run on so many threads, unless the table says how many."""
        runtime = self.config.runtime
        if runtime.threads is not None:
            return self
        settled = {"runtime": runtime.model_copy(update={"threads": threads})}
        return replace(
            self,
            words=(*self.words, f"runtime.threads={threads}"),
            config=self.config.model_copy(update=settled),
            after=self.after and self.after.with_threads(threads),
        )

    def with_root(self, root: Path) -> Cell:
        """Return this run with its folder, and those of its earlier stages, below ``root``."""
        track = self.config.track.model_copy(update={"root": str(root)})
        after = self.after and self.after.with_root(root)
        changes = {"track": track, "model": _model(self.config, after)}
        return replace(self, config=self.config.model_copy(update=changes), after=after)


def cells(table: TableFile, *, tuned: Mapping[tuple[str, str], Words] | None = None) -> list[Cell]:
    """Return every run of the table, the first seed of all cells first, so that n grows evenly.

    Args:
        table: from :func:`engine.tables.table_file.read_table_file`.
        tuned: more words of the runs of a (row, setting).

    Raises:
        ConfigError: with every mistake in any of them, and every pair that is the same run.
    """
    pairs = [(method, setting) for setting in table.settings for method in table.methods]
    found: Found = {}
    mistakes: dict[str, list[tuple[str, str]]] = {}
    # A second stage is named by the fingerprint of the first.
    for method, setting in sorted(pairs, key=lambda pair: len(table.stages(pair[0]))):
        before = table.methods[method].after
        if before is not None and (before, setting) not in found:
            continue  # the mistake is the first stage's
        try:
            earlier = None if before is None else found[before, setting]
            more = (tuned or {}).get((method, setting), ())
            found[method, setting] = _runs(table, method, setting, after=earlier, more=more)
        except ConfigError as error:
            for mistake in error.mistakes:
                mistakes.setdefault(mistake, []).append((method, setting))
    lines = [
        f"{table.name}: {_place(where, table)}: {mistake}" for mistake, where in mistakes.items()
    ]
    lines += [f"{table.name}: {line}" for line in _twins(found)]
    if lines:
        raise ConfigError(lines)
    return [found[pair][n] for n in range(len(table.seed_pairs)) for pair in pairs]


def select(chosen: Sequence[Cell], method: str, setting: str | None = None) -> list[Cell]:
    """Return the cells of a method, or of a method in a setting.

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


def with_stages(chosen: Sequence[Cell]) -> list[Cell]:
    """Return the cells, each run that others start from before them."""
    every = [cell for last in chosen for cell in (*last.stages_before(), last)]
    return list({cell.fingerprint: cell for cell in every}.values())


# --- resolving -----------------------------------------------------------------------------------


def _runs(
    table: TableFile,
    method: str,
    setting: str,
    *,
    after: Sequence[Cell] | None,
    more: Words,
) -> list[Cell]:
    """Return the runs of one cell of the table, one a pair of seeds."""
    row = table.methods[method]
    given = command_line.parse([*table.base, *table.settings[setting], *row.words, *more])
    if given.seeds or given.fresh or given.print_config or given.help is not None:
        raise ConfigError(["options such as --seeds have no place in a table"])
    words = [word for word in given.overrides if not word.startswith("track.")]
    track = [word for word in given.overrides if word.startswith("track.")]
    said = {word.partition("=")[0] for word in track}
    if after and any(word.startswith(f"{INIT_FROM}=") for word in words):
        raise ConfigError([f"{INIT_FROM}: after={row.after} sets it; leave one of them out"])
    track += [f"{key}={value}" for key, value in QUIET.items() if key not in said]
    files = tuple(file.as_posix() for file in given.files)
    planned = {str(cell.folder): cell.fingerprint for cell in after or ()}
    start = [f"{INIT_FROM}={after[0].folder}"] if after else []
    usual = settled(
        load(
            given.files,
            [*words, *_seed_words(*table.seed_pairs[0]), *start, *track],
            planned=planned,
        )
    )
    if catalogue()[table.rule].needs_validation and not has_validation(usual):
        raise ConfigError(
            [f"rule={table.rule}: the run has no validation split; set rule: {FINAL}"]
        )
    if table.rule not in usual.evaluate.rules:
        kept = ", ".join((*usual.evaluate.rules, table.rule))
        raise ConfigError([f"rule={table.rule}: needs evaluate.rules=[{kept}]"])
    runs = []
    for number, (seed, subset) in enumerate(table.seed_pairs):
        earlier = after[number] if after else None
        # Reading the same files for every seed would take most of the time.
        imbalance = usual.data.imbalance.model_copy(update={"seed": subset})
        data = usual.data.model_copy(update={"imbalance": imbalance})
        model = _model(usual, earlier)
        config = usual.model_copy(update={"seed": seed, "data": data, "model": model})
        start = [f"{INIT_FROM}={earlier.usual_folder.as_posix()}"] if earlier else []
        runs.append(
            Cell(
                method=method,
                setting=setting,
                seed=seed,
                subset_seed=subset,
                words=(*files, *words, *start, *_seed_words(seed, subset)),
                config=config,
                fingerprint=fingerprint(config, planned=planned),
                after=earlier,
            )
        )
    return runs


def _model(config: Config, after: Cell | None) -> ModelConfig:
    """Return the model section of a run that starts from another."""
    if after is None:
        return config.model
    return config.model.model_copy(update={"init_from": str(after.folder)})


def _seed_words(seed: int, subset_seed: int) -> Words:
    return f"seed={seed}", f"data.imbalance.seed={subset_seed}"


def _place(where: Sequence[tuple[str, str]], table: TableFile) -> str:
    """Name the part of the table to mend: a mistake of a method shows in all settings."""
    methods = list(dict.fromkeys(method for method, _ in where))
    settings = list(dict.fromkeys(setting for _, setting in where))
    # A second stage is not looked at where its first is wrong.
    first_stages = {method for method, row in table.methods.items() if row.after is None}
    has_all_methods = first_stages <= set(methods) and len(where) == len(methods) * len(settings)
    if has_all_methods and len(settings) == len(table.settings) and len(where) > 1:
        return "base or every run"
    if len(where) == len(methods) * len(table.settings):
        return ", ".join(f"methods.{method}" for method in methods)
    if has_all_methods:
        return ", ".join(f"settings.{setting}" for setting in settings)
    return ", ".join(f"methods.{method} with settings.{setting}" for method, setting in where)


def _twins(found: Mapping[tuple[str, str], Iterable[Cell]]) -> Iterator[str]:
    """Report cells of the table whose runs are the same."""
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
