"""The command line: help, mistakes, exit codes, seeds; and that asking costs no heavy import."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import train
from engine.config import command_line, components
from engine.config.glossary import WORDS, advice
from engine.config.load import dump, fingerprint, flatten, load
from engine.config.metrics import selectable
from engine.config.mistakes import ConfigError
from engine.config.schema import DEFAULT_DATA, DEFAULT_LOSS
from engine.training.build import build_dataset
from tests._runs import folder_of, rows_of, small_config, small_words

HEAVY = ("torch", "timm", "wandb", "sklearn", "matplotlib", "pandas", "numpy", "rich")
COMPONENTS = [(p, name) for p in ("data", "losses") for name in components.names(p)]


def text_of(help_text: str) -> str:
    """Help as one line, so that wrapping does not matter."""
    return " ".join(help_text.split())


@pytest.fixture(scope="module")
def full_help() -> str:
    return text_of(command_line.help_text())


# --- help -----------------------------------------------------------------------------------------


def test_help_lists_every_key_that_a_config_has_with_its_default(full_help: str) -> None:
    values = flatten(load())
    missing = [key for key in values if f" {key}=" not in full_help]
    assert missing == []
    assert " seed=0 " in full_help
    assert " schedule.warmup=0.05 " in full_help
    assert " data.one_vs_rest=null " in full_help


@pytest.mark.parametrize(("package", "name"), COMPONENTS)
def test_help_lists_every_component_with_its_keys(full_help: str, package: str, name: str) -> None:
    section = {"data": "data", "losses": "loss"}[package]
    component = components.read(package, name)
    _, found, block = full_help.partition(f" {section}={name}: {component.summary}")
    assert found
    position = 0
    for key in component.keys:
        position = block.index(f" {section}.{key.name}=", position)
        assert block.index(key.help, position) > position


@pytest.mark.parametrize(
    "row",
    [
        "optim.lr=0.05 peak learning rate (a number > 0)",
        "schedule.epochs=40 length of training (a whole number >= 1)",
        "schedule.name=cosine shape of the learning rate (one of cosine | constant | steps)",
        "data.augment.flip=false Mirror an image left to right, with probability 1/2. (true or "
        "false)",
        "optim.clip_norm=null clip the global gradient norm to this (a number > 0, or null)",
        "loss.gamma=2.0 How strongly; 0 is cross-entropy. (a number >= 0)",
        "data.noise=0.7 Share of noise in an image, from 0 (a class is one image) to 1 (noise "
        "alone). (a number >= 0 and <= 1)",
    ],
)
def test_a_row_of_help_has_default_meaning_and_range(full_help: str, row: str) -> None:
    assert f" {row} " in full_help


def test_help_names_the_defaults_that_a_data_set_sets_itself(full_help: str) -> None:
    assert "sets data.imbalance.factor=100.0, data.validation.per_class=100" in full_help


def test_help_fits_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def widest(columns: int) -> int:
        monkeypatch.setenv("COLUMNS", str(columns))
        rows = command_line.help_text("optim").splitlines()
        return max(len(row) for row in rows if row.startswith("  "))

    assert widest(100) <= 100
    assert widest(80) <= 80
    assert widest(80) < widest(100)


@pytest.mark.parametrize("word", ["reweight", "warmup", "init_", "WARMUP"])
def test_help_with_a_word_shows_the_keys_that_have_it(
    capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert train.main(["--help", word]) == 0
    output = capsys.readouterr().out
    shown = re.findall(r"^  ([\w.]+)=", output, flags=re.MULTILINE)
    assert {key for key in flatten(load()) if word.lower() in key} <= set(shown)
    assert "usage" not in output


def test_help_with_a_word_shows_nothing_that_does_not_have_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train.main(["--help", "amp"]) == 0
    output = capsys.readouterr().out
    assert re.findall(r"^  ([\w.]+)=", output, flags=re.MULTILINE) == ["runtime.precision"]


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("drw", ["reweight.scheme", "reweight.start"]),
        ("crt", ["sampler.name", "model.freeze", "model.init_from", "model.init_head"]),
        ("tau", ["loss.tau", "evaluate.logit_adjustment"]),
        ("Oracle", ["evaluate.test_every_epoch"]),
        ("many", ["evaluate.metric"]),
    ],
)
def test_help_knows_the_words_of_the_field(
    capsys: pytest.CaptureFixture[str], word: str, keys: list[str]
) -> None:
    assert train.main(["--help", word]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{word}: write ")
    assert set(keys) <= set(re.findall(r"^  ([\w.]+)=", output, flags=re.MULTILINE))


def test_help_finds_words_of_what_keys_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help", "nesterov"]) == 0
    assert "optim.name=sgd" in capsys.readouterr().out


def test_help_lists_every_method_file_with_its_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help", "methods"]) == 0
    output = text_of(capsys.readouterr().out)
    files = sorted((components.ROOT / "experiments" / "methods").glob("*.yaml"))
    position = 0
    for file in files:
        position = output.index(f"experiments/methods/{file.name} ", position)
    assert "ldam_drw.yaml LDAM-DRW (Cao et al. 2019)" in output


def test_help_lists_every_recipe_with_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help", "recipes"]) == 0
    output = text_of(capsys.readouterr().out)
    for name in ("papers", "small", "finetune"):
        assert f"experiments/photographs/{name}.yaml Photographs " in output
    assert "experiments/recipes/published.yaml As published results" in output


@pytest.mark.parametrize("word", [word for word, keys in WORDS.items() if "NAME" not in keys])
def test_what_the_glossary_says_is_a_config(word: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump(load()), encoding="utf-8")
    for choice in WORDS[word].split(", or "):
        load(overrides=choice.replace("RUN_FOLDER", str(tmp_path)).split())
    assert advice(word.upper()).endswith(WORDS[word])


def test_help_with_a_component_shows_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help", "loss=softmax_focal"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("loss=softmax_focal: ")
    shown = re.findall(r"^  loss\.(\w+)=", output, flags=re.MULTILINE)
    assert shown == [key.name for key in components.read("losses", "softmax_focal").keys]


def test_help_of_a_word_that_no_key_contains_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train.main(["--help", "nonsense"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "--help nonsense: no key or meaning has 'nonsense'\n"


def test_plain_help_begins_with_usage_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["-h"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("usage: python train.py [FILE.yaml ...] [key=value ...] [options]\n")
    assert all(option in output for option in ("--seeds N", "--fresh", "--print-config"))


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--help"], 0), (["optim.learning=1"], 2), (["--print-config"], 0), (["nowhere.yaml"], 2)],
    ids=["help", "typo", "print-config", "missing file"],
)
def test_an_answer_costs_no_heavy_import(words: list[str], code: int) -> None:
    program = (
        "import sys, train; code = train.main(sys.argv[1:]);"
        f"print('loaded', *[m for m in {HEAVY} if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=components.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"


# --- print-config ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["loss=softmax_focal", "loss.alpha=[1, 2, 3]", "loss.gamma=0.5"],
        ["data=image_folder", "data.path='a: b #c'", "schedule=steps", "schedule.steps=[0.25]"],
    ],
)
def test_print_config_prints_yaml_that_loads_to_an_equal_config(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*words, f"track.root={tmp_path / 'runs'}", "--print-config"]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load([file]) == load(overrides=[*words, f"track.root={tmp_path / 'runs'}"])
    assert not (tmp_path / "runs").exists()


# --- words in any order ---------------------------------------------------------------------------


def test_files_words_and_options_may_stand_in_any_order(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("seed: 3\n", encoding="utf-8")
    words = ([str(file)], ["seed=4"], ["--seeds", "2"], ["--fresh"], ["optim.lr=0.1"])
    for order in itertools.permutations(words):
        found = command_line.parse([word for group in order for word in group])
        assert found.files == [file]
        assert sorted(found.overrides) == ["optim.lr=0.1", "seed=4"]
        assert (found.seeds, found.fresh, found.print_config, found.help) == (2, True, False, None)


def test_a_value_that_ends_like_a_file_stays_a_value() -> None:
    found = command_line.parse(["model.init_from=runs/a.yaml", "b.yml"])
    assert found.overrides == ["model.init_from=runs/a.yaml"]
    assert found.files == [Path("b.yml")]


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "gamma=1.yaml"
    file.write_text("seed: 3\n", encoding="utf-8")
    assert command_line.parse([str(file)]).files == [file]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--freesh"], "--freesh: unknown option (did you mean --fresh?)"),
        (["--epochs", "3", "seed=1"], "--epochs: unknown option; write schedule.epochs=3"),
        (["seed=1", "--lr=0.1"], "--lr=0.1: unknown option; write optim.lr=0.1"),
        (["--loss", "ldam"], "--loss: unknown option; write loss=ldam"),
        (["--resume", "seed=1"], "--resume: unknown option; the same command resumes"),
        (["--gpu", "0"], "--gpu: unknown option; write runtime.device=cuda"),
        (["seed=4294967295", "--seeds", "2"], "seed may be at most 4294967295"),
        (["optim=adahessian"], "optim.name=adahessian: needs second derivatives"),
        (["--seed", "3"], "--seed: unknown option (did you mean --seeds?)"),
        (["--seeds", "0"], "--seeds 0: expected a whole number >= 1"),
        (["--seeds", "-2"], "--seeds"),
        (["--seeds", "many"], "--seeds"),
        (["--seeds"], "--seeds"),
        (["digits"], "digits: expected key=value or a file that ends in .yaml"),
        (["missing.yaml"], "missing.yaml: no such file"),
        (["schedule.epoch=5"], "schedule.epoch: unknown key (did you mean schedule.epochs?)"),
        (["seed=one"], "seed=one: expected a whole number >= 0"),
        (["data=cifar10"], "CIFAR-10"),
        (["optim.name=sdg"], "optim.name=sdg: timm has no such optimizer (did you mean sgd?)"),
        (["model=resnet10tt"], "model.name=resnet10tt"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_exit_code_2_and_no_folder(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "nothing"))
    given = {word.partition("=")[0] for word in words}
    rest = [f"track.root={tmp_path / 'runs'}", "track.wandb=disabled"]
    if "data" not in given:
        rest.append("data=synthetic")
    assert train.main([*words, *rest]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert expected in line
    assert not (tmp_path / "runs").exists()


def test_every_mistake_has_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["seed=-1", "optim.lr=fast", "nonsense=1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.partition("=")[0].partition(":")[0] for line in lines) == [
        "nonsense",
        "optim.lr",
        "seed",
    ]


def test_a_root_that_is_a_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("", encoding="utf-8")
    assert train.main(small_words(tmp_path / "runs")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert str(tmp_path / "runs") in line


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_exits_with_0_and_says_where_everything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = small_words(tmp_path, "schedule.epochs=1")
    assert train.main(words) == 0
    output = capsys.readouterr()
    folder = folder_of(tmp_path, "schedule.epochs=1")
    assert f"run folder: {folder}" in output.out.splitlines()
    assert output.err == ""
    assert train.main(words) == 0
    assert "this run is finished; --fresh runs it again" in capsys.readouterr().out


def test_fresh_reaches_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = small_words(tmp_path, "schedule.epochs=1")
    folder = folder_of(tmp_path, "schedule.epochs=1")
    assert train.main(words) == train.main([*words, "--fresh"]) == 0
    aside = folder.with_name(f"{folder.name}.old-1")
    assert f"--fresh: the earlier run is kept in {aside}" in capsys.readouterr().out
    assert aside.is_dir()


def test_the_command_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small_words(tmp_path, "schedule.epochs=1", "seed=7")
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    assert train.main(words) == 0
    folder = folder_of(tmp_path, "schedule.epochs=1", "seed=7")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["segments"][0]["command"] == ["train.py", *words]


def test_a_run_that_diverges_exits_with_1_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = small_words(tmp_path, "optim.lr=1e25", "schedule=constant", "schedule.warmup=0")
    assert train.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"epoch 1, step \d+: the loss or its gradient is not finite; classes in", line)
    assert "no checkpoint was made; a lower optim.lr or optim.clip_norm=1 may help" in line
    assert not list(tmp_path.rglob("summary.json"))


# --- seeds ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the runs of ``seed=3 --seeds 2``, with what was printed in ``output.txt``."""
    root = tmp_path_factory.mktemp("seeds")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert train.main([*small_words(root, "seed=3"), "--seeds", "2"]) == 0
    (root / "output.txt").write_text(printed.getvalue(), encoding="utf-8")
    return root


def test_seeds_run_from_the_key_seed_upwards(two_seeds: Path) -> None:
    folders = [folder_of(two_seeds, f"seed={seed}") for seed in (3, 4)]
    assert {path for path in two_seeds.glob("*/*") if path.is_dir()} == set(folders)
    assert rows_of(folders[0]) != rows_of(folders[1])
    assert {load([folder / "config.yaml"]).seed for folder in folders} == {3, 4}


def test_seeds_print_mean_standard_deviation_and_n_of_the_summaries(two_seeds: Path) -> None:
    folders = [folder_of(two_seeds, f"seed={seed}") for seed in (3, 4)]
    results = [json.loads((folder / "summary.json").read_text())["rules"] for folder in folders]
    _, _, table = (two_seeds / "output.txt").read_text().partition("mean ± std over 2 seeds")
    rows = (re.split(r"\s{2,}", row.strip()) for row in table.splitlines())
    cells = {name: values for name, *values in rows}
    for measure, heading in (("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("nll", "NLL")):
        for column, rule in enumerate(("last", "val")):
            values = [result[rule]["test"][measure] for result in results]
            expected = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
            assert cells[heading][column] == expected
    assert cells["n"] == ["2", "2"]


def test_seeds_share_a_group_that_is_printed(two_seeds: Path) -> None:
    group = fingerprint(small_config(two_seeds), without_seeds=True)
    assert f"seeds 3, 4; group {group}; " in (two_seeds / "output.txt").read_text()


def test_the_defaults_of_the_parser_are_those_of_the_config() -> None:
    assert (load().data.name, load().loss.name) == (DEFAULT_DATA, DEFAULT_LOSS)
    assert command_line.parse([]) == command_line.Arguments(
        words=[],
        files=[],
        overrides=[],
        seeds=None,
        submit=None,
        fresh=False,
        print_config=False,
        print_classes=False,
        print_groups=False,
        help=None,
    )


def test_an_unknown_option_is_a_config_error_like_any_other() -> None:
    with pytest.raises(ConfigError, match="unknown option"):
        command_line.parse(["--nothing-like-it"])


@pytest.mark.parametrize("columns", [70, 100, 120])
def test_help_breaks_the_list_of_metrics_between_names(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    words = command_line.help_text("metric").split()
    assert all(f"val/{name}" in {word.rstrip(")") for word in words} for name in selectable())


def test_the_classes_are_printed_in_label_order_with_their_images_and_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data.imbalance.factor=20", "data.validation.per_class=6", f"track.root={tmp_path}"]
    assert train.main([*words, "--print-classes"]) == 0
    dataset = build_dataset(load(overrides=words))
    heading, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert heading == ["label", "train", "val", "test", "class"]
    assert [line[0] for line in lines] == [str(label) for label in range(10)]
    assert [line[-1] for line in lines] == list(dataset.class_names)
    assert [int(line[1]) for line in lines] == dataset.class_counts.tolist()
    assert [int(line[2]) for line in lines] == [6] * 10
    assert sum(int(line[3]) for line in lines) == len(dataset.test)
    assert not list(tmp_path.iterdir())
