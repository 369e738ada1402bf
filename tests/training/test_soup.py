"""Runs that start from the mean of several runs: what is averaged, refused and recorded."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError
from engine.training.build import build_model
from engine.training.loaders import Loaders
from engine.training.machine import machine
from engine.training.setup import load_dataset
from engine.training.start_weights import start_weights
from tests._runs import folder_of, small_config, small_run, weights_of

WORDS = (
    "model=cifar_resnet8",
    "schedule.epochs=1",
    "data.num_train_per_class=24",
    "data.validation.per_class=4",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one model, and one with another head."""
    root = tmp_path_factory.mktemp("runs")
    found = []
    for words in (("seed=0",), ("seed=1",), ("model.head=cosine",)):
        small_run(root, *WORDS, *words)
        found.append(folder_of(root, *WORDS, *words))
    return found


def from_runs(*folders: Path) -> str:
    return f"model.init_from=[{', '.join(map(str, folders))}]"


def test_a_run_starts_from_the_mean_of_the_weights(runs: list[Path], tmp_path: Path) -> None:
    config = small_config(tmp_path, *WORDS, from_runs(*runs[:2]))
    found = start_weights(config, load_dataset(config))
    assert found is not None
    first, second = (weights_of(run) for run in runs[:2])
    for name in ("head.weight", "head.bias", "backbone.conv1.weight"):
        torch.testing.assert_close(found.state[name], (first[name] + second[name]) / 2)
    assert found.sentence.startswith("starts from the mean of 2 runs: the weights of run ")
    assert all(run.name in found.sentence for run in runs[:2])


def test_it_is_told_by_all_its_runs_and_their_weights(runs: list[Path], tmp_path: Path) -> None:
    words = (*WORDS, from_runs(*runs[:2]), "optim.lr=1e-9")
    small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    facts = json.loads((folder / "environment.json").read_text())["facts"]
    assert len(facts["start_weights"].split("+")) == 2
    assert fingerprint(load([folder / "config.yaml"])) == folder.name
    others = [[from_runs(*runs)], [f"model.init_from={runs[0]}"], []]
    names = {fingerprint(small_config(tmp_path, *WORDS, "optim.lr=1e-9", *w)) for w in others}
    assert len(names | {folder.name}) == 4
    small_run(tmp_path, *words)  # finished: its runs are compared and not averaged again
    assert len(json.loads((folder / "environment.json").read_text())["segments"]) == 1


def test_the_order_in_which_runs_are_named_is_no_part_of_their_mean(
    runs: list[Path], tmp_path: Path
) -> None:
    both = [small_config(tmp_path, *WORDS, from_runs(*order)) for order in (runs[:2], runs[1::-1])]
    assert fingerprint(both[0]) == fingerprint(both[1])
    first, second = (start_weights(config, load_dataset(config)) for config in both)
    assert first is not None and second is not None
    assert first.identity == second.identity
    assert all(torch.equal(value, second.state[key]) for key, value in first.state.items())


def test_one_run_under_two_spellings_is_refused(runs: list[Path], tmp_path: Path) -> None:
    again = runs[0].parent / "." / ".." / runs[0].parent.name / runs[0].name
    with pytest.raises(ConfigError, match=f"names {runs[0]} twice"):
        small_config(tmp_path, *WORDS, from_runs(runs[0], again))


def test_a_frozen_mean_has_statistics_of_its_own(runs: list[Path], tmp_path: Path) -> None:
    words = (*WORDS, from_runs(*runs[:2]), "model.freeze=true")
    small_run(tmp_path, *words)
    name = "backbone.bn1.running_var"
    kept = weights_of(folder_of(tmp_path, *words))[name]
    first, second = (weights_of(run)[name] for run in runs[:2])
    assert not torch.equal(kept, torch.ones_like(kept))  # as they are when they are reset
    assert not torch.allclose(kept, (first + second) / 2)


@pytest.mark.parametrize("batch_size", [1, 2048])
def test_no_image_is_alone_in_a_batch_that_renews_statistics(
    tmp_path: Path, batch_size: int
) -> None:
    config = small_config(tmp_path, *WORDS, f"optim.batch_size={batch_size}")
    dataset = load_dataset(config)
    with machine(config.runtime) as computer:
        model = build_model(config, dataset)
        loader = Loaders(config, dataset, machine=computer, model=model).renewing()
        with contextlib.closing(loader):
            assert min(loader.batch_sizes(loader.batch_size + 1)) > 1


def test_runs_of_other_shapes_are_refused_in_one_line(runs: list[Path], tmp_path: Path) -> None:
    config = small_config(tmp_path, *WORDS, from_runs(runs[0], runs[2]))
    with pytest.raises(ConfigError) as caught:
        start_weights(config, load_dataset(config))
    (line,) = caught.value.mistakes
    assert line == (
        f"model.init_from={runs[2]}: head.bias is not as in {runs[0]}, with which it is to be "
        "averaged; name runs of one model"
    )


def test_without_their_heads_they_can_be_averaged(runs: list[Path], tmp_path: Path) -> None:
    words = (from_runs(runs[0], runs[2]), "model.init_head=false")
    config = small_config(tmp_path, *WORDS, *words)
    found = start_weights(config, load_dataset(config))
    assert found is not None and not any(key.startswith("head.") for key in found.state)


def test_an_unfinished_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_bytes((runs[1] / "config.yaml").read_bytes())
    config = small_config(tmp_path, *WORDS, from_runs(runs[0], unfinished))
    with pytest.raises(ConfigError, match="is not finished; run its own command to finish it"):
        start_weights(config, load_dataset(config))


@pytest.mark.parametrize(
    ("number", "said"), [(1, "a list is averaged; name two"), (2, "twice"), (0, "name two")]
)
def test_a_list_of_fewer_than_two_runs_is_refused(
    runs: list[Path], tmp_path: Path, number: int, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        small_config(tmp_path, *WORDS, from_runs(*[runs[0]] * number))
    assert said in str(caught.value)
