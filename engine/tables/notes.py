"""What sets the runs of a table apart from each other, in sentences for its notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.config import components
from engine.config.selection_rules import FINAL
from engine.tables.pairing import Pair, named, pair_of, usual_splits, value_of
from engine.tables.record import RunRecord
from engine.training.metrics import groups
from engine.training.patience import PATIENCE

# Read from the sources of those who write these notes: to import them takes far longer than most
# tables.
OWN_SHARES: str = components.constant("data", "_notes", "OWN_SHARES")
SHARED_GROUPS: str = components.constant("data", "_notes", "SHARED_GROUPS")
TRAINS: str = components.constant("engine.training", "notes", "TRAINS")


def row_notes(
    runs: Sequence[RunRecord],
    *,
    rule: str,
    expected: Sequence[Pair],
    splits: Mapping[int, str],
    baseline: Sequence[RunRecord],
) -> list[str]:
    """Return sentences on the runs of one row.

    Args:
        runs: of the row.
        rule: selection rule of the table.
        expected: seeds and subset seeds that the row should have.
        splits: the usual split of each subset seed.
        baseline: runs that these are compared with.
    """
    theirs = {pair_of(run): run.split_fingerprint for run in baseline}
    have = {pair_of(run) for run in runs}
    found = {
        "missing": [pair for pair in expected if pair not in have],
        "another split of the same subset seed": [
            pair_of(run) for run in runs if run.split_fingerprint != splits[run.subset_seed]
        ],
        "not compared, as the baseline's split is another": [
            pair_of(run)
            for run in runs
            if theirs.get(pair_of(run), run.split_fingerprint) != run.split_fingerprint
        ],
        f"no result by rule {rule}": [pair_of(run) for run in runs if rule not in run.rules],
        "without numbers (the model diverged), and left out of the mean": [
            pair_of(run)
            for run in runs
            if rule in run.rules and value_of(run, "accuracy", rule=rule) is None
        ],
    }
    notes = [f"{what}: {named(pairs)}" for what, pairs in found.items() if pairs]
    return [
        *notes,
        *_shared_groups(runs),
        *_early_stops(runs),
        *_other_groups(runs),
        *_light(runs),
    ]


def _light(runs: Sequence[RunRecord]) -> list[str]:
    """Say how much of a lightly tuned model is trained."""
    return list(dict.fromkeys(n for run in runs for n in run.notes if n.startswith(TRAINS)))


def _shared_groups(runs: Sequence[RunRecord]) -> list[str]:
    """Say what runs said of groups whose images are in two splits; of many, how many said it."""
    said = [note for run in runs for note in run.notes if note.startswith(SHARED_GROUPS)]
    if len(set(said)) > 1:
        return [f"{SHARED_GROUPS}: in {len(said)} of {len(runs)} runs"]
    return sorted(set(said))


def _other_groups(runs: Sequence[RunRecord]) -> list[str]:
    """Return what many, medium and few mean where it is not what they usually do."""
    found = [note for run in runs for note in run.notes if note.endswith(groups.KEYS)]
    return list(dict.fromkeys(found))


def _early_stops(runs: Sequence[RunRecord]) -> list[str]:
    """Say how many runs ``schedule.patience`` has ended, and after how many epochs."""
    stopped = [run for run in runs if any(n.endswith(PATIENCE) for n in run.notes)]
    early = [run.rules[FINAL].epoch for run in stopped]
    if not early:
        return []
    which = "stopped" if len(early) == len(runs) else f"{len(early)} of {len(runs)} runs stopped"
    after = f"epoch {early[0]}" if len(set(early)) == 1 else f"epochs {min(early)} to {max(early)}"
    return [f"{which} early, after {after} of {stopped[0].epochs} {PATIENCE}"]


def code_notes(rows: Sequence[Sequence[RunRecord]], kinds: Sequence[str]) -> list[list[str]]:
    """Return for each row which of its runs other code made than most of its kind.

    A code hash covers the files that a run chose (loss, sampler, head ...), so that it is held
    against runs that chose the same.

    Args:
        rows: the runs of each row.
        kinds: what each row chose; equal where the files are.
    """
    made: dict[str, Counter[str]] = {}
    for runs, kind in zip(rows, kinds, strict=True):
        made.setdefault(kind, Counter()).update(_maker(run) for run in runs)
    found = []
    for runs, kind in zip(rows, kinds, strict=True):
        usual = made[kind].most_common(1)[0][0]
        others: dict[str, list[Pair]] = {}
        for run in runs:
            if _maker(run) != usual:
                others.setdefault(_maker(run), []).append(pair_of(run))
        found.append(
            [
                f"made by {maker}, other runs of the same files by {usual}: "
                + ("all of this row" if len(pairs) == len(runs) else named(pairs))
                for maker, pairs in others.items()
            ]
        )
    return found


def provenance(records: Sequence[RunRecord], *, baseline: str) -> list[str]:
    """Return sentences on all runs of a block."""
    notes = []
    if all(record.method != baseline for record in records):
        notes.append(f"no run of the baseline {baseline}: nothing is compared")
    commits = {record.commit[:12] for record in records if record.commit}
    places = Counter(str(record.hardware.get("processor")) for record in records)
    torch = {str(record.versions.get("torch")) for record in records}
    made = [f"commit {_listed(commits)}"] if commits else []
    made += [f"torch {_listed(torch)}", _processors(places)]
    notes.append(f"made with {', '.join(made)}")
    if dirty := sum(record.dirty for record in records):
        which = "all" if dirty == len(records) else f"{dirty} of {len(records)}"
        runs = "its run" if len(records) == 1 else f"{which} runs"
        notes.append(f"{runs} from a checkout with uncommitted changes")
    notes += _shared(records)
    notes += _own_shares(records)
    subsets = {record.subset_seed for record in records}
    splits = set(usual_splits(records).values())
    if len(splits) == 1 < len(subsets):
        notes.append(
            f"{len(subsets)} subset seeds, one split: the data give every seed the same images, so "
            "that only the key seed makes another run"
        )
    return notes


def _shared(records: Sequence[RunRecord]) -> Iterator[str]:
    """Say how many runs have the training of another row, all of it or that of some epochs."""
    shared = [record for record in records if record.trained_as is not None]
    whole = sum(record.shared_epochs is None for record in shared)
    if whole:
        have = "has" if whole == 1 else "have"
        yield f"{whole} of {len(records)} runs {have} the training of another row, and its cost"
    parts = sorted({(r.shared_epochs, r.epochs) for r in shared if r.shared_epochs is not None})
    if parts:
        number = len(shared) - whole
        epochs = " and ".join(f"{part} of {length}" for part, length in parts)
        have = "has" if number == 1 else "have"
        yield (
            f"{number} of {len(records)} runs {have} the first epochs of another row, {epochs}, "
            "and their cost"
        )


def _processors(runs: Mapping[str, int]) -> str:
    """Name the processors; of several, how many runs each has made, as they round differently."""
    if len(runs) == 1:
        return next(iter(runs))
    return _listed(f"{name} ({number} of {sum(runs.values())})" for name, number in runs.items())


def _own_shares(records: Sequence[RunRecord]) -> list[str]:
    """Say at which class shares the numbers are, where test is not balanced."""
    found = [note for run in records for note in run.notes if note.startswith(OWN_SHARES)]
    return list(dict.fromkeys(found))


def _listed(words: Iterable[str]) -> str:
    return " and ".join(sorted(words))


def _maker(record: RunRecord) -> str:
    return f"code {record.code_hash} with torch {record.versions.get('torch')}"
