"""What a person sees: plain lines or a progress bar, honest tables, and names that stay inert."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.report import seeds
from engine.report.statistics import DASH
from engine.report.terminal import Header, Terminal
from engine.training.epoch_totals import EpochTotals, Step
from engine.training.summary import ClassResult, Oracle, RuleResult, Summary

FOLDER = Path("runs/synthetic/0123456789ab")


def screen(*, terminal: bool = False, width: int = 120) -> Terminal:
    """A terminal that writes into a string; ``printed`` reads it."""
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, soft_wrap=True
    )
    return Terminal(console)


def printed(shown: Terminal) -> str:
    file = shown.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def class_result(label: int, **values: Any) -> ClassResult:
    counts = {"train_images": 200 - label, "group": "many", "support": 10}
    defaults = {"name": f"class{label}", "recall": label / 200, "precision": 0.5, "f1": 0.25}
    return ClassResult.model_validate({"label": label, **counts, **defaults, **values})


def summary(*classes: ClassResult, **values: Any) -> Summary:
    found = classes or tuple(class_result(label) for label in range(4))
    test = {"accuracy": 0.5, "balanced_accuracy": 0.25, "few_accuracy": None, "many_accuracy": 0.75}
    rules = {
        rule: RuleResult(epoch=epoch, val=None, test=test, classes=found)
        for rule, epoch in (("last", 7), ("val", 3))
    }
    fields = {
        "title": "Synthetic",
        "fingerprint": "0123456789ab",
        "group": "ba9876543210",
        "seed": 0,
        "split_fingerprint": "split",
        "code_hash": "code",
        "headline": "val",
        "rules": rules,
        "oracle": None,
        "selection": "rule val: epoch 3",
        "notes": (),
        "class_counts": tuple(c.train_images for c in found),
        "time": {},
        "group_sizes": {"many": 4, "medium": 1, "few": 0},
    }
    return Summary.model_validate({**fields, **values})


def closing(
    given: Summary, *, code_now: str = "code", width: int = 120, folder: Path = FOLDER
) -> str:
    shown = screen(width=width)
    shown.summary(given, folder, code_now=code_now)
    return printed(shown)


def cells(text: str, first: str) -> list[str]:
    """The other cells of the table row whose first cell is ``first``."""
    for line in text.splitlines():
        name, *values = re.split(r"\s{2,}", line.strip())
        if name == first and values:
            return values
    raise AssertionError(f"no row {first!r} in\n{text}")


def classes_of(text: str) -> list[int]:
    """Numbers of the classes in the table, from top to bottom."""
    return [int(label) for label in re.findall(r"^ *class(\d+) ", text, flags=re.MULTILINE)]


# --- while it trains ------------------------------------------------------------------------------

ROW = {
    "epoch": 2,
    "train/loss": 1.23456,
    "lr": 0.05,
    "val/balanced_accuracy": 0.4321,
    "time/images_per_second": 1234.5,
}


def train_one_epoch(shown: Terminal) -> None:
    with shown.training(epochs=10, done=8, total=80):
        totals = EpochTotals(loss=30.0, correct=5.0, images=20, steps=4, seconds=0.5)
        shown.step(Step(epoch=1, step=4, steps=8, rate=0.025, totals=totals))
        shown.epoch(ROW, metric="balanced_accuracy", best_epoch=2)


def test_without_a_terminal_there_is_one_plain_line_an_epoch() -> None:
    shown = screen()
    train_one_epoch(shown)
    (line,) = printed(shown).splitlines()
    assert re.split(r"\s{2,}", re.sub("(epoch|best)  ", r"\1 ", line)) == [
        "epoch 2/10",
        "loss 1.2346",
        "lr 0.05",
        "val 0.4321",
        "best 2",
        "1,234 images/s",
    ]


def test_on_a_terminal_there_is_a_bar_with_epoch_loss_rate_and_speed() -> None:
    shown = screen(terminal=True)
    train_one_epoch(shown)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed(shown))
    assert "epoch 2/10  loss 1.5000  lr 0.025  40 images/s" in text
    assert "12/80 steps" in text
    assert "epoch  2/10  loss 1.2346" in text
    assert "\x1b[" in printed(shown)


def test_a_resumed_run_begins_its_bar_where_it_stands() -> None:
    shown = screen(terminal=True)
    with shown.training(epochs=10, done=8, total=80):
        pass
    assert "8/80" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed(shown))


@pytest.mark.parametrize(("best", "words"), [(1, "  best  1  "), (2, "  best  2  ")])
def test_an_epoch_says_which_one_is_the_best_so_far(best: int, words: str) -> None:
    shown = screen()
    with shown.training(epochs=10, done=0, total=10):
        shown.epoch(ROW, metric="balanced_accuracy", best_epoch=best)
    assert words in printed(shown)


def plain(shown: Terminal) -> list[str]:
    """What was printed, without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed(shown)).splitlines()


def test_an_epoch_of_a_long_run_is_one_line_of_80_columns() -> None:
    row = {
        "epoch": 999,
        "train/loss": 12.34567,
        "lr": 2.5e-05,
        "val/balanced_accuracy": 0.4321,
        "time/images_per_second": 12345.6,
    }
    shown = screen(terminal=True, width=80)
    shown._epochs = 1000
    shown.epoch(row, metric="balanced_accuracy", best_epoch=998)
    (line,) = plain(shown)
    assert len(line) <= 80
    assert line.startswith("epoch  999/1000  loss 12.3457  lr 2.5e-05  val 0.4321  best  998")


def test_on_a_terminal_that_is_too_narrow_an_epoch_loses_its_speed_and_no_word_is_cut() -> None:
    shown = screen(terminal=True, width=50)
    shown._epochs = 10
    shown.epoch(ROW, metric="balanced_accuracy", best_epoch=2)
    assert plain(shown) == ["epoch  2/10  loss 1.2346  lr 0.05     val 0.4321"]


def test_a_bar_of_80_columns_cuts_nothing_off() -> None:
    shown = screen(terminal=True, width=80)
    with shown.training(epochs=200, done=0, total=60_000):
        totals = EpochTotals(loss=30.0, correct=5.0, images=20, steps=4, seconds=0.5)
        shown.step(Step(epoch=198, step=300, steps=300, rate=2.5e-05, totals=totals))
    assert not any("…" in line for line in plain(shown))


def header(**values: Any) -> Header:
    fields: dict[str, Any] = {
        "title": "Digits",
        "class_counts": [108, 80, 2],
        "num_validation": 60,
        "num_test": 150,
        "model": "cifar_resnet20",
        "num_parameters": 269_434,
        "device": "cpu",
        "threads": 1,
        "epochs": 40,
        "steps": 11,
        "chosen_by": "balanced accuracy",
        "folder": FOLDER,
    }
    return Header(**{**fields, **values})


def test_a_run_begins_with_what_it_is() -> None:
    shown = screen()
    shown.header(header())
    assert printed(shown).splitlines() == [
        "data    Digits: 3 classes, imbalance 54 (108 / 2)",
        "        190 training images: 108 80 2",
        "        60 validation, 150 test images",
        "model   cifar_resnet20, 269,434 parameters",
        "device  cpu, 1 thread",
        "epochs  40 of 11 steps; val is balanced accuracy",
        f"folder  {FOLDER}",
    ]


def test_the_counts_of_many_classes_are_the_first_and_the_last() -> None:
    shown = screen(terminal=True, width=80)
    shown.header(header(class_counts=[0, *range(5, 505)], num_validation=0, chosen_by=None))
    lines = plain(shown)
    assert lines[0] == "data    Digits: 500 classes, imbalance 100.8 (504 / 5)"
    assert lines[1].endswith("training images: 504 ... 5")
    assert lines[2] == "        150 test images"
    assert "val" not in " ".join(lines)
    assert max(map(len, lines)) <= 80


def test_without_validation_an_epoch_speaks_of_no_best() -> None:
    row = {key: value for key, value in ROW.items() if not key.startswith("val/")}
    shown = screen()
    with shown.training(epochs=10, done=0, total=10):
        shown.epoch(row, metric="balanced_accuracy", best_epoch=None)
    assert printed(shown).split() == [
        "epoch",
        "2/10",
        "loss",
        "1.2346",
        "lr",
        "0.05",
        "1,234",
        "images/s",
    ]


def test_without_a_terminal_a_line_is_not_broken_however_long_it_is() -> None:
    shown = screen(width=40)
    shown.say("word " * 40 + "x" * 200)
    assert printed(shown) == "word " * 40 + "x" * 200 + "\n"


def test_on_a_terminal_a_long_line_is_broken_between_words_and_a_path_never() -> None:
    shown = screen(terminal=True, width=40)
    shown.say(f"a sentence that is longer than forty columns and a path: {'x-y/' * 15}")
    assert plain(shown) == [
        "a sentence that is longer than forty",
        "  columns and a path:",
        f"  {'x-y/' * 15}",
    ]


# --- the closing tables ---------------------------------------------------------------------------


def test_output_without_a_terminal_has_no_escape_codes() -> None:
    assert "\x1b" not in closing(summary())


def test_a_group_without_classes_has_no_row() -> None:
    text = closing(summary())
    assert "many (4 classes)" in text
    assert "few (" not in text


def test_an_undefined_score_is_a_dash_and_never_0() -> None:
    text = closing(summary(class_result(0, recall=None, precision=None)))
    assert cells(text, "class0") == ["many", "200", DASH, DASH, "0.250", "10"]


def test_a_group_is_named_with_its_size() -> None:
    text = closing(summary())
    assert cells(text, "many (4 classes)") == ["0.750", "0.750"]


def test_a_measure_that_the_run_does_not_have_has_no_row() -> None:
    text = closing(summary())
    assert "AUROC" not in text
    assert cells(text, "accuracy") == ["0.500", "0.500"]


def test_the_headline_is_marked_and_no_other_rule_is() -> None:
    assert cells(closing(summary()), "metric") == ["last (epoch 7)", "val (epoch 3, headline)"]
    text = closing(summary(headline="last"))
    assert cells(text, "metric") == ["last (epoch 7, headline)", "val (epoch 3)"]


def test_the_class_table_is_that_of_the_headline_in_order_of_training_images() -> None:
    classes = [class_result(0, train_images=5), class_result(1), class_result(2, train_images=80)]
    text = closing(summary(*classes))
    assert "Synthetic: test by class, rule val (epoch 3)" in text
    assert classes_of(text) == [1, 2, 0]


def test_ten_classes_are_all_shown() -> None:
    text = closing(summary(*(class_result(label) for label in range(10))))
    assert classes_of(text) == list(range(10))
    assert "lowest" not in text


def test_of_a_hundred_classes_the_ten_at_each_end_of_recall_are_shown() -> None:
    text = closing(summary(*(class_result(label) for label in range(100))))
    assert classes_of(text) == [*range(10), *range(90, 100)]
    assert "lowest and highest 10 recalls of 100" in " ".join(text.split())


def test_classes_without_test_images_are_neither_low_nor_high_recalls() -> None:
    classes = [class_result(label) for label in range(100)]
    for label in (0, 50, 99):
        classes[label] = class_result(label, recall=None)
    text = closing(summary(*classes))
    assert classes_of(text) == [*range(1, 11), *range(89, 99)]
    assert "recalls of 97" in " ".join(text.split())


def test_no_class_is_shown_twice_where_few_have_test_images() -> None:
    classes = [class_result(label, recall=0.5 if label < 15 else None) for label in range(40)]
    assert classes_of(closing(summary(*classes))) == list(range(15))


@pytest.mark.parametrize("name", ["[bold]cat[/bold]", "[/]", "a[red", ":smile:", "train/[link=x]"])
def test_names_with_markup_are_shown_as_they_are(name: str) -> None:
    text = closing(summary(class_result(0, name=name), title=f"Set {name}"))
    assert cells(text, name)[0] == "many"
    assert f"Set {name}: test by class" in " ".join(text.split())
    shown = screen()
    shown.say(f"run folder: {name}")
    assert printed(shown) == f"run folder: {name}\n"


def test_a_narrow_terminal_cuts_no_number() -> None:
    text = closing(summary(), width=60)
    assert cells(text, "class3") == ["many", "197", "0.015", "0.500", "0.250", "10"]


def test_the_closing_lines_say_where_everything_is_and_name_nothing_else(tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl", "summary.json"):
        (tmp_path / name).touch()
    for name in ("predictions", "checkpoints"):
        (tmp_path / name).mkdir()
    lines = closing(summary(), folder=tmp_path).splitlines()
    assert lines[lines.index(f"run folder: {tmp_path}") :] == [
        f"run folder: {tmp_path}",
        "  config.yaml  metrics.jsonl  summary.json",
        "  predictions/  checkpoints/",
    ]
    for name in ("figures", "wandb"):
        (tmp_path / name).mkdir()
    *_, last = closing(summary(), folder=tmp_path).splitlines()
    assert last == "  figures/  predictions/  checkpoints/  wandb/"


def test_the_closing_lines_say_what_chose_and_what_must_be_known() -> None:
    lines = closing(summary(notes=("class 0 gave up 20 images",))).splitlines()
    assert "rule val: epoch 3" in lines
    assert "note: class 0 gave up 20 images" in lines


def test_the_oracle_is_shown_with_its_gap_and_called_no_result() -> None:
    oracle = Oracle(epoch=9, metric="accuracy", value=0.55, headline_value=0.5)
    text = closing(summary(oracle=oracle))
    expected = "oracle (best test epoch, 9): accuracy 0.5500, +0.0500 against the headline; never"
    assert expected in text
    assert "oracle" not in closing(summary())


def test_a_run_made_by_other_code_says_so() -> None:
    line = "note: made by other code (code; now other)"
    assert line in closing(summary(), code_now="other").splitlines()
    assert "made by other code" not in closing(summary())


# --- seeds ----------------------------------------------------------------------------------------


def with_accuracy(seed: int, accuracy: float | None) -> Summary:
    given = summary(seed=seed)
    rules = {
        rule: result.model_copy(update={"test": {**result.test, "accuracy": accuracy}})
        for rule, result in given.rules.items()
    }
    return given.model_copy(update={"rules": rules})


def seeds_table(*accuracies: float | None) -> str:
    shown = screen()
    shown.seeds([with_accuracy(seed, value) for seed, value in enumerate(accuracies)])
    return printed(shown)


def test_seeds_show_mean_and_standard_deviation_and_n() -> None:
    text = seeds_table(0.1, 0.2, 0.6)
    assert cells(text, "accuracy") == ["0.300 ± 0.265", "0.300 ± 0.265"]
    assert cells(text, "n") == ["3", "3"]
    assert cells(text, "metric") == ["rule last", "rule val"]
    assert "seeds 0, 1, 2; group ba9876543210" in text
    assert "mean ± std over 3 seeds" in text


def with_recall(seed: int, *recalls: float | None) -> Summary:
    return summary(*(class_result(n, recall=r) for n, r in enumerate(recalls)), seed=seed)


def test_seeds_show_mean_and_standard_deviation_of_each_class() -> None:
    given = [with_recall(0, 0.1, None), with_recall(1, 0.2, None), with_recall(2, 0.6, 0.5)]
    shown = screen()
    shown.seeds(given)
    text = printed(shown)
    assert cells(text, "class0") == [
        "many",
        "200",
        "0.300 ± 0.265",
        "0.500 ± 0.000",
        "0.250 ± 0.000",
    ]
    assert cells(text, "class1")[2] == "0.500 (n = 1)"


def test_the_report_of_several_seeds_holds_every_class_and_is_named_at_the_end() -> None:
    given = [with_recall(seed, *(n / 50 for n in range(50))) for seed in (0, 1)]
    shown = screen()
    shown.seeds(given, file=Path("runs/synthetic/seeds-0.md"))
    assert len(classes_of(printed(shown))) == 20
    assert printed(shown).splitlines()[-1] == "report: runs/synthetic/seeds-0.md"
    report = seeds.markdown(given)
    assert len(re.findall(r"^\| class\d+ \|", report, flags=re.MULTILINE)) == 50
    assert "| class7 | many | 193 | 0.140 ± 0.000 | 0.500 ± 0.000 | 0.250 ± 0.000 |" in report
    assert "| accuracy | 0.500 ± 0.000 | 0.500 ± 0.000 |" in report


def test_a_class_name_does_not_break_the_report() -> None:
    given = summary(class_result(0, name="a|b\nc"))
    assert "| a\\|b\\nc | many |" in seeds.markdown([given])


def test_one_of_several_seeds_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=120, highlight=False, soft_wrap=True)
    shown = Terminal(console, is_brief=True)
    shown.summary(summary(seed=3), FOLDER, code_now="code")
    assert printed(shown) == (
        f"seed 3: test balanced accuracy 0.250 (rule val, epoch 3); {FOLDER}\n"
    )


def test_a_metric_that_no_seed_has_is_a_dash() -> None:
    text = seeds_table(None, None)
    assert cells(text, "accuracy") == [DASH, DASH]
    assert "few (0 classes)" not in text


def test_a_metric_that_some_seeds_lack_has_its_own_n() -> None:
    assert cells(seeds_table(0.1, None), "accuracy")[0] == "0.100 (n = 1)"
    assert cells(seeds_table(0.1, 0.3, None), "accuracy")[0] == "0.200 ± 0.141 (n = 2)"


def test_one_seed_has_no_standard_deviation() -> None:
    assert cells(seeds_table(0.1), "accuracy") == ["0.100", "0.100"]


def test_a_terminal_of_its_own_writes_to_the_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Terminal().say("[bold]plain")
    assert capsys.readouterr().out == "[bold]plain\n"
