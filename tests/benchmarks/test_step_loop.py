import itertools
import json
import statistics
from pathlib import Path

import pytest
import torch

from benchmarks import step_loop, timing
from benchmarks.steps import Bench, bare, whole, worker_loader
from engine.config.load import load
from engine.training import build
from engine.training.runtime import cpu_threads

SMALL = ["--model", "cifar_resnet20", "--batch-size", "8", "--rounds", "1", "--steps", "1"]


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Sixty images of 8 x 8 pixels, mirrored but not cropped."""
    config = load(
        overrides=[
            *("data=synthetic", "data.channels=3", "data.num_classes=4", "data.augment.flip=true"),
            *("data.num_train_per_class=15", "data.imbalance.kind=none", "optim.batch_size=5"),
            "data.validation.per_class=null",
        ]
    )
    return Bench(config, build.build_dataset(config), torch.device("cpu"))


# --- the command --------------------------------------------------------------------------------


def test_it_prints_every_way_by_both_clocks_and_what_it_ran_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert step_loop.main([*SMALL, "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [tuple(line.split()[:2]) for line in lines[1:9]]
    clocks = ("wall", "cpu")
    ways = itertools.product(clocks, ("bare", "whole", "usual"))
    assert named == [(way, clock) for clock, way in ways] + [("around", c) for c in clocks]
    assert lines[9] == "cifar_resnet20, batch 8; 1 rounds of 1 steps"
    assert json.loads(lines[10])["threads"] == 1


@pytest.mark.parametrize("word", ["0", "-1", "many"])
def test_a_number_of_rounds_that_cannot_be_is_refused(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        step_loop.main(["--rounds", word])
    assert stop.value.code == 2
    assert f"must be a whole number >= 1, not {word}" in capsys.readouterr().err


def test_a_model_that_nobody_knows_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert step_loop.main(["--model", "cifar_resnet33"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("model.name=cifar_resnet33")


def test_it_leaves_threads_and_global_generators_as_they_were() -> None:
    state = torch.get_rng_state()
    with cpu_threads(2):
        assert step_loop.main([*SMALL, "--threads", "1"]) == 0
        assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_loop_adds_is_the_difference_between_idle_steps() -> None:
    idle = {"bare": [timing.Cost(0.002, 0.001)] * 3, "whole": [timing.Cost(0.005, 0.003)] * 3}
    wall, cpu = step_loop.around(idle, bare_step=[timing.Cost(0.3, 0.1)])
    assert wall.split()[2] == "3.00" and "= 1.00% of the bare step" in wall
    assert cpu.split()[2] == "2.00" and "= 2.00% of the bare step" in cpu


# --- turns --------------------------------------------------------------------------------------


def test_ways_take_turns_in_changing_order_and_the_first_round_does_not_count() -> None:
    taken: list[str] = []

    def way(name: str) -> timing.Turn:
        def turn(steps: int) -> timing.Cost:
            taken.append(name)
            return timing.Cost(wall=len(taken), cpu=steps)

        return turn

    costs = timing.measure({name: way(name) for name in "abc"}, rounds=8, steps=2)
    counted = [sorted(taken[i : i + 3]) for i in range(3, len(taken), 3)]
    assert counted == [["a", "b", "c"]] * 8
    assert len({tuple(taken[i : i + 3]) for i in range(3, len(taken), 3)}) > 1
    assert min(cost.wall for found in costs.values() for cost in found) == 4
    assert {cost.cpu for found in costs.values() for cost in found} == {2}


def test_the_table_gives_medians_and_ratios_within_a_round() -> None:
    walls = {"bare": [0.1, 0.4, 0.2], "other": [0.15, 0.2, 0.4]}
    costs = {name: [timing.Cost(wall, 2 * wall) for wall in found] for name, found in walls.items()}
    lines = {tuple(line.split()[:2]): line.split() for line in timing.table(costs, base="bare")}
    ratio = statistics.median(o / b for o, b in zip(walls["other"], walls["bare"], strict=True))
    wall = lines["other", "wall"]
    assert float(wall[2]) == 1e3 * statistics.median(walls["other"])
    assert float(wall[6]) == pytest.approx(ratio)
    assert ratio != pytest.approx(statistics.median(walls["other"]) / 0.2)
    assert float(lines["bare", "cpu"][2]) == 2e3 * statistics.median(walls["bare"])


def test_a_cost_is_of_one_step() -> None:
    def run() -> None:
        sum(range(200_000))

    costs = [timing.cost(run, steps=n, device=torch.device("cpu")) for n in (1, 10**6)]
    assert costs[1].cpu < 1e-6 < costs[0].cpu


# --- ways ---------------------------------------------------------------------------------------


def test_workers_make_the_images_that_our_loader_makes(bench: Bench) -> None:
    plain = bench._replace(config=load(overrides=["data=digits", "data.augment.crop=0"])).loader()
    expected = torch.cat([b.images for b in plain.epoch(torch.arange(60), epoch=0)])
    found = torch.stack([worker_loader(bench).dataset[i][0] for i in range(60)])
    mirrored = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True)]
    expected[mirrored] = expected[mirrored].flip(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert 10 < sum(mirrored) < 50


def test_an_idle_model_has_the_parameters_of_the_real_one_and_each_gets_a_gradient(
    bench: Bench,
) -> None:
    real, idle = bench.trainer(), bench._replace(is_idle=True).trainer()
    output = idle.model(torch.zeros(5, 3, 8, 8))
    output.logits[:, 0].sum().backward()
    assert [p.shape for p in idle.parameters] == [p.shape for p in real.parameters]
    assert output.logits.shape == (5, 4)
    assert all(p.grad is not None and bool((p.grad == 5).all()) for p in idle.parameters)


@pytest.mark.parametrize("way", ["bare", "whole"])
def test_a_step_changes_every_weight(
    way: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = bench.trainer()
    before = [p.detach().clone() for p in trainer.parameters]
    monkeypatch.setattr(Bench, "trainer", lambda _: trainer)
    turn = bare(bench) if way == "bare" else whole(bench, tmp_path)
    assert turn(2).cpu > 0
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))
