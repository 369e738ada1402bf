"""What a search file may say, and that every mistake in it is named before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.components import ROOT
from engine.config.mistakes import ConfigError
from engine.tuning.search.checks import checked
from engine.tuning.search.command_line import Arguments, parse
from engine.tuning.search.pruning import pruning_start
from engine.tuning.search.reader import read_search_file
from engine.tuning.search.schema import SearchFile
from engine.tuning.search.space import num_trials, parameter_sets

READY = {
    "softmax_focal": "digits_lt",
    "sigmoid_focal": "digits_lt",
    "fraud": "digits_rare",
    "methods": "digits_lt",
    "fashion_mnist": "fashion_mnist_lt",
}
OF_DUELS = {"recipe"}  # for the cells of a table, whose losses it names

BUDGET = "budget: {trials: 4, epochs: 2}\n"
GAMMA = "set: {loss: softmax_focal}\nspace: {loss.gamma: {float: [0, 5]}}\n"


def read(tmp_path: Path, text: str) -> SearchFile:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return read_search_file(path)


def parsed(tmp_path: Path, text: str, *words: str) -> Arguments:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return parse([*words, "--search", str(path)])


def mistakes_of(tmp_path: Path, text: str, *words: str) -> list[str]:
    """What is said against a search file, without the file's name."""
    with pytest.raises(ConfigError) as refused:
        checked(parsed(tmp_path, text, *words).search)
    return [m.removeprefix(f"{tmp_path / 'search.yaml'}: ") for m in refused.value.mistakes]


def test_no_ready_made_search_is_forgotten() -> None:
    assert {path.stem for path in (ROOT / "experiments" / "search").glob("*.yaml")} == (
        set(READY) | OF_DUELS
    )


@pytest.mark.parametrize("name", READY)
def test_every_ready_made_search_fits_its_config(name: str) -> None:
    files = [f"experiments/{READY[name]}.yaml", "--search", f"experiments/search/{name}.yaml"]
    search = parse(files).search
    configs = checked(search)
    assert len({config.loss.name for config in configs}) == (6 if name == "methods" else 1)
    assert search.file.metrics[0] == configs[0].evaluate.metric == search.base.evaluate.metric


def test_sigmoid_focal_searches_a_binary_task_as_well() -> None:
    words = ["experiments/digits_rare.yaml", "--search", "experiments/search/sigmoid_focal.yaml"]
    assert len(checked(parse(words).search)) > 0


def test_what_is_tried_first_is_what_the_papers_say() -> None:
    tried = {
        name: read_search_file(ROOT / f"experiments/search/{name}.yaml").enqueue for name in READY
    }
    assert tried["sigmoid_focal"] == (
        {"loss.alpha": 0.25, "loss.gamma": 2},
        {"loss.alpha": 0.5, "loss.gamma": 0},
    )
    assert [tuple(values.values()) for values in tried["softmax_focal"]] == [(0, 0), (1, 0), (0, 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrc: val/accuracy\n", "metrc: unknown key (did you mean metric?); one of metric, "),
        ("budget: {trails: 4}\n", "budget.trails: unknown key (did you mean trials?)"),
        ("budget: {trials: 0}\n", "budget.trials=0: expected a whole number >= 1, or null"),
        ("sampler: tbe\n", "sampler.name=tbe: expected one of tpe | gp | random | grid"),
        ("pruner: 3\n", "pruner=3: expected a mapping with name, warmup"),
        ("metric: test/accuracy\n", "metric=test/accuracy: a search never sees test"),
        ("metric: oracle\n", "metric=oracle: a search never sees test"),
        ("metric: val/acuracy\n", "metric=val/acuracy: unknown (did you mean val/accuracy?)"),
        ("metric: [val/nll, val/nll]\n", 'metric=["val/nll", "val/nll"]: names one metric twice'),
        ("metric: val/nll\ndirection: maximize\n", "direction=maximize: expected minimize"),
        ("seeds: 0\n", "seeds=0: expected a whole number >= 1 and <= 100"),
        ("enqueue: {a: 1}\n", 'enqueue={"a": 1}: expected a list of {key: value, ...}'),
        ("space: {seed: {flaot: [0, 1]}}\n", "space.seed.flaot=[0, 1]: expected {float: "),
        ("space: {a: {float: [0]}}\n", 'space.a={"float": [0]}: expected {float: [low, high]}'),
        ("space: {a: {float: [2, 1]}}\n", "the first number must be the smaller one"),
        ("space: {a: {float: [0, 1], log: true}}\n", "a log scale needs numbers above 0"),
        ("space: {a: {int: [0, 1.5]}}\n", "int takes whole numbers"),
        ("space: {a: {float: [0, 1], step: 0.3}}\n", "not a whole number of steps of 0.3 away"),
        ("space: {a: {float: [0, 1], lg: true}}\n", "space.a.lg: unknown key (did you mean log?)"),
        ("space: {a: {choice: []}}\n", 'space.a={"choice": []}: expected {float: [low, high]}'),
    ],
)
def test_a_mistake_in_a_search_file_is_named_with_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    content = "".join(part for part in (BUDGET, GAMMA) if part.partition(":")[0] not in text)
    if "space" in text:
        content = BUDGET
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text + content)
    assert any(said in mistake for mistake in refused.value.mistakes), refused.value.mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GAMMA, "budget.trials: is missing; only sampler=grid ends by itself"),
        (
            BUDGET + GAMMA + "metric: [val/accuracy, val/nll]\npruner: median\n",
            "pruner=median: has no effect with two metrics; use pruner: none",
        ),
        (BUDGET + GAMMA + "pruner: median\nseeds: 5\n", "pruner=median: compares epochs of one"),
        (BUDGET + GAMMA + "pruner: wilcoxon\n", "seeds=1: pruner=wilcoxon compares trials over"),
        (
            BUDGET + GAMMA + "pruner: {name: none, warmup: 0.5}\n",
            "pruner.warmup: has no effect with pruner=none",
        ),
        (BUDGET + GAMMA + "sampler: grid\n", "space.loss.gamma: sampler=grid needs a step"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (mistake,) = mistakes_of(tmp_path, text)
    assert said in mistake


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("space: {loss.gama: {float: [0, 1]}}", (), "loss.gama: unknown key"),
        (
            "space: {loss.gamma: {float: [0, 1]}}",
            (),
            "loss.gamma: loss=cross_entropy has no such key; ",
        ),
        (GAMMA.replace("[0,", "[-1,"), (), "loss.gamma=-1.0: expected a number >= 0"),
        ("space: {optim.momentum: {float: [0.5, 1.5]}}", (), "optim.momentum=1.5: expected"),
        ("space: {reweight: {choice: [none, nverse]}}", (), "reweight.scheme=nverse: expected"),
        ("space: {seed: {int: [0, 9]}}", (), "space.seed: the best seed means nothing"),
        ("space: {runtime.workers: {int: [0, 9]}}", (), "changes no number"),
        ("space: {evaluate.metric: {choice: [val/nll]}}", (), "trials are compared by metric"),
        ("space: {data.imbalance.factor: {float: [2, 9]}}", (), "makes another task of it"),
        (
            "space: {optim.lr: {float: [0.01, 1]}}",
            ("optim.lr=0.1",),
            "optim.lr=0.1: has no effect, search.yaml sets this key",
        ),
        (GAMMA, ("schedule.epochs=3",), "schedule.epochs=3: has no effect, budget.epochs is 2"),
        (GAMMA, ("evaluate.test_every_epoch=true",), "a trial of a search never looks at test"),
        (GAMMA, ("data.validation.per_class=null",), "a search needs a validation split"),
        (
            "space: {loss.gamma: {float: [0, 5], where: {loss: softmax_focal}}}",
            (),
            'space.loss.gamma.where.loss.name=["softmax_focal"]: never holds',
        ),
        (
            "space: {loss.gamma: {float: [0, 5], where: {los: a}}}",
            (),
            "space.loss.gamma.where.los: unknown key",
        ),
        (
            "space: {reweight.power: {float: [0, 1], where: {reweight: power}}, "
            "reweight: {choice: [none, power]}}",
            (),
            "reweight.scheme must stand above reweight.power in the file",
        ),
        (GAMMA + "enqueue: [{loss.gamma: 9}]", (), "enqueue 1: loss.gamma=9: expected a number"),
        (GAMMA + "enqueue: [{loss.gama: 1}]", (), "loss.gama: not in the space (did you mean"),
    ],
)
def test_the_space_is_checked_against_the_config(
    tmp_path: Path, text: str, words: tuple[str, ...], said: str
) -> None:
    found = mistakes_of(tmp_path, BUDGET + text + "\n", *words)
    assert any(said in mistake for mistake in found), found


def test_all_mistakes_are_told_at_once_with_exit_code_2_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        BUDGET
        + "space: {loss.gama: {float: [0, 1]}, optim.momentum: {float: [-1, 1.5]}, "
        + "seed: {int: [0, 9]}}\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweep.py"), "--search", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert [word for word in ("loss.gama", "=-1.0", "=1.5", "space.seed") if word in done.stderr]
    assert not any(line.startswith("Traceback") for line in lines)
    assert list(tmp_path.iterdir()) == [path]


def test_a_typo_and_help_are_answered_without_torch_and_optuna(tmp_path: Path) -> None:
    code = (
        "import sys, sweep\n"
        "print(sweep.main(sys.argv[1:]), {'torch', 'optuna', 'timm', 'wandb'} & set(sys.modules))"
    )
    for words, expected in ((["--help"], "0 set()"), (["--serch", "x"], "2 set()")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == expected
    assert "--serch: unknown option (did you mean --search?)" in done.stderr


def test_a_conditional_key_exists_only_where_its_condition_holds(tmp_path: Path) -> None:
    text = BUDGET + (
        "space:\n"
        "  reweight: {choice: [none, power]}\n"
        "  reweight.power: {float: [0, 1], step: 0.5, where: {reweight: power}}\n"
    )
    cells = parameter_sets(parsed(tmp_path, text).search)
    assert cells == [
        {"reweight.scheme": "none"},
        {"reweight.scheme": "power", "reweight.power": 0.0},
        {"reweight.scheme": "power", "reweight.power": 0.5},
        {"reweight.scheme": "power", "reweight.power": 1.0},
    ]


def test_a_grid_is_as_many_trials_as_it_has_cells(tmp_path: Path) -> None:
    text = "sampler: grid\nset: {loss: softmax_focal}\nspace: {loss.gamma: {int: [0, 5]}}\n"
    assert num_trials(parsed(tmp_path, text).search) == 6
    assert num_trials(parsed(tmp_path, text, "--trials", "4").search) == 4


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_space_with_fewer_parameter_sets_than_trials_ends_when_all_are_tried(
    tmp_path: Path, sampler: str
) -> None:
    text = f"budget: {{trials: 9}}\nsampler: {sampler}\n"
    choice = "space: {loss: {choice: [cross_entropy, ldam, poly]}}\n"
    assert num_trials(parsed(tmp_path, text + choice).search) == 3
    assert num_trials(parsed(tmp_path, text + GAMMA).search) == 9


def test_a_choice_may_be_among_lists(tmp_path: Path) -> None:
    text = BUDGET + (
        "set: {schedule: steps}\n"
        "space: {schedule.steps: {choice: [[0.5, 0.75], [0.6, 0.8]]}}\n"
        "enqueue: [{schedule.steps: [0.6, 0.8]}]\n"
    )
    search = parsed(tmp_path, text).search
    assert {config.schedule.steps for config in checked(search)} == {(0.5, 0.75), (0.6, 0.8)}
    assert search.config(search.file.enqueue[0]).schedule.steps == (0.6, 0.8)
    assert parameter_sets(search) == [
        {"schedule.steps": "[0.5, 0.75]"}, {"schedule.steps": "[0.6, 0.8]"}
    ]  # fmt: skip


def test_a_choice_that_names_a_value_twice_is_refused(tmp_path: Path) -> None:
    text = BUDGET + "space: {model.head: {choice: [linear, cosine, linear]}}\n"
    with pytest.raises(ConfigError, match=r"space\.model\.head=.*: names one value twice"):
        read(tmp_path, text)


def test_a_gaussian_process_refuses_keys_that_only_some_trials_have(tmp_path: Path) -> None:
    text = BUDGET + (
        "sampler: gp\n"
        "space:\n"
        "  loss: {choice: [cross_entropy, softmax_focal]}\n"
        "  loss.gamma: {float: [0, 5], where: {loss: softmax_focal}}\n"
    )
    expected = r"loss\.gamma\.where: sampler=gp models keys that every trial has; use sampler: tpe"
    with pytest.raises(ConfigError, match=expected):
        checked(parsed(tmp_path, text).search)
    checked(parsed(tmp_path, text.replace("sampler: gp", "sampler: tpe")).search)


def test_an_enqueued_value_between_two_steps_is_refused(tmp_path: Path) -> None:
    text = BUDGET + GAMMA.replace("[0, 5]", "[0, 5], step: 0.5") + "enqueue: [{loss.gamma: 0.7}]\n"
    with pytest.raises(ConfigError, match=r"expected a number from 0 to 5 in steps of 0\.5"):
        checked(parsed(tmp_path, text).search)


@pytest.mark.parametrize(
    ("key", "epochs", "first"),
    [("reweight.start", 10, 9), ("sampler.start", 10, 9), ("none", 10, 3), ("none", 20, 5)],
)
def test_nothing_is_pruned_before_a_deferred_start_has_begun(
    tmp_path: Path, key: str, epochs: int, first: int
) -> None:
    words = {
        "reweight.start": ("reweight=inverse", "reweight.start=0.8"),
        "sampler.start": ("sampler=class_balanced", "sampler.start=0.8"),
        "none": (),
    }[key]
    text = f"budget: {{trials: 4, epochs: {epochs}}}\npruner: median\n" + GAMMA
    search = parsed(tmp_path, text, *words).search
    found = pruning_start(search, checked(search))
    assert found.epochs == first
    assert found.reason == (
        "pruner.warmup=0.25" if key == "none" else f"{key}=0.8 begins with epoch 9"
    )


def test_a_start_that_is_searched_counts_with_its_latest_value(tmp_path: Path) -> None:
    text = (
        "budget: {trials: 4, epochs: 10}\npruner: median\nset: {reweight: inverse}\n"
        "space: {reweight.start: {float: [0, 0.6]}}\n"
    )
    search = parsed(tmp_path, text).search
    assert pruning_start(search, checked(search)).epochs == 7


def test_a_pruner_that_could_never_prune_is_refused(tmp_path: Path) -> None:
    text = (
        "budget: {trials: 4, epochs: 10}\npruner: median\nset: {reweight: inverse}\n"
        "space: {reweight.start: {float: [0, 0.9]}}\n"
    )
    search = parsed(tmp_path, text).search
    with pytest.raises(ConfigError, match="median: has no effect, reweight"):
        pruning_start(search, checked(search))
