"""Numbers of one short run on digits, which no change of the code may move.

Where the processor, its instructions and caches, torch and NumPy are those that wrote
``golden_run.json``, they are the same to the last digit.
Others add up in another order: there all that is drawn is still the same, and the first epoch's
loss and gradient norm are within ``FAR``, since eleven steps leave rounding little time to grow:
without oneDNN's kernels they were off by 0.0008 and 0.0033 of their values. A change that is meant
to move them writes the file anew: ``python -m tests.test_golden_run``.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from engine.config.load import load
from engine.report.terminal import Terminal
from engine.training.provenance import describe_segment
from engine.training.run_folder import RunFolder
from tests._runs import rows_of

GOLDEN = Path(__file__).with_name("golden_run.json")
WORDS = (
    *("model=cifar_resnet8", "schedule.epochs=2", "data.augment.crop=1", "optim.clip_norm=5"),
    *("runtime.threads=1", "runtime.device=cpu", "track.wandb=disabled", "track.figures=false"),
)
DRAWN = ("epoch", "step", "lr", "train/class_histogram", "train/images", "train/forward")
MACHINE = ("processor", "instructions", "caches", "torch", "numpy")  # what the last digit hangs on
FAR = 0.03  # of the value
NEAR_AT_FIRST = ("train/loss", "train/grad_norm")


def made(root: Path) -> dict[str, Any]:
    """Make the run; return its lines, its results on test, and where they were made."""
    config = load(overrides=[*WORDS, f"track.root={root}"])
    summary = train.run(config, screen=Terminal.silent())
    segment = describe_segment(command=(), device="cpu", precision="float32", threads=1, code="")
    results = {name: rule.test for name, rule in summary.rules.items()}
    facts = torch.cpu.get_capabilities()  # flags, and values such as the number of cores
    return {
        "processor": segment["processor"],
        "instructions": sorted(name for name, value in facts.items() if value is True),
        # How a product of matrices is cut into blocks, and so the order of additions.
        "caches": {name: value for name, value in facts.items() if name.endswith("_cache_size")},
        "torch": torch.__version__,
        "numpy": np.__version__,
        "rows": rows_of(RunFolder.of(config).path),
        "test": results,
    }


def assert_near(now: dict[str, Any], golden: dict[str, Any]) -> None:
    """Compare what does not hang on the order of additions."""
    for row, of_golden in zip(now["rows"], golden["rows"], strict=True):
        assert row.keys() == of_golden.keys()
        assert {key: row[key] for key in DRAWN} == {key: of_golden[key] for key in DRAWN}
    for key in NEAR_AT_FIRST:
        assert now["rows"][0][key] == pytest.approx(golden["rows"][0][key], rel=FAR)


def test_a_short_run_has_the_numbers_it_had_before(tmp_path: Path) -> None:
    golden, now = json.loads(GOLDEN.read_text()), made(tmp_path)
    assert_near(now, golden)
    if all(now[key] == golden[key] for key in MACHINE):
        assert now == golden


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(made(Path(folder)), indent=1) + "\n")
