"""The command line of tables: formats, options, what it says about mistakes."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from engine.config.components import ROOT
from engine.tables import table_file
from engine.tables.__main__ import main
from engine.tables.dot_plot import draw
from engine.tables.formats import latex, terminal
from engine.tables.layout import Entry, Sheet, letters
from engine.tables.options import OPTIONS, USAGE
from engine.tables.record import RunRecord, from_run_folder, read
from engine.tables.table import blocks_of, read_table, style_of
from tests._runs import folder_of, small_run, small_words
from tests.tables._lines import METHODS, QUIET, around, line, lines, write_lines

BASE, BETTER = around(0.80), around(0.87, seed=1)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods in one setting, five seeds each; the second is better."""
    oracle = {"epoch": 2, "metric": "balanced_accuracy", "value": 0.9, "headline_value": 0.87}
    records = lines("cross_entropy", BASE) + lines("focal", BETTER, oracle=oracle)
    return write_lines(tmp_path / "tiny.jsonl", records)


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a call that works prints; Markdown holds numbers together by other spaces."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")


def mistake(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a call that does not work says."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.rstrip("\n")


# --- formats -------------------------------------------------------------------------------------


def test_a_note_of_many_rows_has_one_mark_in_every_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        record
        for setting, words in (("one", QUIET), ("two", (*QUIET, "optim.weight_decay=0")))
        for method, n in (("cross_entropy", 3), ("focal", 2), ("inverse_weights", 2))
        for record in lines(method, BASE[:n], setting=setting, words=words)
    ]
    table = write_lines(tmp_path / "tiny.jsonl", records)
    for options in ([], ["--metric", "accuracy"]):
        text = output(capsys, table, *options, "--format", "markdown")
        assert text.count("missing: seed 2") == (1 if options else 2)
        assert "<sup>b</sup>" not in text
        assert text.count("<sup>a</sup>") == 4 + (1 if options else 2)


def test_there_is_always_another_mark() -> None:
    marks = list(itertools.islice(letters(), 26 + 26**2 + 2))
    assert len(set(marks)) == len(marks)
    assert (marks[0], marks[25], marks[26], marks[701]) == ("a", "z", "aa", "zz")
    assert marks[702:] == ["aaa", "aab"]


@pytest.mark.parametrize("form", ["markdown", "latex", "terminal"])
@pytest.mark.parametrize("marks", [[], ["--best"]])
def test_the_interval_of_differences_is_named_with_what_it_assumes_where_it_is_shown(
    form: str, marks: list[str], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(output(capsys, results, "--format", form, *marks).split())
    (rest,) = text.split("[95 %]: ".replace("%", "\\%" if form == "latex" else "%"))[1:]
    assert rest.startswith("at each end the wider of Student's t and the studentized bootstrap")
    assert "independent differences" in rest and "at least as wide as Student's t" in rest


def test_an_interval_that_is_not_shown_is_not_explained(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "studentized" not in output(capsys, results, "--metric", "accuracy")
    two = lines("cross_entropy", BASE[:2]) + lines("focal", BETTER[:2])
    few = write_lines(tmp_path / "few.jsonl", two)
    assert "studentized" not in output(capsys, few)


def test_printing_a_table_imports_no_torch(results: Path) -> None:
    """It takes longer to import than all tables of the repository to print."""
    code = (
        "import sys; from engine.tables.__main__ import main; "
        f"assert main([{str(results)!r}]) == 0; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_lines_of_a_terminal_are_aligned_folded_and_no_wider_than_it() -> None:
    rows = [(Entry(name), Entry("0.5 ± 0.1", is_bold=True), Entry("1")) for name in ("ce", "損失")]
    sheet = Sheet("caption", ("method", "balanced accuracy", "n"), tuple(rows), ())
    for width, num_tables in ((26, 1), (25, 2)):
        printed = io.StringIO()
        terminal([sheet], Console(width=width, file=printed))
        lines = printed.getvalue().splitlines()
        assert max(map(cell_len, lines)) <= width
        assert sum("─" in line for line in lines) == num_tables
        assert lines[2].split() == ["balanced"]
        assert lines[3].split()[:2] == ["method", "accuracy"]
        assert "  ce       0.5 ± 0.1" in lines[5]
        assert "  損失     0.5 ± 0.1" in lines[6]


def printed_lines(sheet: Sheet, *, width: int) -> list[str]:
    printed = io.StringIO()
    terminal([sheet], Console(width=width, file=printed))
    return printed.getvalue().splitlines()


def test_a_heading_of_wide_characters_folds_where_a_terminal_has_no_more_room() -> None:
    sheet = Sheet("caption", ("method", "平均 精度 n"), ((Entry("ce"), Entry("0.123")),), ())
    _, blank, *lines = printed_lines(sheet, width=20)
    # Two words of two characters are nine wide, one of them and the letter six.
    assert [line.split() for line in lines[:3]] == [["平均"], ["精度"], ["method", "n"]]
    assert {cell_len(line) for line in (blank, *lines) if line} == {len(blank)}


def test_a_long_name_is_folded_to_what_the_widest_column_leaves() -> None:
    long = "balanced softmax, then " + "a_stage_of_deferred_reweighting_by_effective_number"
    interval = Entry("+0.012 [+0.003, +0.021]", is_bold=True)
    rows = (
        (Entry(long, marks=("a",)), interval, Entry("0.5")),
        (Entry("ce"), interval, Entry("1")),
    )
    sheet = Sheet("caption", ("method", "difference", "n"), rows, ())
    lines = printed_lines(sheet, width=60)
    assert max(map(cell_len, lines)) <= 60
    first = next(number for number, line in enumerate(lines) if interval.text in line)
    names = [line[2:32].rstrip() for line in lines[first : first + 4]]
    assert names[0] == "balanced softmax, then"
    assert names[3] == "ce"
    assert "".join(names[:3]).replace(" ", "") == f"{long}[a]".replace(" ", "")
    # As it is where there is room.
    assert any(
        f"  {long} [a]   {interval.text}" in line for line in printed_lines(sheet, width=120)
    )


def test_markdown_has_a_bold_row_a_dash_and_the_interval(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, results, "--format", "markdown")
    header, rule, base, better = (line for line in text.splitlines() if line.startswith("| "))
    assert len({row.count("|") for row in (header, rule, base, better)}) == 1
    assert "few" not in header
    assert base.split("|")[4].strip() == "–"
    cells = [cell.strip() for cell in better.split("|")]
    assert cells[1:3] == ["focal", "5 × 1"]
    assert re.fullmatch(r"\*\*0\.8\d\d ± 0\.0\d\d\*\*", cells[3])
    assert re.fullmatch(r"\*\*\+0\.0\d\d \[\+0\.0\d\d, \+0\.\d\d\d\]\*\*", cells[4])
    assert "**" not in base


def test_oracle_is_a_column_with_its_gap_and_a_dash_where_test_was_not_logged(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, results, "--format", "markdown")
    _, _, base, better = (line for line in text.splitlines() if line.startswith("| "))
    assert re.search(r"\| 0\.900 \(\+0\.0\d\d\) \|$", better)
    assert base.endswith("| – |")


def test_latex_is_a_booktabs_table_with_nothing_left_to_escape(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, results, "--format", "latex")
    assert text.count("{") == text.count("}")
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"cross\_entropy", r"\textbf{"):
        assert word in text
    body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    rows = [row for row in body.splitlines() if row.endswith(r"\\")]
    assert {row.replace(r"\&", "").count("&") + 1 for row in rows} == {len(columns[1])}
    assert text.isascii()


def test_csv_has_every_number_in_full(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, results, "--format", "csv")
    base, better = csv.DictReader(io.StringIO(text))
    assert float(better["accuracy"]) == pytest.approx(sum(BETTER) / 5, abs=1e-12)
    assert better["accuracy_is_distinguishable"] == "True"
    assert float(better["accuracy_low"]) > 0
    assert (base["accuracy_difference"], base["few_accuracy"]) == ("", "")
    assert better["balanced_accuracy_independent"] == "5"


def test_output_to_a_file_is_not_folded(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, results).splitlines()
    (row,) = [text for text in lines if text.strip().startswith("focal")]
    assert row.count("±") == 7
    assert any("bold: the difference to cross_entropy" in text for text in lines)


@pytest.mark.slow
def test_a_narrow_terminal_shows_every_column_below_each_other(results: Path) -> None:
    text = in_terminal(results, columns=80)
    assert all(len(text) <= 80 for text in text.splitlines())
    for heading in ("balanced", "overall", "many (1)", "worst class", "NLL", "ECE", "oracle"):
        assert heading in text
    assert "…" not in text


def in_terminal(results: Path, *, columns: int) -> str:
    """What a terminal of that width shows, without colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.tables", str(results)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"},
        stdout=theirs,
    )
    os.close(theirs)
    found = b""
    while chunk := _chunk(ours):
        found += chunk
    os.close(ours)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[\d;]*m", "", found.decode()).replace("\r\n", "\n")


def _chunk(handle: int) -> bytes:
    """What has been written; nothing once the other end is closed, which Linux calls an error."""
    try:
        return os.read(handle, 65536)
    except OSError:
        return b""


# --- a table with a description, and published numbers beside -------------------------------------

CIFAR = (
    "experiments/cifar10_lt.yaml",
    "experiments/recipes/published.yaml",
    "schedule.epochs=30",
)


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of the LDAM paper by 30 epochs, of which two of three methods have run."""
    monkeypatch.setattr(table_file, "RESULTS", tmp_path)
    monkeypatch.setattr(table_file, "PAPERS", tmp_path)
    path = tmp_path / "paper.yaml"
    names = {"ours": "LDAM-DRW", "focal": "Focal"}
    content = {
        "name": "paper",
        "title": "A paper",
        "base": list(CIFAR),
        "methods": {"ours": [], "focal": ["loss=softmax_focal"], "late": ["reweight=inverse"]},
        "settings": {"factor 100": []},
        "seeds": [0, 1],
        "baseline": "ours",
        "rule": "last",
        "published": [{"paper": "LDAM", "table": "Table 2", "methods": names}],
        "notes": "Trained on one machine.",
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    common = {"table": "paper", "setting": "factor 100", "headline": "last"}
    records = [line("ours", seed=seed, words=CIFAR, value=0.75, **common) for seed in (0, 1)]
    records.append(line("focal", words=CIFAR, value=0.70, **common))
    write_lines(tmp_path / "paper.jsonl", records)
    return path


def test_a_published_number_stands_beside_with_the_difference_and_what_differs(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, described, "--format", "markdown")
    assert "| 0.770<" not in text  # the dagger follows the whole cell
    assert "| 0.770 (−0.020)<sup>†</sup> |" in text
    (why,) = [note for note in text.splitlines() if "LDAM, Table 2, LDAM-DRW" in note]
    assert why.startswith("- <sup>†</sup> LDAM, Table 2, LDAM-DRW (https://arxiv.org/abs/")
    assert "epochs (theirs 200, ours 30)" in why
    assert "selection rule (theirs best test epoch, ours last)" in why
    (why,) = [note for note in text.splitlines() if "LDAM, Table 2, Focal" in note]
    assert "quoted from Class-Balanced loss Table 2" in why


def test_the_description_gives_baseline_rule_missing_runs_and_its_notes(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, described, "--format", "markdown")
    assert "difference to ours" in text
    assert "rule last" in text
    assert "missing: seed 1 on subset 0" in text
    assert "not run yet: late" in text
    assert "- Trained on one machine." in text
    assert "nothing is bold: that takes n ≥ 5" in text


def test_a_reference_to_a_number_that_nobody_printed_is_a_mistake(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described.write_text(described.read_text().replace("ours: LDAM-DRW", "ours: LDAM-DWR"))
    said = mistake(capsys, described)
    assert said == "experiments/published.csv: no 'LDAM-DWR' in LDAM, Table 2"


def test_latex_of_daggers_and_notes_is_ascii_too(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for metric in ([], ["--metric", "accuracy"]):
        text = output(capsys, described, "--format", "latex", *metric)
        assert r"\textsuperscript{" in text and r"\dag{}" in text
        assert text.isascii()
        assert text.count("{") == text.count("}")


def test_csv_holds_the_published_number_and_what_differs(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(csv.DictReader(io.StringIO(output(capsys, described, "--format", "csv"))))
    assert float(first["LDAM Table 2"]) == pytest.approx(0.7703)
    assert "epochs (theirs 200, ours 30)" in first["LDAM Table 2 differs in"]


# --- the command behind a cell -------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_of_a_cell_run_again_gives_the_same_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in small_words(tmp_path) if not word.startswith("track.")]
    first = small_run(tmp_path / "first", "schedule.epochs=2")
    words = [word.replace("epochs=3", "epochs=2") for word in words]
    record = from_run_folder(
        folder_of(tmp_path / "first", "schedule.epochs=2"),
        table="tiny",
        method="cross_entropy",
        setting="factor 8",
        words=words,
    )
    results = write_lines(tmp_path / "tiny.jsonl", [record])
    (command,) = output(capsys, results, "--command", "cross_entropy/factor 8").splitlines()
    program, *again = shlex.split(command)
    assert program == "python"
    where = [f"track.root={tmp_path / 'again'}", "track.wandb=disabled", "track.figures=false"]
    done = subprocess.run([sys.executable, *again, *where], cwd=ROOT, check=False)
    assert done.returncode == 0
    (summary,) = tmp_path.glob("again/*/*/summary.json")
    rules = json.loads(summary.read_text(encoding="utf-8"))["rules"]
    for rule, result in first.rules.items():
        assert rules[rule]["test"] == result.test == read(results)[0].rules[rule].test


def test_a_row_without_a_setting_prints_the_commands_of_all(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = output(capsys, results, "--command", "focal").splitlines()
    assert len(commands) == 5
    assert all(shlex.split(text)[:2] == ["python", "train.py"] for text in commands)
    assert [f"seed={seed}" in text for seed, text in enumerate(commands)] == [True] * 5


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("focla", "--command: no row 'focla' (did you mean focal?); one of cross_entropy, focal"),
        ("focal/factor 9", "--command: row focal has no 'factor 9' (did you mean factor 8?); one"),
    ],
)
def test_an_unknown_cell_names_the_nearest(
    results: Path, capsys: pytest.CaptureFixture[str], cell: str, says: str
) -> None:
    assert mistake(capsys, results, "--command", cell).startswith(says)


def test_a_command_that_would_make_another_run_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_lines(tmp_path / "tiny.jsonl", [line(fingerprint="0123456789ab")])
    said = mistake(capsys, results, "--command", "cross_entropy")
    assert "no longer give run 0123456789ab" in said
    assert "at commit c0ffee" in said


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "expected results, such as experiments/results/digits_lt.jsonl"),
        (["x.txt"], "x.txt: expected a .jsonl file of results or the .yaml of a table"),
        (["no.jsonl"], "no.jsonl: no such file"),
        (["x.jsonl", "y.jsonl"], "y.jsonl: one table at a time"),
        (["x.jsonl", "--fromat=csv"], "--fromat=csv: unknown option (did you mean --format?)"),
        (["x.jsonl", "--format=html"], "--format html: one of terminal | markdown | latex | csv"),
        (["x.jsonl", "--rule=best"], "--rule best: unknown; one of last | val | val_nll"),
        (["x.jsonl", "--rule=oracle"], "--rule oracle: it chooses by the test set"),
        (["x.jsonl", "--figure=x.svg"], "--figure x.svg: expected a name that ends in .png"),
        (["x.jsonl", "--figure=x.png", "--format=csv"], "--format csv: has no effect with --fig"),
        (["x.jsonl", "--command=a", "--rule=val"], "--rule val: has no effect with --command"),
        (["x.jsonl", "--format=csv", "--percent"], "--percent: has no effect with --format csv"),
        (["x.jsonl", "--figure=x.png", "--best"], "--best: has no effect with --figure"),
        (
            ["x.jsonl", "--metric=nll", "--columns=nll"],
            "--columns nll: has no effect with --metric",
        ),
        (
            ["x.jsonl", "--per-class", "--metric=nll"],
            "--metric nll: has no effect with --per-class",
        ),
        (["x.jsonl", "--readme"], "source x.jsonl: has no effect with --readme"),
        (["x.jsonl", "--rule"], "argument --rule: expected one argument; see python -m"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = mistake(capsys, *words)
    assert said.startswith(says)
    assert "\n" not in said


def test_a_bad_line_is_named_by_its_number(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = results.read_text(encoding="utf-8").splitlines()
    good[2] = good[2].replace('"seed": 2', '"seed": "two"')
    results.write_text("\n".join(good) + "\n", encoding="utf-8")
    assert mistake(capsys, results).startswith(f"{results}:3: not a results line")


def test_a_file_without_lines_and_one_of_two_tables_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_lines(tmp_path / "empty.jsonl", [])
    assert mistake(capsys, empty) == f"{empty}: no results yet"
    two = write_lines(tmp_path / "two.jsonl", [line(), line(seed=1, table="other")])
    assert mistake(capsys, two) == f"{two}: lines of several tables: other, tiny"


def test_a_table_that_has_not_run_says_how_to_run_it(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described.with_suffix(".jsonl").unlink()
    said = mistake(capsys, described)
    assert said.endswith(f"no such file; python reproduce.py {described} makes it")


def test_help_explains_the_marks_and_every_option_without_heavy_imports() -> None:
    code = (
        "import sys; from engine.tables.__main__ import main; main(['--help']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    for word in ("mean ± std", "bold", "oracle", "†", "–", *OPTIONS):
        assert word in text
    heavy = {"torch", "numpy", "pandas", "rich", "matplotlib", "scipy"}
    assert heavy.isdisjoint(modules.split())


def test_a_mistake_in_the_words_answers_at_once() -> None:
    began = time.process_time()
    assert main(["--rule=best"]) == 2
    assert time.process_time() - began < 0.2


def test_methods_of_the_fixture_are_configs_of_their_own() -> None:
    groups = {line(method, words=QUIET).group for method in METHODS}
    assert len(groups) == len(METHODS)


# --- one metric, settings side by side -----------------------------------------------------------


def test_one_metric_has_a_column_for_each_setting_and_a_dash_where_none_has_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = [word.replace("factor=8", "factor=2") for word in QUIET]
    records = lines("cross_entropy", BASE) + lines("focal", BETTER)
    records += lines("cross_entropy", BETTER, words=wide, setting="factor 2")
    results = write_lines(tmp_path / "tiny.jsonl", records)
    text = output(capsys, results, "--metric", "balanced_accuracy", "--format", "markdown")
    header, _, base, better = (line for line in text.splitlines() if line.startswith("| "))
    assert header == "| method | factor 8 | factor 2 |"
    assert re.fullmatch(r"\| focal \| \*\*0\.8\d\d ± 0\.0\d\d\*\* \| – \|", better)
    assert "**" not in base


def test_published_accuracies_stand_in_brackets_with_their_daggers(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, described, "--metric", "accuracy", "--format", "markdown")
    assert "| ours | 0.750 ± 0.000 [0.770]<sup>†</sup> |" in text
    assert "- in brackets: the published accuracy" in text
    assert "[0.770]" not in output(capsys, described, "--metric", "nll", "--format", "markdown")


def test_a_usual_column_without_a_number_is_left_out_and_one_asked_for_is_not(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = output(capsys, results, "--format", "markdown")
    assert "medium (3) |" in usual
    assert "few (0) |" not in usual
    words = ("--format", "markdown", "--columns", "balanced_accuracy,few_accuracy")
    assert "few (0) |" in output(capsys, results, *words)


def test_an_unknown_metric_names_the_nearest(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = mistake(capsys, results, "--metric", "balanced_acuracy")
    assert said.startswith("--metric balanced_acuracy: unknown (did you mean balanced_accuracy?)")
    said = mistake(capsys, results, "--columns", "balanced_accuracy,auroch")
    assert said.startswith("--columns auroch: unknown (did you mean auroc?)")


# --- tables to paste -----------------------------------------------------------------------------


def test_columns_are_those_asked_for_and_the_first_is_compared(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--columns", "accuracy,nll", "--format", "markdown"]
    text = output(capsys, results, *asked)
    header, _, _, better = (line for line in text.splitlines() if line.startswith("| "))
    assert [cell.strip() for cell in header.split("|")[1:6]] == [
        "method",
        "seeds × subsets",
        "overall",
        "difference to cross_entropy [95 %], n = 5",
        "NLL",
    ]
    mean = sum(BETTER) / 5 - sum(BASE) / 5
    assert f"**+{mean:.3f} [" in better


def test_percent_is_for_shares_and_says_so(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, results, "--columns", "accuracy,nll", "--percent", "--format", "markdown")
    header, _, base, better = (line for line in text.splitlines() if line.startswith("| "))
    assert "overall (%)" in header and "| NLL |" in header
    assert f"| {sum(BASE) / 0.05:.1f} ± " in base
    assert base.rstrip("| –").endswith("0.500 ± 0.000")
    assert re.search(r"\*\*\+\d\.\d \[\+\d\.\d, \+\d+\.\d\]\*\*", better)
    assert "NLL not in percent" in text


def test_best_and_second_of_a_column_are_marked_whatever_can_be_told_apart(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = read(results) + lines("inverse_weights", around(0.5))
    write_lines(results, records)
    text = output(capsys, results, "--columns", "accuracy", "--best", "--format", "markdown")
    base, better, worst = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert re.search(r"\| \*\*0\.8\d\d ± 0\.0\d\d\*\* \|", better)
    assert re.search(r"\| <u>0\.\d+ ± 0\.0\d\d</u> \|", base)
    assert "**" not in worst and "<u>" not in worst
    assert "neither says that the difference is distinguishable" in text
    latex = output(capsys, results, "--columns", "accuracy", "--best", "--format", "latex")
    assert latex.count(r"\textbf{") == latex.count(r"\underline{") == 1


def test_the_lowest_nll_is_the_best(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low = lines("inverse_weights", BASE, scores={"nll": 0.1})
    write_lines(results, read(results) + low)
    asked = ["--metric", "nll", "--best", "--format", "markdown"]
    rows = [line for line in output(capsys, results, *asked).splitlines() if line.startswith("| ")]
    assert "**0.100 ± 0.000**" in rows[-1]
    assert all("<u>0.500 ± 0.000</u>" in row for row in rows[2:4])


def test_rows_go_by_their_labels_in_every_format(
    described: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(described.read_text(encoding="utf-8"))
    content["labels"] = {"ours": "Ours, τ = 1 (β)", "focal": "Focal_\N{GREEK SMALL LETTER ALPHA}"}
    described.write_text(
        yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    text = output(capsys, described, "--format", "markdown")
    assert "| Ours, τ = 1 (β)" in text and "difference to Ours, τ = 1 (β)" in text
    latex = output(capsys, described, "--format", "latex")
    assert r"Ours, $\tau$ = 1 ($\beta$)" in latex and r"Focal\_$\alpha$" in latex
    assert latex.isascii()
    first = next(csv.DictReader(io.StringIO(output(capsys, described, "--format", "csv"))))
    assert (first["method"], first["label"]) == ("ours", "Ours, τ = 1 (β)")
    (scores, *_) = draw(
        blocks_of(read_table(described)), style=style_of(read_table(described))
    ).axes
    assert scores.get_yticklabels()[0].get_text() == "Ours, τ = 1 (β)"


def test_every_greek_letter_and_sign_becomes_latex() -> None:
    codes = [*range(0x3B1, 0x3BF), 0x3C0, 0x3C1, *range(0x3C3, 0x3CA), *map(ord, "ΓΔΘΛΞΠΣΦΨΩ")]
    greek = "".join(map(chr, codes))
    sheet = Sheet(f"{greek}±×≥−–†<>", ("method",), ((Entry("a"),),), ())
    text = latex([sheet])
    assert text.isascii()
    assert text.count("$") == 2 * (len(greek) + 6)
    assert r"$\lambda$$\mu$" in text and r"$\Lambda$" in text


def test_latex_does_not_take_the_beginning_of_a_name_for_a_length() -> None:
    rows = tuple((Entry(name),) for name in ("[12] LDAM", "*ours", "a|b"))
    text = latex([Sheet("caption", ("method",), rows, ())])
    assert text.partition(r"\midrule")[2].split("\n")[1:4] == [
        r"{}[12] LDAM \\",
        r"{}*ours \\",
        r"a\textbar{}b \\",
    ]


def test_notes_stand_behind_the_float_of_latex(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, results, "--format", "latex")
    inside = text.partition(r"\begin{table}")[2].partition(r"\end{table}")[0]
    assert "footnotesize" not in inside
    assert "mean $\\pm$ standard deviation" in text.partition(r"\end{table}")[2]


def test_the_recall_of_each_class_is_a_column_with_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recalls = ([0.9, 0.5, None, 0.2], [0.7, 0.5, None, 0.4])
    result = line().rules["val"].model_dump()
    records = [
        line(seed=seed, rules={"val": result | {"recall": recall}})
        for seed, recall in enumerate(recalls)
    ]
    results = write_lines(tmp_path / "tiny.jsonl", records)
    text = output(capsys, results, "--per-class", "--percent", "--format", "markdown")
    header, _, row = (line for line in text.splitlines() if line.startswith("| "))
    assert header == "| method | 0 (120) | 1 (60) | 2 (30) | 3 (20) |"
    assert row == "| cross_entropy | 80.0 | 50.0 | – | 30.0 |"


def test_recalls_of_classes_stand_under_the_notes_of_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = lines("cross_entropy", BASE[:2]) + lines("focal", BETTER[:1])
    results = write_lines(tmp_path / "tiny.jsonl", records)
    text = output(capsys, results, "--per-class", "--format", "markdown")
    assert "| focal<sup>a</sup> |" in text
    assert "<sup>a</sup> missing: seed 1" in text
    none = output(capsys, results, "--per-class", "--rule", "val_nll", "--format", "markdown")
    assert "no result by rule val_nll" in none


def test_any_row_is_the_baseline(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, results, "--baseline", "focal", "--format", "markdown")
    header, _, base, better = (line for line in text.splitlines() if line.startswith("| "))
    assert "difference to focal [95 %]" in header
    assert "−0.0" in base and "| – |" in better


def test_what_is_documented_of_a_results_line_is_all_that_it_holds() -> None:
    text = USAGE.partition("is one run:")[2].partition("A run folder's")[0]
    heads = [row.strip().partition("  ")[0] for row in text.splitlines() if row.strip()]
    named = [name for head in heads for name in head.split(", ")]
    assert sorted(named) == sorted(RunRecord.model_fields)


# --- the figure ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_figure_is_a_file_of_its_kind_and_the_same_every_time(
    results: Path, capsys: pytest.CaptureFixture[str], suffix: str, begins: bytes
) -> None:
    path = results.parent / f"made/figure.{suffix}"
    assert output(capsys, results, "--figure", path) == f"{path}: written\n"
    first = path.read_bytes()
    assert first.startswith(begins)
    output(capsys, results, "--figure", path)
    assert path.read_bytes() == first


def test_the_figure_shows_every_run_every_interval_and_the_groups_that_exist(
    results: Path,
) -> None:
    found = read_table(results)
    (scores, differences, groups) = draw(blocks_of(found)).axes
    runs = [drawn for drawn in scores.lines if drawn.get_marker() == "|"]
    assert [sorted(drawn.get_xdata()) for drawn in runs] == [sorted(BASE), sorted(BETTER)]
    assert [text.get_text() for text in scores.get_yticklabels()] == ["cross_entropy", "focal"]
    assert len(differences.collections) == 1
    (filled,) = [drawn for drawn in differences.lines if drawn.get_marker() == "o"]
    assert filled.get_markerfacecolor() == filled.get_color()
    assert [text.get_text() for text in groups.get_legend().get_texts()] == [
        "many (1)",
        "medium (3)",
    ]


def test_a_figure_that_cannot_be_written_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = mistake(capsys, results, "--figure", results / "below_a_file.png")
    assert said.startswith(f"{results}/below_a_file.png: cannot be written: ")
