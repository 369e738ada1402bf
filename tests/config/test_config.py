"""Files and words become one checked config: precedence, mistakes, identity."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.config import components, derived, schema
from engine.config import load as config_module
from engine.config.components import names, read
from engine.config.homes import PATHS
from engine.config.load import CONFIG_VERSION, defaults, dump, fingerprint, flatten, load
from engine.config.mistakes import ConfigError
from engine.config.schema import DEFAULT_DATA, DEFAULT_LOSS, Config, standard
from engine.config.strict_yaml import parse

Write = Callable[[str], Path]
GOLDEN = Path(__file__).with_name("golden_defaults.json")
METHODS = components.ROOT / "experiments" / "methods"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a YAML file and return its path."""
    numbers = itertools.count()

    def write_file(text: str) -> Path:
        path = tmp_path / f"file{next(numbers)}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def mistakes_of(*words: str, files: tuple[Path, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(files, words)
    return caught.value.mistakes


# --- precedence and order -------------------------------------------------------------------------


def test_command_line_beats_later_file_beats_earlier_file_beats_default(write: Write) -> None:
    first = write("seed: 1\noptim: {lr: 0.2, batch_size: 16}\n")
    second = write("optim: {lr: 0.3}\n")
    config = load([first, second], ["seed=7"])
    assert (config.seed, config.optim.lr, config.optim.batch_size) == (7, 0.3, 16)
    assert config.optim.momentum == Config.model_fields["optim"].default.momentum


def test_python_values_have_the_precedence_of_the_command_line(write: Write) -> None:
    file = write("loss: {name: softmax_focal, gamma: 1}\n")
    assert load([file], values={"loss.gamma": 0.5}).loss.gamma == 0.5


@given(st.permutations(["loss=softmax_focal", "loss.gamma=1", "seed=3", "reweight=inverse"]))
def test_the_order_of_words_never_matters(words: list[str]) -> None:
    assert load(overrides=words) == load(overrides=sorted(words))


@pytest.mark.parametrize("key", PATHS)
def test_the_home_folder_of_nobody_is_one_line(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=[f"{key}=~nosuchuser/x"])
    says = f"{key}=~nosuchuser/x: ~nosuchuser has no home folder; write it in full"
    assert caught.value.mistakes == (says,)


def test_a_section_set_to_a_plain_value_sets_its_choice(write: Write) -> None:
    by_word = load(overrides=["loss=softmax_focal", "reweight=inverse", "data.imbalance=step"])
    by_file = load(
        [write("loss: softmax_focal\nreweight: inverse\ndata: {imbalance: {kind: step}}\n")]
    )
    assert by_word == by_file
    assert by_word.loss.name == "softmax_focal"


def test_a_new_loss_drops_the_keys_of_the_loss_in_the_file(write: Write) -> None:
    file = write("loss: {name: softmax_focal, gamma: 1}\noptim: {lr: 0.5}\n")
    config = load([file], ["loss=sigmoid_focal"])
    assert config.loss.gamma == 2.0
    assert config.optim.lr == 0.5


def test_the_same_loss_named_again_keeps_its_keys(write: Write) -> None:
    file = write("loss: {name: softmax_focal, gamma: 1}\n")
    assert load([file], ["loss=softmax_focal"]).loss.gamma == 1.0


def test_a_new_schedule_drops_the_steps_but_keeps_the_epochs(write: Write) -> None:
    file = write("schedule: {name: steps, steps: [0.5], epochs: 7}\n")
    config = load([file], ["schedule=cosine"])
    assert config.schedule.epochs == 7
    assert config.schedule.steps == Config.model_fields["schedule"].default.steps


def test_a_new_data_set_drops_the_old_ones_own_keys_but_keeps_the_shared_ones(write: Write) -> None:
    file = write("data: {name: digits, test_per_class: 10, imbalance: {factor: 20}}\n")
    config = load([file], ["data=synthetic"])
    assert config.data.name == "synthetic"
    assert config.data.imbalance.factor == 20


def test_a_data_set_states_its_own_defaults_for_shared_keys() -> None:
    assert load(overrides=["data=cifar10"]).data.imbalance.factor == 100
    assert load(overrides=["data=cifar10"]).data.augment.crop == 4
    assert load(overrides=["data=cifar10", "data.augment.crop=2"]).data.augment.crop == 2


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3", "+1e-3"])
def test_numbers_may_be_written_as_scientists_do(text: str) -> None:
    assert load(overrides=[f"optim.lr={text}"]).optim.lr == 1e-3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("10", 10), ("+10", 10), ("-0", 0), ("0x1F", 31), ("0o17", 15)),
        *(("1.", 1.0), ("-.5", -0.5), ("00.5", 0.5), ("1e3", 1000.0), ("-1.5E+2", -150.0)),
        *(("-.inf", -math.inf), ("true", True), ("NULL", None), ("~", None), ("", None)),
        *(
            (word, word)
            for word in ("010", "-007", "0b11", "1_000", "1:30", "1:30.5", "2024-01-02")
        ),
        *((word, word) for word in ("on", "No", "y", "e3", "1e", ".", "+0x1F", "0o8", "=")),
    ],
)
def test_plain_words_are_what_yaml_1_2_says_and_no_number_has_two_readings(
    text: str, value: object
) -> None:
    found = parse(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("seed=010", "seed=010: expected a whole number >= 0 and < 4294967296; write 10"),
        ("data.imbalance.factor=0100", "data.imbalance.factor=0100: expected a number >= 1; wri"),
        ("seed=1_000", "seed=1_000: expected a whole number >= 0 and < 4294967296; write 1000"),
        ("seed='5'", "seed=5: expected a whole number >= 0 and < 4294967296; write 5 without quo"),
        ("schedule.epochs=1:30", "schedule.epochs=1:30: expected a whole number >= 1 ("),
    ],
)
def test_a_number_that_another_reader_takes_for_another_one_is_refused(
    word: str, line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=[word])
    assert caught.value.mistakes[0].startswith(line)


def test_names_of_classes_keep_their_zeros() -> None:
    assert load(overrides=["data.classes=[010, '11', 012]"]).data.classes == ("010", "11", "012")


@pytest.mark.parametrize("name", ["010", "1e3", "0o10", "0x1F", "1_000", "true", "null", "on", "1"])
def test_text_that_looks_like_another_value_comes_back_from_a_dump(name: str, write: Write) -> None:
    config = load(values={"track.name": name})
    assert load([write(dump(config))]) == config


def test_a_number_like_word_is_text_where_text_is_expected() -> None:
    assert load(overrides=["track.name=2024"]).track.name == "2024"
    assert load(overrides=["data.one_vs_rest=3"]).data.one_vs_rest == "3"


def test_a_key_may_be_a_flag_or_a_path() -> None:
    assert load(overrides=["model.pretrained=true"]).model.pretrained is True
    assert load(overrides=["model.pretrained=weights.pt"]).model.pretrained == "weights.pt"


def test_null_takes_a_default_away() -> None:
    assert load(overrides=["data.validation.per_class=null"]).data.validation.per_class is None


# --- mistakes -------------------------------------------------------------------------------------


def test_keys_inside_a_list_say_what_the_list_takes() -> None:
    lines = mistakes_of("schedule=steps", "schedule.steps={early: 0.5, late: 0.8}")
    expected = "schedule.steps: has no keys of its own; expected a list, each a number > 0 and < 1"
    assert lines == (expected,)


def test_typo_in_a_key_names_the_nearest_key() -> None:
    (line,) = mistakes_of("optim.learning_rate=1", "seed=1")
    assert line.startswith("optim.learning_rate: unknown key")
    (line,) = mistakes_of("schedule.epoch=5")
    assert "did you mean schedule.epochs?" in line


def test_typo_in_a_yaml_key_names_the_nearest_key_and_the_file(write: Write) -> None:
    file = write("optim: {momentun: 0.9}\n")
    (line,) = mistakes_of(files=(file,))
    assert "optim.momentun: unknown key (did you mean optim.momentum?)" in line
    assert str(file) in line


def test_a_key_without_its_section_is_recognised_by_its_last_word() -> None:
    (line,) = mistakes_of("lr=0.1")
    assert "did you mean optim.lr?" in line


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("los=ldam", "(did you mean loss?)"),
        ("modle=resnet18", "(did you mean model?)"),
        ("dat=digits", "(did you mean data?)"),
        ("smapler.start=0.5", "(did you mean sampler.start?)"),
        ("augment.crop=4", "(did you mean data.augment.crop?)"),
        ("model.hed=cosine", "(did you mean model.head?)"),
        ("gamma=2", "(did you mean loss.gamma, a key of "),
        ("loss.gama=2", "(did you mean loss.gamma, a key of "),
        ("precision=bf16", "(did you mean runtime.precision?)"),
        ("imbalance=100", "write data.imbalance.factor=100"),
        ("data.imbalance=100", "write data.imbalance.factor=100"),
        ("oracle=true", "write evaluate.test_every_epoch=true"),
        ("data.val_split=0.1", "write data.validation.per_class=null data.validation.fraction=0.1"),
        ("loss=focal", "(did you mean sigmoid_focal or softmax_focal?)"),
        ("data=cifar", "(did you mean cifar10 or cifar100?)"),
        ("sampler=balanced", "(did you mean class_balanced?)"),
        ("loss=ce", "write loss=cross_entropy"),
        ("loss=drw", "write reweight=effective_number reweight.start=0.8"),
        ("loss=cb_focal", "write loss=softmax_focal reweight=effective_number"),
        ("loss=ldam_drw", "write experiments/methods/ldam_drw.yaml"),
    ],
)
def test_a_mistake_names_what_was_meant(word: str, meant: str) -> None:
    (line,) = mistakes_of(word)
    assert meant in line


@pytest.mark.parametrize(
    ("alias", "name"), [("bf16", "bfloat16"), ("FP16", "float16"), ("amp", "auto")]
)
def test_a_precision_may_be_called_as_other_tools_do(alias: str, name: str) -> None:
    found, plain = (load(overrides=[f"runtime.precision={word}"]) for word in (alias, name))
    assert found == plain
    assert fingerprint(found) == fingerprint(plain)
    assert load(values={"runtime.precision": alias}) == plain


def test_another_sampler_drops_the_keys_of_the_one_in_the_file(write: Write) -> None:
    file = write("sampler: {name: effective_number, beta: 0.9}\nmodel: {head: cosine}\n")
    config = load([file], ["sampler=progressive"])
    assert config.sampler.beta == 0.9999
    assert config.model.head == "cosine"


def test_a_key_of_another_component_names_its_owner() -> None:
    (line,) = mistakes_of("loss.max_margin=2")
    assert line == "loss.max_margin: loss=cross_entropy has no such key; ldam has it"
    (line,) = mistakes_of("loss.gamma=2")
    keys = {name: {key.name for key in read("losses", name).keys} for name in names("losses")}
    owners = [name for name, own in keys.items() if "gamma" in own]
    assert line.endswith(f"{', '.join(owners[:-1])} and {owners[-1]} have it")
    (line,) = mistakes_of("loss=balanced_softmax", "loss.gamma=2")
    assert line.startswith("loss.gamma: loss=balanced_softmax has no such key; ")
    (line,) = mistakes_of("data.download=true")
    assert "cifar10" in line


def test_unknown_component_lists_the_known_ones_and_the_nearest() -> None:
    (line,) = mistakes_of("loss=softmax_focl", "loss.gamma=1")
    assert "did you mean softmax_focal?" in line
    assert all(name in line for name in names("losses"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("seed=abc", "a whole number >= 0"),
        ("seed=1.5", "a whole number >= 0"),
        ("seed=true", "a whole number >= 0"),
        ("seed=-1", "a whole number >= 0"),
        ("optim.lr=fast", "a number > 0"),
        ("optim.lr=0", "a number > 0"),
        ("optim.lr=.inf", "a number > 0"),
        ("optim.lr=.nan", "a number > 0"),
        ("optim.lr=true", "a number > 0"),
        ("data.augment.flip=1", "true or false"),
        ("schedule.steps=0.5", "a list"),
        ("schedule.steps=[0.5, two]", "a list"),
        ("sampler.start=1", "< 1"),
        ("evaluate.metric=test/accuracy", "val/"),
        ("track.name=../elsewhere", "text"),
        ("runtime.device=gpu", "text"),
        ("loss=softmax_focal loss.alpha=0.25", "a list"),
    ],
)
def test_wrong_type_or_range_names_key_value_and_what_is_allowed(word: str, expected: str) -> None:
    (line,) = mistakes_of(*word.split(" ", 1)) if "loss" in word else mistakes_of(word)
    key = word.removeprefix("loss=softmax_focal ").partition("=")[0]
    assert line.startswith(f"{key}=")
    assert expected in line
    assert "\n" not in line


def test_a_metric_that_does_not_exist_names_the_nearest_and_all_there_are() -> None:
    (line,) = mistakes_of("evaluate.metric=val/balanced_acuracy")
    assert line.startswith(
        "evaluate.metric=val/balanced_acuracy: expected one of val/balanced_accuracy | val/accuracy"
    )
    assert "(did you mean val/balanced_accuracy?)" in line


def test_wrong_choice_names_the_nearest() -> None:
    (line,) = mistakes_of("schedule=cosin")
    assert "did you mean cosine?" in line
    assert "cosine | constant | steps" in line


def test_the_same_key_twice_with_different_values_is_a_mistake() -> None:
    assert mistakes_of("seed=1", "seed=2") == ("seed: set twice, to 1 and to 2",)
    assert mistakes_of("loss=softmax_focal", "loss.name=sigmoid_focal")
    assert load(overrides=["seed=1", "seed=1"]).seed == 1


def test_the_same_key_twice_in_a_file_is_a_mistake(write: Write) -> None:
    (line,) = mistakes_of(files=(write("seed: 1\nseed: 2\n"),))
    assert "line 2: key seed appears twice" in line


def test_a_file_in_the_home_folder_of_nobody_is_one_line() -> None:
    (line,) = mistakes_of(files=(Path("~nobody-of-this-name/x.yaml"),))
    assert line.startswith("~nobody-of-this-name/x.yaml: ~nobody-of-this-name has no home folder")


def test_a_missing_file_names_the_nearest_one(write: Write, tmp_path: Path) -> None:
    write("seed: 1\n")
    (line,) = mistakes_of(files=(tmp_path / "fil0.yaml",))
    assert "no such file (did you mean" in line
    assert "file0.yaml" in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: [1\n", "not valid YAML: line"),
        ("- 1\n- 2\n", "expected keys and values"),
        ("seed: !!python/object/apply:os.system ['echo']\n", "not valid YAML"),
        ("seed: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(
    write: Write, text: str, reason: str
) -> None:
    (line,) = mistakes_of(files=(write(text),))
    assert reason in line
    assert "\n" not in line


def test_an_unreadable_file_is_refused_in_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "weights.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    (line,) = mistakes_of(files=(binary,))
    assert "cannot be read: not a text file" in line
    (line,) = mistakes_of(files=(tmp_path,))
    assert "cannot be read" in line


def test_an_empty_file_is_the_defaults(write: Write) -> None:
    assert load([write("# nothing\n")]) == load()


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    file = write("optim: {lr: fast}\nnonsense: 1\n")
    found = mistakes_of("seed=-1", "loss=nothing", "data.imbalance.factor=0.5", files=(file,))
    for key in ("optim.lr", "nonsense", "seed", "loss.name", "data.imbalance.factor"):
        assert any(line.startswith(key) for line in found), key
    assert len(found) == 5


def test_a_word_that_is_neither_file_nor_assignment_is_refused() -> None:
    assert "expected key=value" in mistakes_of("digits")[0]


def test_a_section_cannot_be_a_value() -> None:
    (line,) = mistakes_of("mixup=0.2")
    assert "is a section; set one of mixup.mixup, mixup.cutmix" in line


# --- an option without effect is a mistake --------------------------------------------------------

WITHOUT_EFFECT = {
    "data.imbalance.factor=9": ["data.imbalance=none"],
    "data.imbalance.head=9": ["data.imbalance=none"],
    "data.imbalance.order=shuffled": ["data.imbalance=none"],
    "data.imbalance.rule=cao": ["data.imbalance=none"],
    "data.imbalance.counts=[3, 2]": [],
    "sampler.start=0.5": [],
    "sampler.beta=0.9": ["sampler=class_balanced"],
    "reweight.beta=0.9": ["reweight=inverse"],
    "reweight.power=0.5": ["reweight=inverse"],
    "reweight.start=0.5": [],
    "reweight.weights=[1, 2]": ["reweight=inverse"],
    "loss.smooth=2": ["loss=dice", "loss.ratio=0"],
    "loss.squared=true": ["loss=dice", "loss.ratio=0"],
    "loss.over=image": ["loss=tversky", "loss.ratio=0"],
    "loss.gamma=2": ["loss=dice", "loss.ratio=1"],
    "loss.gamma=1": ["loss=tversky"],
    "loss.eps=0.01": ["loss=seesaw", "loss.q=0"],
    "loss.shape=linear": ["loss=label_aware_smoothing", "loss.smooth_tail=0.4"],
    "loss.normalize=weights": [],
    "loss.probability=weighted": ["loss=softmax_focal"],
    "loss.smoothing_weight=class": ["reweight=inverse"],
    "loss.tail_share=0.3": ["loss=equalization", "loss.chance=0"],
    "loss.penalty=0.2": ["loss=lade", "loss.alpha=0"],
    "loss.alpha=0.1": ["loss=tversky", "loss.over=image"],
    "loss.soft_form=distance": ["loss=sigmoid_focal"],
    "schedule.steps=[0.5]": [],
    "schedule.decay=0.5": [],
    "schedule.unit=epoch": ["schedule=constant", "schedule.warmup=0"],
    "runtime.checkpoint_epoch_seconds=20": ["runtime.checkpoint_seconds=15"],
    "evaluate.metric=val/accuracy": ["data.validation.per_class=null"],
    "evaluate.metric=val/mcc": ["evaluate.rules=[last]"],
    "evaluate.rules=[last]": ["data.validation.per_class=null"],
    "track.group=mine": ["track.wandb=disabled"],
    "track.per_class=off": ["track.wandb=disabled"],
    "model.init_head=false": [],
    "model.tau=0.5": [],
    "loss.power=2": ["loss=class_conditional_smoothing", "loss.smoothing=0"],
}


@pytest.mark.parametrize(
    "words",
    [
        # It is cross-entropy, whatever it is called.
        ["loss=dice", "loss.ratio=0", "optim.accumulate=2"],
        ["loss=lade", "loss.alpha=0", "optim.accumulate=2"],
        ["loss=dice", "loss.ratio=0", "loss.gamma=1.5", "optim.accumulate=2"],
        ["loss=tversky", "loss.ratio=0", "loss.gamma=2", "optim.accumulate=2"],
        ["loss=logit_adjustment", "loss.tau=0", "evaluate.logit_adjustment=1"],
        ["loss=logit_adjustment", "loss.tau=0.5", "evaluate.logit_adjustment=0.5"],
        ["loss=balanced_binary_cross_entropy", "loss.tau=0.5", "evaluate.logit_adjustment=0.5"],
        ["loss=vector_scaling", "loss.tau=0", "evaluate.logit_adjustment=1"],
        ["loss=ldam", "loss.scale=1"],
        ["loss=ldam", "model.head=cosine"],
        ["loss=softmax_focal", "loss.label_smoothing=0.1", "loss.smoothing_weight=class",
         "loss.alpha=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_a_loss_is_at_its_keys_counts_and_not_its_name(words: list[str]) -> None:
    assert load(overrides=words) is not None


def test_weights_of_a_run_take_the_place_of_pretrained_ones() -> None:
    words = ["model.pretrained=true", "model.init_from=elsewhere"]
    with pytest.raises(ConfigError) as caught:
        load(overrides=words, check_named_runs=False)
    assert caught.value.mistakes == (
        "model.pretrained=true: has no effect with model.init_from, whose weights take the place "
        "of these; set one of them alone",
    )
    assert load(overrides=words[1:], check_named_runs=False) is not None


def test_a_class_has_either_many_or_few_images() -> None:
    words = ["evaluate.many_above=50", "evaluate.few_below"]
    assert mistakes_of(words[0], f"{words[1]}=52") == (
        "evaluate.few_below=52: must be 51 or less, as classes with more than 50 images are many "
        "(evaluate.many_above)",
    )
    assert load(overrides=[words[0], f"{words[1]}=51"]) is not None


def test_class_weights_may_be_named_in_any_order_and_spelling() -> None:
    word = "reweight.weights={cat: 1, the dog.2: 3.5}"
    nested = "reweight={scheme: explicit, weights: {the dog.2: 3.5, cat: 1}}"
    found = [load(overrides=words) for words in (["reweight=explicit", word], [nested])]
    assert found[0].reweight.weights == {"cat": 1, "the dog.2": 3.5}
    assert found[0] == found[1]
    assert fingerprint(found[0]) == fingerprint(found[1])
    assert load(overrides=[dump_word(found[0])]) == found[0]


def test_names_of_classes_are_text_however_they_look() -> None:
    found = load(overrides=["reweight=explicit", "reweight.weights={0: 1, 1e3: 2, null: 3, no: 4}"])
    assert found.reweight.weights == {"0": 1, "1e3": 2, "null": 3, "no": 4}
    assert load(overrides=[dump_word(found)]) == found


def dump_word(config: Config) -> str:
    """A section of a config as a word of the command line."""
    return f"reweight={json.dumps(config.reweight.model_dump(mode='json'))}"


def test_a_class_weight_below_zero_says_what_is_expected() -> None:
    (line,) = mistakes_of("reweight=explicit", "reweight.weights={cat: -1}")
    assert line.startswith(
        'reweight.weights={"cat": -1}: expected a list, each a number >= 0, or names, each with a '
        "number >= 0, or null"
    )


def test_a_cosine_head_is_for_every_loss_that_says_so_and_noted_for_others() -> None:
    noted = set()
    for name in names("losses"):
        facts = read("losses", name).class_facts
        words = [f"loss={name}", "model.head=cosine"]
        if not facts["needs_teacher"] and derived.leaves_cosines_unscaled(load(overrides=words)):
            noted.add(name)
    assert noted == set(names("losses")) - {"ldam", "gaussian_clouded", "distillation"}


@pytest.mark.parametrize("word", WITHOUT_EFFECT)
def test_an_option_without_effect_is_a_mistake_and_reset_it_is_none(word: str) -> None:
    context = WITHOUT_EFFECT[word]
    key = word.partition("=")[0]
    found = mistakes_of(word, *context)
    assert [line for line in found if line.startswith(key) and "has no effect" in line], found
    assert load(overrides=context) is not None


SHORT_WARM_UP = ("schedule.unit=epoch", "schedule.warmup=0.1", "schedule.epochs=5")


@pytest.mark.parametrize(
    "words",
    [
        ["schedule=constant", "schedule.unit=epoch", "schedule.epochs=19"],
        ["schedule=constant", *SHORT_WARM_UP],
        ["schedule=steps", "schedule.unit=epoch", "schedule.epochs=1"],
        ["schedule=cosine", *SHORT_WARM_UP],
        ["schedule=steps", "schedule.unit=epoch", "schedule.epochs=5", "schedule.steps=[0.8]"],
        ["schedule=steps", "schedule.epochs=5", "schedule.steps=[0.99]", "schedule.warmup=0.1"],
        ["mixup.mixup=0.2", "optim.batch_size=2"],
    ],
    ids=" ".join,
)
def test_a_schedule_that_begins_and_a_pair_to_mix_are_no_mistake(words: list[str]) -> None:
    assert load(overrides=words) is not None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["data.imbalance=counts"], "kind=counts needs it"),
        (["reweight=explicit"], "scheme=explicit needs it"),
        (
            ["loss=softmax_focal", "loss.gamma=0", "loss.probability=weighted", "reweight=inverse"],
            "loss.probability: has no effect with loss.gamma=0",
        ),
        (
            ["loss=sigmoid_focal", "loss.gamma=0", "loss.soft_form=distance", "mixup.mixup=0.2"],
            "loss.soft_form: has no effect with loss.gamma=0",
        ),
        (
            ["loss=label_aware_smoothing", "loss.smooth_head=0.1", "loss.shape=linear"],
            "loss.shape: has no effect with loss.smooth_head=loss.smooth_tail",
        ),
        (
            ["loss=softmax_focal", "loss.label_smoothing=0.1", "loss.smoothing_weight=class"],
            "loss.smoothing_weight: has no effect with reweight.scheme=none and loss.alpha=null",
        ),
        (
            ["loss=tversky", "loss.over=image", "loss.alpha=0.1"],
            "loss.alpha: has no effect with loss.over=image on labels; needs mixup.mixup or mixup",
        ),
        (["loss=tversky", "optim.accumulate=4"], "optim.accumulate=4: tversky compares a batch as"),
        (["loss=dice", "optim.accumulate=2"], "optim.accumulate=2: dice compares a batch as"),
        (["loss=lade", "optim.accumulate=2"], "optim.accumulate=2: lade compares a batch as"),
        (
            ["loss=ldam", "model.head=linear"],
            "model.head=linear: ldam multiplies logits by loss.scale=30, which is for cosines; "
            "set model.head=cosine, or loss.scale=1",
        ),
        (["loss=gaussian_clouded"], "gaussian_clouded multiplies logits by loss.scale=30"),
        (["data.validation.fraction=0.1"], "cannot go with data.validation.per_class=20"),
        (["data.one_vs_rest=3", "data.imbalance.order=shuffled"], "makes the named class the rare"),
        (["mixup.mixup=0.2", "loss=hard_only"], "takes hard targets only"),
        (["reweight=inverse", "loss=hard_only"], "takes no class weights"),
        (["sampler=class_balanced", "sampler.start=0.99"], "never begins"),
        (["reweight=inverse", "reweight.start=0.6", "schedule.epochs=2"], "never begins"),
        (["schedule=steps", "schedule.steps=[0.9, 0.8]"], "rising order"),
        (["mixup.mixup=0.2", "optim.batch_size=1"], "mixup.mixup=0.2: has no effect with optim.b"),
        (["mixup.cutmix=1", "optim.batch_size=1"], "mixup.cutmix=1: has no effect with optim.bat"),
        (["optim.batch_size=10", "optim.accumulate=3"], "must divide"),
        (["evaluate.rules=[val]"], "evaluate.rules: must name last"),
    ],
)
def test_keys_that_cannot_go_together_are_a_mistake(
    words: list[str], reason: str, hard_only_loss: None
) -> None:
    assert any(reason in line for line in mistakes_of(*words))


@pytest.fixture
def hard_only_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A component ``losses/hard_only.py`` in a copy of the two component packages."""
    for package in ("losses", "data", "engine/report/tracking"):
        shutil.copytree(
            components.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__py*")
        )
    (tmp_path / "losses" / "hard_only.py").write_text(
        "class HardOnly(Loss):\n"
        '    """A loss that takes neither soft targets nor weights."""\n'
        "    takes_soft_targets: ClassVar[bool] = False\n"
        "    takes_weight: ClassVar[bool] = False\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(components, "ROOT", tmp_path)
    caches = (components.read, components._base_facts, schema.tree)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


# --- dump, load and identity ----------------------------------------------------------------------

INTERESTING = [
    [],
    ["loss=softmax_focal", "loss.alpha=[1, 2, 3]", "seed=5"],
    ["data=image_folder", "data.path='a: b #c 😀'", "track.name=x"],
    ["schedule=steps", "schedule.steps=[0.25, 0.5]", "optim.clip_norm=1", "model.ema=0.99"],
]


@pytest.mark.parametrize("words", INTERESTING)
def test_a_dumped_config_loads_to_an_equal_object(words: list[str], write: Write) -> None:
    config = load(overrides=words)
    again = load([write(dump(config))])
    assert again == config
    assert fingerprint(again) == fingerprint(config)


@pytest.mark.parametrize("data", names("data"))
@pytest.mark.parametrize("loss", names("losses"))
def test_every_component_loads_with_its_defaults_and_round_trips(
    data: str, loss: str, write: Write, tmp_path: Path
) -> None:
    config = standard(data, loss)
    if read("losses", loss).class_facts["for_cosines"]:
        head = config.model.model_copy(update={"head": "cosine"})
        config = config.model_copy(update={"model": head})
    if read("losses", loss).class_facts["needs_teacher"]:
        (tmp_path / "config.yaml").write_text(dump(load()), encoding="utf-8")
        config = config.model_copy(update={"teacher": str(tmp_path)})
    assert load([write(dump(config))]) == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().optim.lr = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "word",
    [
        "track.root=elsewhere",
        "track.name=mine",
        "track.wandb=disabled",
        "track.report=true",
        "runtime.device=cpu",
        "runtime.threads=3",
        "runtime.workers=0",
        "runtime.compile=true",
        "runtime.checkpoint_seconds=1",
        "runtime.checkpoint_epoch_seconds=0",
    ],
)
def test_keys_that_change_no_number_leave_the_fingerprint_alone(word: str) -> None:
    assert fingerprint(load(overrides=[word])) == fingerprint(load())


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "loss=softmax_focal",
        "data=synthetic",
        "optim.lr=0.3",
        "runtime.precision=bfloat16",
        "data.imbalance.seed=1",
        "data.validation.per_class=10",
        "evaluate.test_every_epoch=true",
        "evaluate.store_features=true",
    ],
)
def test_keys_that_change_a_number_change_the_fingerprint(word: str) -> None:
    assert fingerprint(load(overrides=[word])) != fingerprint(load())


@pytest.mark.parametrize("method", ["cross_entropy", "ldam_drw", "deferred_sampling"])
def test_a_fingerprint_is_the_hash_of_every_key_that_differs_from_its_default(method: str) -> None:
    config = load([METHODS / f"{method}.yaml"], ["data=synthetic", "optim.lr=0.2", "seed=3"])
    usual = {**defaults(config), "data.name": DEFAULT_DATA, "loss.name": DEFAULT_LOSS}
    identity = {
        key: value
        for key, value in flatten(config).items()
        if value != usual[key] and not key.startswith(config_module.NOT_IDENTITY)
    }
    canonical = json.dumps({"config_version": CONFIG_VERSION, **identity}, sort_keys=True)
    digest = hashlib.sha256(canonical.replace(", ", ",").replace(": ", ":").encode())
    assert fingerprint(config) == digest.hexdigest()[:12]


def test_what_a_file_says_is_no_other_configs_to_change(write: Write) -> None:
    file = write("model: {kwargs: {sizes: [1, 2]}}\n")
    load([file]).model.kwargs["sizes"].append(3)
    assert load([file]).model.kwargs == {"sizes": [1, 2]}


def test_a_key_set_to_its_default_leaves_the_fingerprint_alone() -> None:
    lr = load().optim.lr
    assert fingerprint(load(overrides=[f"optim.lr={lr}"])) == fingerprint(load())


def test_a_key_added_later_leaves_old_fingerprints_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(load(overrides=["seed=1"]))
    flat, standard = flatten, defaults
    monkeypatch.setattr(config_module, "flatten", lambda c: {**flat(c), "optim.new": 1})
    monkeypatch.setattr(config_module, "defaults", lambda c: {**standard(c), "optim.new": 1})
    assert fingerprint(load(overrides=["seed=1"])) == before


def test_seeds_share_a_group_and_methods_do_not() -> None:
    groups = {
        fingerprint(load(overrides=[f"seed={s}", f"data.imbalance.seed={s}"]), without_seeds=True)
        for s in range(3)
    }
    assert len(groups) == 1
    other = load(overrides=["reweight=inverse"])
    assert fingerprint(other, without_seeds=True) not in groups


def test_init_from_counts_as_the_run_it_names_wherever_it_lies(tmp_path: Path) -> None:
    for name, words in (("a", []), ("b", []), ("c", ["seed=1"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(dump(load(overrides=words)), encoding="utf-8")
    a, b, c = (
        fingerprint(load(overrides=[f"model.init_from={tmp_path / name}"])) for name in "abc"
    )
    assert a == b != c
    assert a != fingerprint(load())


def recorded(root: Path, *words: str, summary: bool = True) -> Path:
    """The folder of a run as far as a config that names it looks there."""
    config = load(overrides=words)
    made = {"config_version": CONFIG_VERSION, "fingerprint": fingerprint(config)}
    made["group"] = fingerprint(config, without_seeds=True)
    folder = root / str(made["fingerprint"])
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(made), encoding="utf-8")
    if summary:
        (folder / "summary.json").touch()
    return folder


@pytest.mark.parametrize("key", ["model.init_from", "teacher"])
def test_a_finished_run_is_named_though_the_one_that_it_names_is_gone(
    tmp_path: Path, key: str
) -> None:
    loss = ["loss=distillation"] if key == "teacher" else []
    first = recorded(tmp_path, "seed=1")
    second = recorded(tmp_path, *loss, f"{key}={first}")
    words = [f"model.init_from={second}", "seed=2"]
    before = load(overrides=words)
    names = [fingerprint(before), fingerprint(before, without_seeds=True)]
    shutil.rmtree(first)
    now = load(overrides=words)
    assert [fingerprint(now), fingerprint(now, without_seeds=True)] == names
    third = recorded(tmp_path, *words)
    assert load(overrides=[f"model.init_from={third}"]) is not None
    (second / "config.yaml").write_text(dump(load(overrides=["seed=3"])), encoding="utf-8")
    (line,) = mistakes_of(*words)
    assert "was edited" in line


def test_an_unfinished_run_is_not_named_where_the_one_that_it_names_is_gone(tmp_path: Path) -> None:
    first = recorded(tmp_path)
    second = recorded(tmp_path, f"model.init_from={first}", summary=False)
    shutil.rmtree(first)
    (line,) = mistakes_of(f"model.init_from={second}")
    assert line.startswith(f"model.init_from={second}: not a run folder: model.init_from={first}: ")


def test_each_run_of_a_chain_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, words = recorded(tmp_path), [""]
    for seed in range(1, 9):
        # As in incremental learning, but for the spelling of one of the two.
        words = [f"model.init_from={run}", f"seed={seed}", "loss=distillation"]
        words.append(f"teacher={tmp_path}/../{tmp_path.name}/{run.name}")
        run = recorded(tmp_path, *words)
    read: list[Path] = []
    read_file = config_module.read_file

    def noted(path: Path, mistakes: list[str]) -> dict[str, Any]:
        read.append(path.resolve())
        return read_file(path, mistakes)

    monkeypatch.setattr(config_module, "read_file", noted)
    config = load(overrides=words)
    assert (len(read), len(set(read))) == (8, 8)
    fingerprint(config)
    fingerprint(config, without_seeds=True)
    config_module.load_run_config(run)
    assert len(read) == 8 + 8 + 8 + 9


def test_a_run_that_starts_from_itself_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"model: {{init_from: {tmp_path}}}\n", encoding="utf-8")
    (line,) = mistakes_of(f"model.init_from={tmp_path}")
    assert line.endswith(f"{tmp_path}: starts from itself; put its files back")


def test_init_from_a_folder_that_is_no_run_is_a_mistake(tmp_path: Path) -> None:
    (line,) = mistakes_of(f"model.init_from={tmp_path}")
    assert line.startswith(f"model.init_from={tmp_path}: not a run folder")


def defaults_of(component: str) -> dict[str, Any]:
    section, _, name = component.partition("=")
    return flatten(standard(**{"data": DEFAULT_DATA, "loss": DEFAULT_LOSS, section: name}))


def test_a_changed_default_demands_a_new_config_version() -> None:
    """Regenerate golden_defaults.json only together with a raise of CONFIG_VERSION."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["config_version"] == CONFIG_VERSION
    for component, values in golden["defaults"].items():
        now = defaults_of(component)
        changed = {k: (v, now.get(k)) for k, v in values.items() if now.get(k) != v}
        assert not changed, f"{component}: raise CONFIG_VERSION, then update {GOLDEN.name}"


def test_the_golden_file_knows_every_key_of_its_components() -> None:
    """A new component has no past runs to protect, and may be added to the file later."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["defaults"]
    for component, values in golden.items():
        missing = set(defaults_of(component)) - set(values)
        assert not missing, f"add {missing} of {component} to {GOLDEN.name}"


def test_a_dump_is_the_same_text_with_and_without_the_c_library() -> None:
    config = load(overrides=["track.group='007'", "track.wandb_notes='größe: \"x\" #'"])
    content = config.model_dump(mode="json")
    assert dump(config) == yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def test_yaml_values_of_a_dump_are_plain() -> None:
    assert yaml.safe_load(dump(load()))["schedule"]["steps"] == [0.8, 0.9]


def test_a_value_that_was_changed_after_reading_is_read_again_as_written() -> None:
    text = "{rates: [0.1]}"
    parse(text)["rates"].append(0.2)
    assert parse(text) == {"rates": [0.1]}
