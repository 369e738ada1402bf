"""What a large tail costs: 10 million images of 8,142 classes, and tables of 10,000 lines.

    python -m benchmarks.scale start draw metrics table study --rounds 5

  start    a list of 10 million lines read, the splits drawn, the loader made, its first batch
  draw     the positions of an epoch, by instance and by class-balanced sampling
  metrics  every metric and the per-class tables of 24,426 predictions (float32)
  table    10,000 result lines read, averaged, compared and printed; the list of those runs made
  study    a search of 5,000 trials read from its file, reported and drawn, nothing confirmed

The classes are as large as a power law makes them, from 1 image up. The images of ``start`` are
one grey pixel each and in memory, so that it measures what grows with their number; that all files
of a list are there is not looked at. Prints medians and quartiles of CPU seconds, and how much the
peak of memory rose above what the process held before; for ``start`` above the list's own arrays.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

import data
from benchmarks.command_line import Parser
from data._base import Labelled, Pool
from data._list_file import read_list
from data.samplers.class_balanced import ClassBalanced
from data.samplers.instance import Instance
from engine.config.launch import IMPORTING_THRESHOLDS
from engine.tables import __main__ as tables
from engine.tables.cells import cells
from engine.tables.table_file import PAPERS, read_table_file
from engine.tables.table_file import RESULTS as RESULTS_FOLDER
from engine.training.metrics import evaluate

if TYPE_CHECKING:
    import optuna

    from engine.tuning.search.schema import Range

NUM_CLASSES = 8142
RESULTS = RESULTS_FOLDER / "digits_lt.jsonl"


class Memory:
    """The largest resident memory inside the block, in GB, looked at 50 times a second."""

    def __enter__(self) -> Memory:
        """Begin to look."""
        self.start = self.peak = _resident()
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._is_over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.02):
            self.peak = max(self.peak, _resident())


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e9


def long_tail(num_images: int, *, num_classes: int = NUM_CLASSES) -> npt.NDArray[np.int64]:
    """Return the targets (N,) of a power law, shuffled; every class has an image."""
    shares = 1 / np.arange(1, num_classes + 1)
    counts = np.maximum(1, (num_images * shares / shares.sum()).astype(np.int64))
    counts[0] += num_images - counts.sum()
    return np.random.default_rng(0).permutation(np.repeat(np.arange(num_classes), counts))


class Listed:
    """A data set of one-pixel images with the labels of a list."""

    def __init__(self, targets: npt.NDArray[np.int64]) -> None:
        self.targets = torch.from_numpy(targets)

    def load(self) -> Pool:
        """Return the images; the first ten thousand are tested, too."""
        num, tested = len(self.targets), self.targets[:10_000]
        images = torch.zeros(num, 1, 1, 1, dtype=torch.uint8)
        # No list has its pixels compared, so each image is told to be another.
        contents = np.arange(num + len(tested))
        return Pool(
            train=Labelled(images, self.targets, contents=contents[:num]),
            test=Labelled(images[: len(tested)], tested, contents=contents[num:]),
            class_names=tuple(map(str, range(NUM_CLASSES))),
            title="drawn",
            mean=(0.5,),
            std=(0.5,),
        )


def start(num_images: int) -> Iterator[Callable[[], object]]:
    """Yield what is timed: a list read, and what then comes before the first batch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        with file.open("w", encoding="ascii") as lines:
            for chunk in np.array_split(long_tail(num_images), 100):
                lines.writelines(f"{label:04d}/{label * 7919:08x}.jpg {label}\n" for label in chunk)
        found: list[npt.NDArray[np.int64]] = []

        def read() -> None:
            listed = read_list(file, key="data.train", columns=None)
            found[:] = [listed.labels.astype(np.int64)]

        def begin() -> None:
            dataset = data.build(
                Listed(found[0]),
                imbalance=data.Imbalance(kind="none"),
                validation=data.Validation(per_class=None, fraction=0.1),
            )
            index = data.ClassIndex.from_targets(dataset.train.targets, num_classes=NUM_CLASSES)
            loader = data.Loader(
                dataset.train,
                batch_size=128,
                mean=dataset.mean,
                std=dataset.std,
                device=torch.device("cpu"),
                seed=0,
                augment=data.Augment(flip=True),
            )
            positions = Instance().draw(index, seed=0, epoch=0, progress=0.0)
            next(loader.epoch(positions, epoch=0))

        yield read
        yield begin


def draw(num_images: int) -> Iterator[Callable[[], object]]:
    """Yield the draws of an epoch."""
    targets = torch.from_numpy(long_tail(num_images))
    index = data.ClassIndex.from_targets(targets, num_classes=NUM_CLASSES)
    for sampler in (Instance(), ClassBalanced()):

        def epoch(sampler: data.Sampler = sampler) -> object:
            return sampler.draw(index, seed=0, epoch=0, progress=0.0)

        epoch.__name__ = type(sampler).__name__
        yield epoch


def metrics(num_images: int) -> Iterator[Callable[[], object]]:
    """Yield every metric of predictions, of a share of the images as large as iNaturalist's."""
    num_tested = num_images * 24_426 // 10_000_000
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_tested, NUM_CLASSES, generator=generator)
    targets = np.arange(num_tested) % NUM_CLASSES
    logits[torch.arange(num_tested), torch.from_numpy(targets)] += 4
    probabilities = logits.softmax(1).numpy()
    del logits
    counts = np.bincount(long_tail(num_images), minlength=NUM_CLASSES)

    def every_metric() -> object:
        return evaluate(probabilities, targets, counts, ranking=True)

    yield every_metric


def table(num_lines: int) -> Iterator[Callable[[], object]]:
    """Yield the printing of a table, and the list of its runs.

    The numbers are those of Digits-LT; every setting has a learning rate of its own, so that no two
    rows have the same config.
    """
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    known = {(line["method"], line["seed"]): line for line in map(json.loads, lines)}
    description = read_table_file(PAPERS / f"{RESULTS.stem}.yaml")
    settings = {
        f"rate {number}": ("data.imbalance.factor=50", f"optim.lr={0.05 + number / 1000:g}")
        for number in range(math.ceil(num_lines / len(known)))
    }
    large = description.model_copy(update={"name": "large", "settings": settings})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.jsonl"
        groups: dict[tuple[str, str], str] = {}
        with file.open("w", encoding="utf-8") as results:
            # Setting by setting, as who cuts a table short would have it.
            for cell in sorted(cells(large), key=lambda c: [*settings].index(c.setting))[
                :num_lines
            ]:
                made = {
                    "table": "large",
                    "setting": cell.setting,
                    "words": cell.words,
                    "fingerprint": cell.fingerprint,
                    "group": groups.setdefault((cell.method, cell.setting), cell.fingerprint),
                }
                results.write(json.dumps({**known[cell.method, cell.seed], **made}) + "\n")

        def printed() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                assert tables.main([str(file)]) == 0

        def planned() -> None:
            assert len(cells(large)) >= num_lines

        yield printed
        yield planned


def study(num_trials: int) -> Iterator[Callable[[], object]]:
    """Yield the report of a search over four keys, a fifth of whose trials were pruned."""
    import optuna

    from engine.tuning.confirm.study_report import report
    from engine.tuning.search import Search
    from engine.tuning.search.schema import Confirm, Range, SearchFile
    from engine.tuning.study.folder import StudyFolder

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {
        "loss.gamma": Range(kind="float", low=0, high=5),
        "reweight.power": Range(kind="float", low=0, high=1),
        "optim.lr": Range(kind="float", low=0.001, high=1, log=True),
        "optim.weight_decay": Range(kind="float", low=1e-5, high=1e-2, log=True),
    }
    file = SearchFile(metrics=("val/balanced_accuracy",), space=space, confirm=Confirm(top=0))
    words = ("loss=softmax_focal", "reweight.scheme=power")
    search = Search(file, path=Path("drawn.yaml"), files=(), overrides=words, study="drawn")
    with tempfile.TemporaryDirectory() as root:
        folder = StudyFolder(Path(root))
        address = {"study_name": search.study, "storage": f"sqlite:///{folder.database}"}
        optuna.create_study(**address, direction="maximize").add_trials(_ended(space, num_trials))

        def reported() -> None:
            report(search, optuna.load_study(**address), folder)

        yield reported


def _ended(space: Mapping[str, Range], num_trials: int) -> Iterator[optuna.trial.FrozenTrial]:
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    generator = np.random.default_rng(0)
    ranges = {key: FloatDistribution(r.low, r.high, log=r.log) for key, r in space.items()}
    for number in range(num_trials):
        shares = dict(zip(space, generator.random(len(space)), strict=True))
        yield create_trial(
            state=TrialState.PRUNED if number % 5 == 0 else TrialState.COMPLETE,
            value=0.8 - (shares["loss.gamma"] - 0.4) ** 2 + 0.02 * generator.standard_normal(),
            params={
                key: r.low * (r.high / r.low) ** shares[key]
                if r.log
                else r.low + (r.high - r.low) * shares[key]
                for key, r in ranges.items()
            },
            distributions=ranges,
        )


PARTS = {"start": start, "draw": draw, "metrics": metrics, "table": table, "study": study}


def main() -> None:
    """Print a line for each thing that is timed."""
    parser = Parser("benchmarks.scale", __doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=5_000)
    options = parser.parse_args()
    if options.rounds < 1 or options.images < 100_000 or options.lines < 270 or options.trials < 10:
        parser.error("at least 1 round, 100,000 images, 270 lines and 10 trials")
    torch.set_num_threads(1)
    gc.set_threshold(*IMPORTING_THRESHOLDS)  # as the commands have it
    for part in options.parts or PARTS:
        size = {"table": options.lines, "study": options.trials}.get(part, options.images)
        for timed in PARTS[part](size):
            seconds, above = [], []
            for _ in range(options.rounds):
                with Memory() as memory:
                    began = time.process_time()
                    timed()
                    seconds.append(time.process_time() - began)
                above.append(memory.peak - memory.start)
            low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
            print(
                f"{part:8}{timed.__name__:14} of {size:,}: {middle:.2f} CPU s ({low:.2f} to "
                f"{high:.2f}), n = {options.rounds}, peak + {max(above):.2f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
