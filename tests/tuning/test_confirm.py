"""The confirm stage: who is trained again, on which seeds, once, and what is then believed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from engine.config.components import ROOT
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import setup
from engine.training.divergence import DivergenceError
from engine.training.run_folder import BusyError, RunFolder
from engine.training.summary import Summary
from engine.tuning.confirm import closing_table, confirmed_rows
from engine.tuning.confirm.candidates import candidates
from engine.tuning.confirm.jobs import diverged, fresh_seeds, summaries, train_all
from engine.tuning.confirm.study_report import StudyReport, confirm_study, report, stage
from engine.tuning.figures import drawing
from engine.tuning.search import Search
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.trials import front
from tests._runs import summary_of
from tests.tuning._searches import (
    DEFAULT,
    FOCAL,
    SLOW,
    ended_study,
    folder_of,
    quiet_run,
    search_of,
)
from tests.tuning._studies import BALANCED, NLL

TRIALS = [(FOCAL, 0.9), (SLOW, 0.2), (DEFAULT, 0.8), (FOCAL, 0.9)]


@dataclasses.dataclass(frozen=True)
class Tiny:
    """An ended study of a small search."""

    search: Search
    study: optuna.Study
    folder: StudyFolder

    def confirm(self) -> None:
        confirm_study(self.search, self.study, self.folder, run=quiet_run)

    def report(self) -> StudyReport:
        return report(self.search, self.study, self.folder)

    def table(self) -> list[confirmed_rows.Row]:
        """The closing table, without files and figures."""
        todo = stage(self.search, self.study, self.folder)
        results = summaries(todo.jobs)
        return confirmed_rows.rows(
            todo.candidates,
            results,
            BALANCED,
            seeds=todo.seeds,
            diverged=diverged(todo.jobs),
        )


def tiny(root: Path, *words: str, **options: int) -> Tiny:
    search, folder = search_of(root, *words, **options), folder_of(root)
    return Tiny(search, ended_study(search, folder, TRIALS), folder)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A study whose confirm stage has run: two settings and the default, two seeds each."""
    found = tiny(tmp_path_factory.mktemp("confirmed"))
    found.confirm()
    return found


@pytest.fixture(scope="module")
def closed(confirmed: Tiny) -> StudyReport:
    return confirmed.report()


def summaries_of(folder: StudyFolder) -> dict[str, dict[str, object]]:
    return {path.parent.name: summary_of(path.parent) for path in folder.path.rglob("summary.json")}


# --- who, and with which seeds --------------------------------------------------------------------


def test_the_best_settings_and_the_default_are_confirmed_each_once(tmp_path: Path) -> None:
    case = tiny(tmp_path)
    found = stage(case.search, case.study, case.folder).candidates
    assert [c.name for c in found] == ["default", "trial 0", "trial 1"]
    assert [c.searched for c in found] == [None, (0.9,), (0.2,)]
    assert found[1].config.loss.name == "softmax_focal"
    assert found[0].config == case.search.base


def test_seeds_are_fresh_the_same_every_time_and_none_of_the_searchs(tmp_path: Path) -> None:
    case = tiny(tmp_path, "seed=7", seeds=3)
    todo = stage(case.search, case.study, case.folder)
    assert todo.seeds == (8, 9, 10)
    assert fresh_seeds(range(7, 12), number=2) == (12, 13)
    assert fresh_seeds([2**32 - 1], number=2) == (0, 1)
    assert {job.config.seed for job in todo.jobs} == {8, 9, 10}
    searched = {fingerprint(case.search.config(params)) for params, _ in TRIALS}
    assert not searched & {fingerprint(job.config) for job in todo.jobs}


def test_with_two_metrics_the_best_by_each_come_first(tmp_path: Path) -> None:
    search = search_of(tmp_path, top=3, metrics=("val/balanced_accuracy", "val/nll"))
    params = [{**FOCAL, "optim.lr": rate} for rate in (0.01, 0.02, 0.03, 0.04)]
    values = [(0.9, 0.9), (0.5, 0.1), (0.8, 0.5), (0.4, 0.8)]  # the last is beaten by the second
    study = ended_study(search, folder_of(tmp_path), list(zip(params, values, strict=True)))
    found = candidates(search, study.trials, (BALANCED, NLL), top=3)
    assert [c.trial for c in found] == [None, 0, 1, 2]
    assert sorted(front(study.trials, (BALANCED, NLL))) == [0, 1, 2]


def test_the_front_of_two_metrics_is_listed_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "save_all", lambda *_: None)
    search = search_of(tmp_path, top=0, metrics=("val/balanced_accuracy", "val/nll"))
    params = [{**FOCAL, "optim.lr": rate} for rate in (0.01, 0.02, 0.03)]
    values = [(0.5, 0.1), (0.9, 0.9), (0.4, 0.8)]
    study = ended_study(search, folder_of(tmp_path), list(zip(params, values, strict=True)))
    ending = report(search, study, folder_of(tmp_path))
    rows = (tmp_path / "tiny" / "pareto.csv").read_text().splitlines()
    assert rows == [
        "trial,val/balanced_accuracy,val/nll,loss,loss.gamma,optim.lr",
        "1,0.9,0.9,softmax_focal,1.0,0.02",
        "0,0.5,0.1,softmax_focal,1.0,0.01",
    ]
    console = Console(width=120)
    with console.capture() as captured:
        console.print(*ending.shown, sep="\n")
    assert "2 of 3 trials are beaten by no other in all metrics" in captured.get()
    assert "loss=softmax_focal loss.gamma=1 optim.lr=0.02" in captured.get()
    assert "pareto" in ending.drawn.figures
    assert ending.chosen is not None
    assert ending.chosen.trial == 1


def test_a_search_that_found_nothing_confirms_the_default_alone(tmp_path: Path) -> None:
    search = search_of(tmp_path)
    study = ended_study(search, folder_of(tmp_path), [])
    assert [c.name for c in stage(search, study, folder_of(tmp_path)).candidates] == ["default"]


# --- what it trains -------------------------------------------------------------------------------


def test_every_setting_is_trained_once_a_seed_and_has_a_test_result(confirmed: Tiny) -> None:
    found = summaries_of(confirmed.folder)
    jobs = stage(confirmed.search, confirmed.study, confirmed.folder).jobs
    assert set(found) == {fingerprint(job.config) for job in jobs}
    assert len(found) == 6
    assert all("val" in summary["rules"] for summary in found.values())  # type: ignore[operator]


def test_the_same_command_again_trains_nothing(confirmed: Tiny) -> None:
    def refuse(config: Config) -> None:
        raise AssertionError(f"{fingerprint(config)} is finished")

    confirm_study(confirmed.search, confirmed.study, confirmed.folder, run=refuse)
    assert len(summaries_of(confirmed.folder)) == 6


def test_poisoned_test_labels_change_test_numbers_and_nothing_that_chooses(
    tmp_path: Path, confirmed: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset = setup.load_dataset

    def poisoned(config: Config) -> object:
        dataset = load_dataset(config)
        wrong = (dataset.test.targets + 1) % dataset.num_classes
        return dataclasses.replace(dataset, test=dataclasses.replace(dataset.test, targets=wrong))

    monkeypatch.setattr(setup, "load_dataset", poisoned)
    case = tiny(tmp_path, top=1, seeds=1)
    case.confirm()
    honest = summaries_of(confirmed.folder)
    wrong = summaries_of(case.folder)
    assert len(wrong) == 2
    for name, summary in wrong.items():
        ours, theirs = (found["rules"]["val"] for found in (summary, honest[name]))  # type: ignore[index]
        assert ours["val"] == theirs["val"]
        assert ours["epoch"] == theirs["epoch"]
        assert ours["test"] != theirs["test"]


SCRIPT = """
import sys
from pathlib import Path
import optuna
from tests.tuning._searches import folder_of, quiet_run, search_of
from engine.tuning.confirm.study_report import confirm_study

root = Path(sys.argv[1])
search, folder = search_of(root), folder_of(root)
study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder.database}")

def run(config):
    print("begins", flush=True)
    quiet_run(config)

confirm_study(search, study, folder, run=run)
"""


def worker(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def check_whole(case: Tiny, confirmed: Tiny) -> None:
    """All runs are there, equal to those of one undisturbed process, and none was made twice."""
    assert summaries_of(case.folder) == summaries_of(confirmed.folder)
    segments = [
        len(json.loads(path.read_text())["segments"])
        for path in case.folder.path.rglob("environment.json")
    ]
    assert sorted(segments)[:-1] == [1] * 5  # at most the run that was killed was begun again
    assert max(segments) <= 2


def kill_in_the_second_run(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    assert process.stdout.readline() == "begins\n"  # one run is done, the next has begun
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_stage_that_was_killed_goes_on_and_trains_nothing_twice(
    tmp_path: Path, confirmed: Tiny
) -> None:
    case = tiny(tmp_path)
    kill_in_the_second_run(worker(tmp_path))
    assert len(summaries_of(case.folder)) == 1
    case.confirm()
    check_whole(case, confirmed)


@pytest.mark.slow
def test_of_two_workers_one_is_killed_and_the_other_trains_what_is_left(
    tmp_path: Path, confirmed: Tiny
) -> None:
    case = tiny(tmp_path)
    first, second = worker(tmp_path), worker(tmp_path)
    kill_in_the_second_run(first)
    second.communicate()
    assert second.returncode == 0
    check_whole(case, confirmed)


def test_a_run_that_another_process_is_writing_is_waited_for_and_not_run(tmp_path: Path) -> None:
    case = tiny(tmp_path, top=1, seeds=1)
    jobs = stage(case.search, case.study, case.folder).jobs
    asked: list[str] = []
    waited: list[float] = []

    def run(config: Config) -> None:
        asked.append(fingerprint(config))
        if asked.count(asked[-1]) == 1 and config.loss.name == "softmax_focal":
            raise BusyError(["process 1 is writing this run"])
        finish(config)

    def finish(config: Config) -> None:
        job = next(job for job in jobs if job.config == config)
        job.folder.path.mkdir(parents=True, exist_ok=True)
        job.folder.summary.write_text("{}")

    train_all(jobs, run=run, wait=waited.append)
    default, focal = (fingerprint(job.config) for job in jobs)
    assert asked == [default, focal, focal]
    assert waited == []

    elsewhere = [job for job in jobs if job.folder.path.name == focal]
    elsewhere[0].folder.summary.unlink()
    asked.clear()
    train_all(elsewhere, run=run, wait=waited.append)
    assert waited == [1.0]


# --- what it says ---------------------------------------------------------------------------------


def test_the_chosen_setting_has_the_best_mean_on_validation(closed: StudyReport) -> None:
    rows = closed.tables[0]
    means = {row.candidate.name: row.val.mean for row in rows if row.val is not None}
    assert closed.chosen is not None
    assert means[closed.chosen.name] == max(means.values())
    assert len(means) == 3


def test_the_numbers_of_the_table_are_those_of_the_run_folders(
    confirmed: Tiny, closed: StudyReport
) -> None:
    for row in closed.tables[0]:
        config = row.candidate.config
        values = []
        for seed in (1, 2):
            name = fingerprint(config.model_copy(update={"seed": seed}))
            content = summary_of(confirmed.folder.path / "confirm" / name)
            values.append(content["rules"]["val"]["test"]["balanced_accuracy"])
        assert row.test is not None
        assert row.test.mean == pytest.approx(sum(values) / 2)
        assert row.test.n == 2
        assert row.diverged == row.missing == 0


def test_two_seeds_make_no_claim_in_so_many_words(closed: StudyReport) -> None:
    verdicts = [row.verdict for row in closed.tables[0]]
    assert verdicts[0] == "–"
    assert all(v.startswith("not distinguishable from the default") for v in verdicts[1:])


def test_the_study_folder_has_table_figures_and_best_yaml(
    confirmed: Tiny, closed: StudyReport
) -> None:
    names = {path.name for path in confirmed.folder.path.iterdir()}
    assert {"confirm.csv", "confirm.md", "best.yaml", "figures", "confirm", "study.db"} <= names
    assert {path.stem for path in confirmed.folder.figures.glob("*.png")} == set(
        closed.drawn.figures
    )
    markdown = (confirmed.folder.path / "confirm.md").read_text()
    assert "not distinguishable from the default" in markdown
    assert "the seeds 1, 2, none of which the search used" in markdown


def test_best_yaml_runs_as_it_is_and_the_last_line_is_that_command(
    confirmed: Tiny, closed: StudyReport
) -> None:
    best = confirmed.folder.best
    assert closed.chosen is not None
    assert load([best]) == closed.chosen.config
    assert best.read_text().startswith(f"# tiny: {closed.chosen.name}")
    assert closed.shown[-1] == f"python train.py {best}"
    done = subprocess.run(
        [sys.executable, "train.py", str(best), "--print-config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    body = [line for line in best.read_text().splitlines() if not line.startswith("#")]
    assert done.stdout.splitlines() == body


def test_without_a_confirm_stage_the_best_of_the_search_is_marked_as_not_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw", lambda *_, **__: drawing.Drawn({}, []))
    search, folder = search_of(tmp_path, top=0), folder_of(tmp_path)
    case = Tiny(search, ended_study(search, folder, [(DEFAULT, 0.95), *TRIALS]), folder)
    case.confirm()
    ending = case.report()
    assert ending.chosen is not None
    assert ending.chosen.config == search.base
    assert not (case.folder.path / "confirm").exists()
    assert ending.tables == []
    assert "not confirmed" in case.folder.best.read_text()


def test_a_setting_that_diverges_on_a_fresh_seed_is_said_and_never_chosen(tmp_path: Path) -> None:
    case = tiny(tmp_path, top=1)

    def run(config: Config) -> Summary:
        if config.loss.name == "softmax_focal" and config.seed == 2:
            raise DivergenceError("epoch 1, step 1: the loss is nan")
        return quiet_run(config)

    confirm_study(case.search, case.study, case.folder, run=run)
    confirm_study(case.search, case.study, case.folder, run=run)  # it is not tried again
    table = case.table()
    assert [(row.diverged, row.missing) for row in table] == [(0, 0), (1, 0)]
    assert confirmed_rows.chosen(table) is table[0]
    assert closing_table.cells(table[1])[4] == "1 (1 diverged)"


def test_runs_of_different_splits_are_not_compared(tmp_path: Path) -> None:
    case = tiny(tmp_path, top=1, seeds=1)
    case.confirm()
    first, *_ = stage(case.search, case.study, case.folder).jobs
    summary: RunFolder = first.folder
    content = json.loads(summary.summary.read_text())
    summary.summary.write_text(json.dumps({**content, "split_fingerprint": "0" * 12}))
    with pytest.raises(ConfigError, match="made on 2 different splits"):
        case.table()
    formers = {"former_fingerprints": [content["split_fingerprint"]]}
    summary.summary.write_text(json.dumps({**content, "split_fingerprint": "0" * 12, **formers}))
    assert case.table()  # an earlier version's name of the same split


def test_the_default_is_marked_on_the_maps_only_where_the_space_holds_it(tmp_path: Path) -> None:
    from engine.tuning.confirm.study_report import _default_in_space

    search = search_of(tmp_path)
    assert _default_in_space(search) == DEFAULT
    fixed = search.file.model_copy(update={"fixed": {"model.head": "cosine"}})
    assert _default_in_space(dataclasses.replace(search, file=fixed)) is None


def test_seed_std_pools_the_settings(closed: StudyReport) -> None:
    stds = [row.val.std for row in closed.tables[0] if row.val is not None]
    pooled = (sum(std**2 for std in stds if std is not None) / 3) ** 0.5
    assert confirmed_rows.seed_std(closed.tables[0]) == pytest.approx(pooled)
