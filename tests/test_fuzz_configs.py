"""Random configs end in mistakes or in runs that read back; ``tests.fuzz_configs`` runs more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine.config.components import names
from engine.config.schema import tree
from engine.config.validation import keys
from engine.training import trained
from engine.training.checkpointer import Checkpointer
from tests._examination import examine, make_folder
from tests._random_configs import ALWAYS, DATA_SETS, LEFT_ALONE, SMALL, Case, draw_case

SEED = 7
# A larger model, larger images and more epochs cost seconds, and find little more.
CHEAP = {"model.name": "cifar_resnet8", "schedule.epochs": 1, "data.size": 8}


def is_cheap(number: int) -> bool:
    values = draw_case(number, seed=SEED, folder="").values
    return all(values.get(key, value) == value for key, value in CHEAP.items())


CASES = [number for number in range(60) if is_cheap(number)]
OF_OTHER_DATA = {"data.test_per_class", "data.imbalance.head"}
SOUND = Case(
    {"data.name": "synthetic", "loss.name": "cross_entropy", **ALWAYS}
    | {key: value for key, value in SMALL.items() if key not in OF_OTHER_DATA}
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("fuzz") / "images")


@pytest.mark.parametrize("number", CASES)
def test_a_random_config_ends_in_mistakes_or_in_a_run_that_reads_back(
    number: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    found = examine(draw_case(number, seed=SEED, folder=str(images)), tmp_path / "runs")
    assert found.problems == []
    assert found.outcomes


def test_every_key_of_the_schema_is_drawn() -> None:
    trees = [tree(d, loss, ()) for d in DATA_SETS for loss in names("losses")]
    known = {key for model in trees for key in keys(model) if not key.startswith(LEFT_ALONE)}
    drawn: set[str] = set()
    for number in range(3000):
        drawn |= draw_case(number, seed=SEED, folder="").values.keys()
        if known <= drawn:
            break
    assert known - drawn == set()


def test_a_sound_config_finishes_and_one_without_sense_is_refused_until_it_has_some(
    tmp_path: Path,
) -> None:
    assert examine(SOUND, tmp_path / "sound").outcomes == ["finished"]
    wrong = Case({**SOUND.values, "seed": -1, "optim.momentun": 0.5})
    assert examine(wrong, tmp_path / "wrong").outcomes == ["refused", "finished"]


def test_a_crash_is_reported_with_the_place_where_our_code_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(Checkpointer, "after_epoch", broken)
    found = examine(SOUND, tmp_path)
    assert found.outcomes == ["crashed"]
    assert found.problems[0][0] == "KeyError in train.py:run: 'x'"


def test_a_model_that_is_loaded_with_other_weights_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trained.load_weights

    def doubled(*args: object, **kwargs: object) -> trained.Weights:
        weights = real(*args, **kwargs)
        state = {k: 2 * v if k.startswith("head.") else v for k, v in weights.state.items()}
        return dataclasses.replace(weights, state=state)

    monkeypatch.setattr(trained, "load_weights", doubled)
    causes = [cause for cause, _ in examine(SOUND, tmp_path).problems]
    assert causes == ["the loaded model predicts otherwise than stored"]
