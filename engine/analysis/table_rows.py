"""The analysis of a table: one line for each method, over its finished runs, with intervals.

What is chosen is chosen run by run, on each run's own validation split. Runs are paired as
``reproduce.py`` pairs them, by seed and subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.analysis import conformal, scaling
from engine.analysis.adjustment import TAUS, tau_curve
from engine.analysis.calibration_error import equal_width_bins
from engine.analysis.stored_run import StoredRun, check_alpha, read_stored_run
from engine.config.mistakes import ConfigError
from engine.report.statistics import mean_and_std, paired_difference
from engine.tables.cells import Cell
from engine.tables.costs import mean_costs
from engine.tables.pairing import Scope, paired, scope_of, value_of
from engine.tables.record import RuleRecord, RunRecord, from_run_folder, of_today
from engine.tables.table_file import TableFile, read_table_file
from engine.tables.tuned import planned_runs, require_tuned
from engine.training.run_folder import RunFolder

FIELDS = {
    "balanced": "balanced accuracy as it is",
    "balanced_chosen": "at the tau that validation chose",
    "balanced_oracle": "at the tau that is best on test: no result",
    "tau": "the tau that validation chose",
    "few": "few classes as it is",
    "few_chosen": "few classes at the chosen tau",
    "ece": "ECE as it is",
    "ece_temperature": "ECE after temperature scaling on validation",
    "coverage_few": "coverage of few classes by marginal prediction sets",
    "coverage_few_adjusted": "the same by prevalence-adjusted ones",
    "size": "mean size of the marginal sets",
    "size_adjusted": "mean size of the prevalence-adjusted ones",
}
VALIDATION = "val/balanced_accuracy"
COMPARED = ("balanced", "balanced_chosen", "balanced_oracle")


def analyse_table(file: Path, *, alpha: float | None = None) -> dict[str, Any]:
    """Analyze every finished run of a table file.

    Args:
        file: of ``reproduce.py``.
        alpha: Share of images that a prediction set may miss; 0.1 by default.

    Raises:
        ConfigError: a mistake in the table, it is not tuned yet, none of its runs is finished, or
            ``alpha`` is given and none has a validation split.
    """
    table = read_table_file(file)
    require_tuned(table, file)
    planned = planned_runs(table, file)
    done = [cell for cell in planned if (cell.folder / "summary.json").is_file()]
    if not done:
        raise ConfigError(
            [f"{file}: none of its {len(planned)} runs is finished; make them with reproduce.py"]
        )
    if alpha is None:
        alpha = conformal.ALPHA
    else:
        check_alpha(alpha, [cell.folder for cell in done], rule=table.rule)
    records = of_today([_record(cell, table, alpha=alpha) for cell in done])
    folders = {cell.fingerprint: cell.folder for cell in done}
    settings = []
    for setting in table.settings:
        found = [record for record in records if record.setting == setting]
        if found:
            settings.append(_setting(found, table, folders=folders, of_table=records))
    return {
        "table": table.name,
        "title": table.title,
        "rule": table.rule,
        "alpha": alpha,
        "baseline": table.baseline,
        "planned": len(planned),
        "finished": len(done),
        "fields": FIELDS,
        "settings": settings,
    }


def _record(cell: Cell, table: TableFile, *, alpha: float) -> RunRecord:
    """Return the record of a run whose test numbers are those of the analysis."""
    record = from_run_folder(
        cell.folder, table=table.name, method=cell.method, setting=cell.setting, words=cell.words
    )
    run = read_stored_run(cell.folder, rule=table.rule)
    result = record.rules[table.rule]
    analysed = RuleRecord(
        epoch=result.epoch, val=result.val, test=numbers_of(run, alpha=alpha), recall=result.recall
    )
    return record.model_copy(update={"rules": {table.rule: analysed}})


def numbers_of(run: StoredRun, *, alpha: float) -> dict[str, float | None]:
    """Return the ``FIELDS`` of a run; None for what a run without validation cannot have."""
    counts, targets = run.class_counts, run.test.targets
    taus = np.union1d(TAUS, [run.tau])
    curve = tau_curve(run.test.log_probabilities, targets, counts, taus=taus, limits=run.limits)
    balanced, few = curve.of("balanced"), curve.of("few")
    own, best = curve.at(run.tau), curve.best()
    found = dict.fromkeys(FIELDS, None) | {
        "balanced": balanced[own],
        "balanced_oracle": balanced[best],
        "few": few[own],
        "ece": _ece(run, None),
    }
    if run.val is None or run.evaluated_val is None:
        return found
    chosen = tau_curve(run.val.log_probabilities, run.val.targets, counts, taus=taus).best()
    fitted = scaling.temperature(run.evaluated_val, run.val.targets)
    found |= {
        "balanced_chosen": balanced[chosen],
        "tau": float(taus[chosen]),
        "few_chosen": few[chosen],
        "ece_temperature": _ece(run, fitted),
    }
    limits = conformal.thresholds(run.evaluated_val, run.val.targets, counts, alpha=alpha)
    for name, way in (("", "marginal"), ("_adjusted", "prevalence-adjusted")):
        sets = conformal.prediction_sets(run.evaluated_test, targets, limits[way])
        rare = run.masks["few"][targets]
        found[f"coverage_few{name}"] = float(sets.covered[rare].mean()) if rare.any() else None
        found[f"size{name}"] = float(sets.size.mean())
    return found


def _ece(run: StoredRun, fitted: scaling.Scaling | None) -> float:
    """Return the ECE on test, in 15 bins of equal width."""
    found = scaling.confidences(run.evaluated_test, run.test.targets, scaling=fitted)
    gaps = found.confidence - (found.predicted == run.test.targets)
    return float(np.abs(np.bincount(equal_width_bins(found.confidence), gaps)).sum() / len(gaps))


def _setting(
    records: Sequence[RunRecord],
    table: TableFile,
    *,
    folders: Mapping[str, Path],
    of_table: Sequence[RunRecord],
) -> dict[str, Any]:
    scope = scope_of(records)
    baseline = [record for record in records if record.method == table.baseline]
    rows = []
    for method in table.methods:
        runs = [record for record in records if record.method == method]
        if not runs:
            continue
        rows.append(
            {
                "method": table.labels.get(method, method),
                "n": len(runs),
                "seeds": sorted({record.seed for record in runs}),
                "values": {field: _spread(runs, field, rule=table.rule) for field in FIELDS},
                "difference": {
                    field: _difference(runs, baseline, field, rule=table.rule, scope=scope)
                    for field in COMPARED
                    if method != table.baseline
                },
                # How much the choice of tau gives this method, run by run.
                "gain": _gain(runs, rule=table.rule, scope=scope),
                "seconds": training_seconds(runs, of_table),
                "curve": mean_curve(
                    [RunFolder(folders[record.fingerprint]).rows() for record in runs]
                ),
            }
        )
    return {
        "setting": records[0].setting,
        "title": records[0].title,
        "scope": scope.text,
        "class_counts": list(records[0].class_counts),
        "rows": rows,
    }


def training_seconds(
    runs: Sequence[RunRecord], records: Sequence[RunRecord]
) -> dict[str, Any] | None:
    """Return mean and spread of the seconds of training a run, earlier stages included.

    Args:
        runs: of the row.
        records: of the table, in which the earlier stages are found.

    Returns:
        None where the cost of a stage is not known.
    """
    spent = [mean_costs([run], records)["seconds"] for run in runs]
    known = [seconds for seconds in spent if seconds is not None]
    return mean_and_std(known)._asdict() if known and len(known) == len(spent) else None


def mean_curve(histories: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any] | None:
    """Return the mean of balanced accuracy on validation, at the epochs that every run has.

    Args:
        histories: of each run its lines of ``metrics.jsonl``.

    Returns:
        None where there is no such epoch.
    """
    lines = [
        {row["epoch"]: row[VALIDATION] for row in rows if row.get(VALIDATION) is not None}
        for rows in histories
    ]
    epochs = sorted(set.intersection(*map(set, lines)))
    if not epochs:
        return None
    mean = np.mean([[line[epoch] for epoch in epochs] for line in lines], axis=0)
    return {"epochs": epochs, "mean": mean.tolist()}


def _spread(runs: Sequence[RunRecord], field: str, *, rule: str) -> dict[str, Any] | None:
    values = [value_of(record, field, rule=rule) for record in runs]
    defined = [value for value in values if value is not None]
    return mean_and_std(defined)._asdict() if defined else None


def _difference(
    runs: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    field: str,
    *,
    rule: str,
    scope: Scope,
) -> dict[str, Any] | None:
    pairs = paired(runs, baseline, metric=field, rule=rule, scope=scope)
    if not pairs:
        return None
    found = paired_difference(
        [pair.ours for pair in pairs],
        [pair.baseline for pair in pairs],
        clusters=[getattr(pair, scope.unit) for pair in pairs],
    )
    return {**asdict(found), "is_distinguishable": found.is_distinguishable}


def _gain(runs: Sequence[RunRecord], *, rule: str, scope: Scope) -> dict[str, Any] | None:
    values = [
        (value_of(r, "balanced_chosen", rule=rule), value_of(r, "balanced", rule=rule), r)
        for r in runs
    ]
    both = [
        (after, before, r)
        for after, before, r in values
        if after is not None and before is not None
    ]
    if not both:
        return None
    found = paired_difference(
        [after for after, _, _ in both],
        [before for _, before, _ in both],
        clusters=[r.seed if scope.unit == "seed" else r.split_fingerprint for _, _, r in both],
    )
    return {**asdict(found), "is_distinguishable": found.is_distinguishable}
