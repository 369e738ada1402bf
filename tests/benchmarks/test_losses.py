import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import loss_costs, loss_ways, losses
from losses import _fused
from tests._source_tree import ROOT

CPU = torch.device("cpu")

# --- the command --------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_prints_a_table_and_writes_the_same_as_json_and_markdown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "costs.json"), "--markdown", str(tmp_path / "costs.md")]
    words = [
        "--cases",
        "128x10",
        "--threads",
        "1",
        "--allocator",
        "tuned",
        "--rounds",
        "2",
        "--wait",
        "passive",
    ]
    assert losses.main([*words, *files]) == 0
    printed = capsys.readouterr().out.splitlines()
    setting = "1 thread (CPU time), tuned allocator, passive waiting, 2 rounds"
    assert printed[0] == f"softmax (128, 10), {setting}"
    assert printed[2].split()[0] == "F.cross_entropy"
    written = json.loads((tmp_path / "costs.json").read_text())
    (table,) = written["tables"]
    ways = [way["way"] for way in table["ways"]]
    assert [line[:31].strip() for line in printed[2 : 2 + len(ways)]] == ways
    assert len(ways) > 10
    assert all(len(way["cpu"]["floor"]) == len(way["cpu"]["way"]) == 2 for way in table["ways"])
    assert table["ways"][0]["memory"] == pytest.approx(3, abs=0.1)
    assert json.loads(printed[-1]) == written["ran"]
    text = (tmp_path / "costs.md").read_text()
    assert "| F.cross_entropy |" in text
    assert written["ran"]["packages"]["torch"] in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "must be a whole number >= 1, not 0"),
        (["--cases", "128x11"], "invalid choice: '128x11' (choose from '128x10'"),
        (["--json", "no/such/folder/costs.json"], "is not a file that can be written"),
    ],
)
def test_what_cannot_be_measured_or_written_is_refused_first(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        losses.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.replace(" 128x10,", " '128x10',")


def test_a_measuring_process_that_fails_says_why() -> None:
    spec = {"threads": 1, "rounds": 1, "device": "cpu", "cases": []}
    with pytest.raises(RuntimeError, match="Fatal Python error"):
        list(losses._in_another_process(spec, environment={"PYTHONHOME": "nowhere"}))


def test_help_answers_before_torch_is_imported() -> None:
    program = "import sys; from benchmarks import losses\n" + (
        "try: losses.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert "--allocator tuned" in done.stdout


def test_ratios_are_taken_within_a_round() -> None:
    way = {
        "way": "other",
        "is_by_kernel": False,
        "cpu": {"floor": [0.1, 0.4, 0.2], "way": [0.15, 0.2, 0.4]},
        "wall": {"floor": [1.0, 1.0, 1.0], "way": [2.0, 2.0, 2.0]},
        "memory": 1.0,
    }
    table = losses.Table("128x10", 1, "default", "default", 3, [way])
    _, other = losses.rows(table)
    assert other == ["other", "200", "175 to 300", "1.50", "1.00 to 1.75", "1.00"]
    for another in (table._replace(threads=2), table._replace(device="cuda")):
        _, other = losses.rows(another)
        assert other[3] == "2.00"


# --- what it measures ---------------------------------------------------------------------------


def test_memory_is_the_most_that_was_held_at_once() -> None:
    x = torch.randn(512, 200, requires_grad=True)
    targets = torch.zeros(512, dtype=torch.int64)

    def times(count: int) -> None:
        for _ in range(count):
            torch.empty_like(x)  # freed before the next is made

    def cost(loss: torch.Tensor) -> None:
        x.grad = None
        loss.backward()

    assert loss_costs.peak_bytes(lambda: times(3)) == x.nbytes
    # The result of exp, kept for the gradient, and the gradient.
    held = loss_costs.peak_bytes(lambda: cost(x.exp().sum())) / x.nbytes
    assert held == pytest.approx(2, abs=0.01)
    x.grad = None
    # log_softmax, its gradient and that of the logits.
    held = loss_costs.peak_bytes(lambda: cost(F.cross_entropy(x, targets))) / x.nbytes
    assert held == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("shape", [(8, 5), (2, 5, 3, 3)])
def test_ways_of_the_same_loss_agree(shape: tuple[int, ...]) -> None:
    batch = loss_ways.drawn(shape, CPU)
    softmax, sigmoid = (
        {n: f(batch.logits).item() for n, f in loss_ways.ways(case, batch).items()}
        for case in (losses.Case("softmax", shape), losses.Case("sigmoid", shape))
    )
    assert softmax["cross_entropy"] == pytest.approx(softmax["F.cross_entropy"])
    focal = [value for name, value in softmax.items() if "focal" in name]
    assert focal == pytest.approx([focal[0]] * 4, rel=1e-5)
    for name, usual in {
        "balanced_softmax": "balanced softmax",
        "ldam": "LDAM",
        "influence_balanced": "influence-balanced",
    }.items():
        if len(shape) == 2:
            assert softmax[name] == pytest.approx(softmax[f"usual: {usual}"], rel=1e-5)
    assert sigmoid["binary_cross_entropy"] == pytest.approx(sigmoid["F.binary_cross_entropy"])
    names = ["sigmoid_focal, labels", "sigmoid_focal, composed", "usual: focal, log sigmoid"]
    assert [sigmoid[n] for n in names] == pytest.approx([sigmoid["sigmoid_focal"]] * 3, rel=1e-5)
    assert sigmoid["torchvision: sigmoid_focal"] == pytest.approx(
        sigmoid["sigmoid_focal, alpha"], rel=1e-5
    )


def test_a_composed_way_leaves_the_fused_path_as_it_was() -> None:
    before = dict(_fused.MIN_LOGITS)
    batch = loss_ways.drawn((600, 600), CPU)
    ways = loss_ways.ways(losses.Case("softmax", (600, 600)), batch)
    names = ("softmax_focal, composed", "softmax_focal")
    fused = [ways[name](batch.logits).grad_fn.name() for name in names]
    assert fused == ["MeanBackward0", "GradientInForwardBackward"]
    assert before == _fused.MIN_LOGITS


def test_a_pass_makes_a_gradient_of_its_own() -> None:
    batch = loss_ways.drawn((8, 5), CPU)
    run = loss_ways.step(batch, loss_ways.ways(losses.Case("softmax", (8, 5)), batch)["ldam"])
    run()
    first = batch.logits.grad.clone()
    assert loss_ways.turn(run, CPU)(2).wall > 0
    assert torch.equal(batch.logits.grad, first)


def test_every_way_of_every_case_is_a_task_and_the_floor_comes_first() -> None:
    cases = ["128x10", "8x21x256x256", "sigmoid:128x1000"]
    spec = {"threads": 2, "rounds": 7, "device": "cpu", "cases": cases}
    tasks = list(loss_costs.tasks(spec))
    first = {task.case: task.way for task in reversed(tasks)}
    assert first == {
        "128x10": "F.cross_entropy",
        "8x21x256x256": "F.cross_entropy",
        "sigmoid:128x1000": "F.binary_cross_entropy",
    }
    assert ("8x21x256x256", "influence_balanced", 2, 7) not in tasks
    assert ("128x10", "influence_balanced", 2, 7, "cpu") in tasks
