"""Compiling leaves results, states and later batches alone, and never ends a run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from engine.config.mistakes import ConfigError
from engine.config.schema import OptimConfig
from engine.report.terminal import Terminal
from engine.training.checkpointer import Progress
from engine.training.compile_costs import Cost, compilation_key, expected, record, recorded
from engine.training.compiling import EVALUATION, TRAINING, Compiler, ForOneShape, Part
from engine.training.epoch_totals import EpochTotals
from engine.training.loaders import evaluation_batch
from engine.training.machine import machine
from engine.training.processes import Processes
from engine.training.setup import Setup, load_dataset, set_up
from engine.training.train_loop import StepOptions, Trainer
from losses.cross_entropy import CrossEntropy
from tests._runs import folder_of, rows_of, small_config, small_run
from tests.training.test_train_loop import Images
from train import run as train_run

CPU = torch.device("cpu")
SHAPE = (4, 1, 2, 2)


class Normed(nn.Module):
    """Images to logits and features, by way of batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.drop(self.norm(images)).flatten(1)
        return self.head(features), features


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trainer(**options: object) -> Trainer:
    torch.manual_seed(0)
    model = Normed()
    return Trainer(
        model,
        CrossEntropy(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        rate=lambda *_: 0.1,
        seed=0,
        device=CPU,
        num_outputs=5,
        options=StepOptions(**options),  # type: ignore[arg-type]
    )


def part(of: Trainer, *, calls: int = 1000, name: str = TRAINING) -> Part:
    return Part(
        name=name,
        model=of.model,
        shape=SHAPE,
        calls=calls,
        rehearse=partial(of.rehearse, shape=SHAPE),
        use=partial(setattr, of, "forward"),
        facts=of.precision,
    )


def compiler(asked: Any, *, backend: Any = "eager") -> Compiler:
    return Compiler(asked, device=CPU, processes=Processes(), backend=backend)


def batches(*sizes: int) -> list[Images]:
    generator = torch.Generator().manual_seed(1)
    return [
        Images(
            torch.randn(size, *SHAPE[1:], generator=generator),
            torch.arange(size) % 5,
            torch.arange(size),
        )
        for size in sizes
    ]


def train(given: Trainer, *sizes: int) -> list[Tensor]:
    given.train_epoch(batches(*sizes), epoch=0, steps=len(sizes), totals=EpochTotals())
    return [value.clone() for value in given.model.state_dict().values()]


@pytest.mark.parametrize(
    "options", [{}, {"sam": 0.05}, {"accumulate": 2}, {"precision": "bfloat16"}]
)
def test_a_compiled_model_trains_to_the_same_weights_and_nothing_is_compiled_later(
    options: dict[str, object],
) -> None:
    plain, compiled = trainer(**options), trainer(**options)
    sizes = (8, 8, 3) if "accumulate" in options else (4, 4, 3)
    lines = list(compiler(True).compile(part(compiled)))
    assert isinstance(compiled.forward, ForOneShape)
    assert lines[-1].startswith("compiling training: done in ")
    with torch._dynamo.config.patch(error_on_recompile=True):
        torch.testing.assert_close(train(compiled, *sizes), train(plain, *sizes))


def test_a_rehearsal_leaves_weights_statistics_gradients_and_generators_alone() -> None:
    given = trainer(sam=0.1)
    given.parameters[0].grad = torch.ones_like(given.parameters[0])
    before = [value.clone() for value in given.model.state_dict().values()]
    generator = torch.get_rng_state()
    given.rehearse(given.model, shape=SHAPE)
    assert all(map(torch.equal, given.model.state_dict().values(), before))
    assert torch.equal(torch.get_rng_state(), generator)
    assert given.parameters[0].grad is not None and given.parameters[0].grad.eq(1).all()
    assert given.parameters[1].grad is None


def test_a_second_model_of_the_same_build_is_not_compiled_again() -> None:
    list(compiler(True).compile(part(trainer())))
    second = trainer()
    with torch._dynamo.config.patch(error_on_recompile=True):
        list(compiler(True).compile(part(second)))
        assert isinstance(second.forward, ForOneShape)
        train(second, 4, 4, 3)


def replayed(graph: Any, inputs: Any, *, mode: str) -> Any:
    """A backend that writes each call's outputs and gradients over the last's, as a CUDA graph."""
    assert mode == "reduce-overhead"

    def one_way(module: Any, _: object) -> Any:
        memory: list[Any] = []

        def call(*given: Any) -> list[Any]:
            made = module(*given)
            if not memory:
                memory.extend(v.clone() if isinstance(v, Tensor) else v for v in made)
            for kept, new in zip(memory, made, strict=True):
                if isinstance(kept, Tensor):
                    kept.detach().copy_(new)
            # New tensors on the old memory: autograd makes a gradient of what nobody else has.
            return [v.detach() if isinstance(v, Tensor) else v for v in memory]

        return make_boxed_func(call)

    return aot_autograd(fw_compiler=one_way, bw_compiler=one_way)(graph, inputs)


@pytest.mark.parametrize("options", [{"sam": 0.05}, {"clip_norm": 0.1, "accumulate": 2}])
def test_a_step_that_is_replayed_trains_to_the_same_weights(options: dict[str, object]) -> None:
    plain, graphed = trainer(**options), trainer(**options, keeps_gradients=True)
    for each in (plain, graphed):
        each.model.drop = nn.Identity()
    list(compiler("cuda_graphs", backend=replayed).compile(part(graphed)))
    assert isinstance(graphed.forward, ForOneShape)
    sizes = (8, 8, 3) if "accumulate" in options else (4, 4, 3)
    torch.testing.assert_close(train(graphed, *sizes), train(plain, *sizes))


@pytest.mark.parametrize("options", [{}, {"keeps_gradients": True}])
def test_each_pass_of_a_rehearsal_begins_without_gradients(options: dict[str, object]) -> None:
    """As in a step: a CUDA graph refuses to add to gradients of the pass before."""
    given, begun = trainer(sam=0.05, **options), []

    def forward(images: Tensor) -> Any:
        begun.append([p.grad is None or not p.grad.any() for p in given.parameters])
        return given.model(images)

    given.rehearse(forward, shape=SHAPE)
    assert len(begun) == 2 and all(map(all, begun))


def test_a_graph_is_warmed_up_recorded_and_replayed_before_training() -> None:
    rehearsed: list[Any] = []
    own = replace(part(trainer(keeps_gradients=True)), rehearse=rehearsed.append)
    list(compiler("cuda_graphs", backend=replayed).compile(own))
    assert len(rehearsed) == 3


def test_what_was_replayed_outlives_the_next_call() -> None:
    model = Normed().eval()
    replaying = ForOneShape(model, SHAPE, is_replayed=True, backend=replayed)
    first = replaying(torch.zeros(SHAPE))[0]
    kept = first.clone()
    assert not replaying(torch.ones(SHAPE))[0].equal(kept)
    assert first.equal(kept)


def test_graphs_on_a_cpu_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cuda_graphs: for one process on a CUDA device, here 1 "):
        small_run(tmp_path, "runtime.compile=cuda_graphs", "runtime.device=cpu")
    assert not list(tmp_path.rglob("*.json"))


def broken(graph: object, inputs: object) -> None:
    """A backend that fails as a missing C++ compiler does, at length."""
    raise RuntimeError("No working C++ compiler found\n" + "in any of these places " * 20)


@pytest.mark.parametrize("asked", [True, "auto"])
def test_a_compiler_that_fails_is_one_line_and_the_model_goes_on(asked: Any) -> None:
    given = trainer()
    record(part(given).key, Cost(calls=1, share=0.5))
    made = compiler(asked, backend=broken)
    lines = list(made.compile(part(given)))
    assert made.compiled == ()
    assert lines[-1].startswith("runtime.compile: cannot compile training, which goes on as it is")
    assert "No working C++ compiler found" in lines[-1]
    assert "\n" not in lines[-1] and len(lines[-1]) < 300
    train(given, 4, 3)


@pytest.mark.slow
def test_inductor_without_a_cpp_compiler_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "no-such-compiler")
    made = compiler(True, backend="inductor")
    lines = list(made.compile(part(trainer())))
    assert made.compiled == ()
    assert lines[-1].startswith("runtime.compile: cannot compile training, which goes on as it is")
    assert capfd.readouterr().err == ""


def test_false_compiles_nothing_and_says_nothing() -> None:
    given = trainer()
    assert list(compiler(False).compile(part(given))) == []
    assert given.forward is given.model


def test_auto_leaves_a_short_run_as_it_is_and_says_why() -> None:
    given = trainer()
    made = compiler("auto")
    (line,) = made.compile(part(given, calls=150))
    assert line.startswith("runtime.compile=auto: training as it is: compiling takes as long as ")
    assert line.endswith(" of the 150 to come")
    assert made.compiled == ()


def test_auto_tries_nothing_where_few_batches_are_to_come() -> None:
    def rehearse(forward: object) -> None:
        pytest.fail("a batch was tried")

    (line,) = compiler("auto").compile(replace(part(trainer(), calls=99), rehearse=rehearse))
    assert line == (
        "runtime.compile=auto: training as it is: 99 batches are to come, and 100 are the fewest "
        "that pay for it"
    )


def test_auto_compiles_where_an_earlier_compilation_shows_that_it_pays() -> None:
    given = trainer()
    record(part(given).key, Cost(calls=100, share=0.5))
    lines = list(compiler("auto").compile(part(given, calls=1000)))
    assert lines[0] == "compiling training for batches of 4"
    known = recorded(part(given).key)
    assert known is not None and known != Cost(100, 0.5)


def test_evaluation_is_compiled_silently_or_not_at_all_unless_it_pays() -> None:
    given = trainer()
    assert list(compiler(True).compile(part(given, name=EVALUATION, calls=200))) == []


@pytest.mark.parametrize(("past", "is_compiled"), [((TRAINING,), True), ((), False)])
def test_a_resumed_run_of_auto_computes_as_it_began(
    past: tuple[str, ...],
    is_compiled: bool,  # noqa: FBT001
) -> None:
    given = trainer()
    record(part(given).key, Cost(calls=1, share=1.5 if is_compiled else 0.1))
    made = compiler("auto")
    list(made.compile(part(given), past=past))
    assert (made.compiled == (TRAINING,)) is is_compiled


@pytest.mark.parametrize("asked", [True, "auto", False])
def test_what_is_behind_stays_recorded_as_it_was_computed(asked: Any) -> None:
    made = compiler(asked)
    for name in (TRAINING, EVALUATION):
        assert list(made.compile(part(trainer(), name=name, calls=0), past=(TRAINING,))) == []
    assert made.compiled == (TRAINING,)


def test_a_process_that_compiles_waits_for_the_gradients_of_no_other() -> None:
    reduced: list[Tensor] = []

    def counted(bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
        reduced.append(bucket.buffer())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        given = trainer()
        model = nn.parallel.DistributedDataParallel(given.model, forward_sync_buffers=False)
        model.register_comm_hook(None, lambda _, bucket: counted(bucket))
        made = compiler(True)
        list(made.compile(replace(part(given), model=model)))
        assert made.compiled == (TRAINING,) and not reduced
        with torch._dynamo.config.patch(error_on_recompile=True):
            given.rehearse(given.forward, shape=SHAPE)
        assert reduced
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("calls", "share", "to_come", "pays"),
    [(100, 0.75, 801, True), (100, 0.75, 800, False), (1, 1.1, 9999, False)],
)
def test_compiling_pays_where_it_saves_twice_its_cost(
    calls: float,
    share: float,
    to_come: int,
    pays: bool,  # noqa: FBT001
) -> None:
    assert Cost(calls, share).pays(to_come) is pays


def test_what_was_never_compiled_is_expected_to_cost_by_its_modules_and_what_was_is_known() -> None:
    model = Normed()  # two modules with parameters
    assert expected(model, seconds=0.5).calls == pytest.approx(2 * 1.5 / 0.5)
    key = compilation_key(model, of="training")
    assert recorded(key) is None
    record(key, Cost(calls=100, share=0.7))
    assert recorded(key) == Cost(calls=25, share=0.7)  # the next process finds the cache
    record(key, Cost(calls=30, share=0.6))
    assert recorded(key) == Cost(calls=30, share=0.6)


def test_a_damaged_record_is_as_good_as_none() -> None:
    record("key", Cost(1, 1))
    file = next(Path(torch._inductor.runtime.cache_dir_utils.cache_dir()).rglob("key.json"))
    file.write_text("{")
    assert recorded("key") is None


def test_the_key_of_a_compilation_knows_what_is_trained_and_how_it_is_called() -> None:
    model, other = Normed(), Normed()
    other.head.requires_grad_(False)
    keys = {
        compilation_key(model, of="a"),
        compilation_key(model, of="b"),
        compilation_key(other, of="a"),
    }
    assert len(keys) == 3
    assert compilation_key(Normed(), of="a") in keys


@pytest.fixture
def _light_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that compile with a backend that takes no time and computes the same bits."""
    monkeypatch.setattr("engine.training.setup.Compiler", partial(Compiler, backend="eager"))


def segments(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "environment.json").read_text())["segments"]
    return found


@pytest.mark.usefixtures("_light_backend")
def test_a_run_that_is_compiled_and_stopped_goes_on_compiled_with_auto_to_the_same_bits(
    tmp_path: Path,
) -> None:
    small_run(tmp_path / "plain")
    stop = partial(small_run, tmp_path / "own", "runtime.compile=true", report=_stop)
    with pytest.raises(KeyboardInterrupt):
        stop()
    small_run(tmp_path / "own", "runtime.compile=auto")
    folder = folder_of(tmp_path / "own")
    assert [s["compiled"] for s in segments(folder)] == [TRAINING, TRAINING]
    assert rows_of(folder) == rows_of(folder_of(tmp_path / "plain"))


@pytest.mark.usefixtures("_light_backend")
def test_a_stretch_that_left_no_steps_does_not_say_whether_a_run_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = partial(small_run, tmp_path, report=_stop)
    with pytest.raises(KeyboardInterrupt):
        stop("runtime.compile=true")
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.checkpointer.Checkpointer._catch_up", lambda _self: None)
        with pytest.raises(KeyboardInterrupt):
            stop("runtime.compile=false")
    folder = folder_of(tmp_path)
    assert [s["compiled"] for s in segments(folder)] == [TRAINING, "nothing"]
    small_run(tmp_path, "runtime.compile=auto")
    assert [s["compiled"] for s in segments(folder)] == [TRAINING, TRAINING]


def _stop(epoch: int, row: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("_light_backend")
def test_a_short_run_of_auto_and_auto_is_recorded_as_what_they_became(tmp_path: Path) -> None:
    words = ("schedule.epochs=1", "runtime.compile=auto", "runtime.precision=auto")
    out = io.StringIO()
    screen = Terminal(Console(file=out, width=300))
    train_run(small_config(tmp_path, *words), screen=screen)
    (folder,) = (tmp_path / "synthetic").iterdir()
    named = yaml.safe_load((folder / "config.yaml").read_text())["runtime"]["precision"]
    assert folder == folder_of(tmp_path, *words[:2], f"runtime.precision={named}")
    assert f"runtime.precision=auto: {named} on this " in out.getvalue()
    assert "runtime.compile=auto: training as it is: 4 batches are to come" in out.getvalue()
    (segment,) = segments(folder)
    assert (segment["precision"], segment["compiled"]) == (named, "nothing")


class Listed:
    """Takes the place of a compiler and keeps what it is given."""

    compiled: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    def compile(self, part: Part, *, past: object) -> Iterator[str]:
        self.parts[part.name] = part
        yield from ()


def set_up_with(listed: Listed, root: Path, *words: str) -> tuple[Setup, list[str]]:
    """A small run before its first step, and what is said of its compilation."""
    config = small_config(root, "runtime.compile=auto", *words)
    with machine(config.runtime) as computer:
        setup = replace(set_up(config, load_dataset(config), computer), compiler=listed)  # type: ignore[arg-type]
        return setup, list(setup.compile(Progress()))


def test_evaluation_is_compiled_for_the_batches_that_it_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Listed()
    pixels = 2**16 // evaluation_batch(
        OptimConfig(batch_size=1), load_dataset(small_config(tmp_path))
    )
    monkeypatch.setattr("engine.training.loaders.EVALUATED_PIXELS", 20 * pixels)  # 20 images
    setup, _ = set_up_with(listed, tmp_path)
    shapes: list[tuple[int, ...]] = []

    def forward(images: Tensor) -> Any:
        shapes.append(tuple(images.shape))
        return setup.trainer.model(images)

    setup.evaluator.forward = forward
    for split in ("val", "val", "val", "test"):
        setup.evaluator.assess(split, after_batch=lambda: None)
    part = listed.parts[EVALUATION]
    assert part.shape[0] == 20
    assert shapes.count(part.shape) == part.calls == 5


def test_an_average_over_epochs_leaves_evaluation_as_it_is_and_says_so(tmp_path: Path) -> None:
    listed = Listed()
    _, lines = set_up_with(listed, tmp_path, "model.swa=0.5")
    assert listed.parts[EVALUATION].calls == 0
    (line,) = lines
    assert line.startswith("runtime.compile: evaluation as it is: model.swa ")


@pytest.mark.usefixtures("_light_backend")
def test_a_run_resumed_after_its_last_epoch_has_not_changed_how_it_was_compiled(
    tmp_path: Path,
) -> None:
    def stop(epoch: int, row: object) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    words = ("model=cifar_resnet8", "schedule.epochs=1", "runtime.compile=true")
    with pytest.raises(KeyboardInterrupt):
        small_run(tmp_path, *words, report=stop)
    small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    assert [s["from_epoch"] for s in segments(folder)] == [0, 1]
    assert [s["compiled"] for s in segments(folder)] == [TRAINING, TRAINING]
    assert "changed during the run" not in (folder / "summary.json").read_text()
