"""The run folder of one run: what was there, what it writes, in which order, and by whom."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import data
from engine.config import derived
from engine.config.load import dump, fingerprint, is_gone, named_runs
from engine.config.schema import Config
from engine.training import checkpoint, provenance
from engine.training.build import group_limits
from engine.training.checkpoint import Begun
from engine.training.checkpointer import Progress
from engine.training.code_hash import code_files, hash_of
from engine.training.evaluation import Evaluator
from engine.training.features import store_features
from engine.training.files import read_json, write_json, write_text
from engine.training.head_start import head_init
from engine.training.machine import Machine
from engine.training.named_runs import named_weights
from engine.training.patience import ends_training
from engine.training.run_folder import RunFolder
from engine.training.runtime import device_name
from engine.training.selection import Selection
from engine.training.setup import COMPUTED, Setup
from engine.training.summarise import RuleAssessment, summarise
from engine.training.summary import Summary
from engine.training.weights_hash import Hashes

Report = Callable[[int, Mapping[str, Any]], None]


class Journal:
    """Keeps a run's folder; the main process alone reads and writes, and tells the others.

    Args:
        config: of the run.
        dataset: of the run.
        machine: what it is trained on.
        say: called with a line for the user.
        report: see :func:`train.run`.

    Attributes:
        folder: the run folder.
        identity: ``fingerprint``, ``group`` and ``split_fingerprint`` of the run, and the
            ``former_fingerprints`` of the split if there are any.
        code: the hash of the code as it is now.
        environment: the content of environment.json, once :meth:`begin` has written it.
    """

    def __init__(
        self,
        config: Config,
        dataset: data.LongTailed,
        *,
        machine: Machine,
        say: Callable[[str], None],
        report: Report | None = None,
    ) -> None:
        self.config, self.dataset = config, dataset
        self.machine, self.say = machine, say
        self.processes = machine.processes
        self.identity: dict[str, Any] = {
            "fingerprint": fingerprint(config),
            "group": fingerprint(config, without_seeds=True),
            "split_fingerprint": dataset.split_fingerprint,
        }
        if formers := set(dataset.former_fingerprints) - {dataset.split_fingerprint}:
            self.identity["former_fingerprints"] = sorted(formers)
        self.folder = RunFolder.of(config, fingerprint=self.identity["fingerprint"])
        if any(map(is_gone, named_runs(config.model.init_from))):  # and with them their seeds
            self.identity["group"] = self._recorded("group") or self.identity["group"]
        self._code_files = code_files(config)
        self.code = hash_of(self._code_files)
        self.environment: Mapping[str, Any] = {}
        self._parameters: Mapping[str, Any] = {}
        self._report = report

    def finished(self, *, test: bool) -> Summary | None:
        """Return the summary of a run that is finished, or None.

        Args:
            test: whether it must have looked at test.

        Raises:
            ConfigError: it was made on another split or with other weights of a run that it names,
                or one of its files is damaged.
        """

        def past() -> Summary | None:
            provenance.check_split(
                self.folder,
                self.identity["split_fingerprint"],
                is_same=self.dataset.has_fingerprint,
            )
            summary = provenance.finished_summary(self.folder, test=test)
            if summary is not None:
                self._check_weights(named_weights(self.config))
            return summary

        return self.processes.on_main(past)

    @contextlib.contextmanager
    def owned(self, setup: Setup, *, fresh: bool) -> Iterator[None]:
        """Hold the folder inside the block.

        Args:
            setup: what is to train the run.
            fresh: rename a folder that is there, and begin a new one.

        Raises:
            BusyError: another process is writing this run.
            ConfigError: it began with other weights than it would today.
            WriteError: the folder cannot be written any more.
        """
        with contextlib.ExitStack() as stack:

            def own() -> None:
                if fresh and (aside := self.folder.set_aside()) is not None:
                    self.say(f"--fresh: the earlier run is kept in {aside}")
                stack.enter_context(self.folder.owned())
                today = {key: setup.facts[key] for key in provenance.NAMED if key in setup.facts}
                self._check_weights(Hashes(today, setup.former), held=setup.held)

            self.processes.on_main(own)
            yield

    def begin(
        self,
        progress: Progress,
        setup: Setup,
        *,
        command: Sequence[str],
    ) -> None:
        """Record that a stretch of the run begins, with all that made it.

        Args:
            progress: where the newest checkpoint left off.
            setup: what trains it; its model is compiled where that is asked for or pays.
            command: what was typed.

        Raises:
            ConfigError: the folder does not agree with its checkpoint.
        """
        for line in setup.compile(progress, past=self._compiled_before(progress)):
            self.say(line)
        facts, parameters = setup.facts, setup.parameters
        self._parameters = parameters
        segment = provenance.describe_segment(
            command=command,
            device=device_name(self.machine.device),
            precision=self.machine.precision,
            threads=self.machine.threads,
            compiled=" and ".join(setup.compiler.compiled) or "nothing",
            features=setup.features,
            code=self.code,
            files=self._code_files,
            processes=self.processes.world,
        )

        def write() -> dict[str, Any]:
            self.folder.cut_rows(progress.epoch)
            environment = provenance.add_segment(
                self.folder,
                segment,
                position=provenance.Position(progress.epoch, progress.totals.steps),
                facts=facts,
                identity=self.identity,
                say=self.say,
            )
            write_json(self.folder.parameters, parameters)
            write_text(self.folder.config, dump(self.config))
            return environment

        self.environment = self.processes.on_main(write)
        if progress.has_begun:
            is_over = ends_training(self.config, self.rows())
            self.say(f"resuming at {progress.place(steps=setup.steps, is_over=is_over)}")

    def as_begun(self, *, fresh: bool) -> Config:
        """Return the config with features cached or not as in the last stretch of the run.

        Either way is the same run but for the last bits. What the user asks for goes first.

        Args:
            fresh: whether the run is to begin anew.
        """
        config = self.config
        if fresh or config.runtime.cache_features is not None:
            return config
        if not self.processes.on_main(self._computed_features):
            return config
        self.say("features are computed in every epoch, as they were when the run was interrupted")
        runtime = config.runtime.model_copy(update={"cache_features": False})
        return config.model_copy(update={"runtime": runtime})

    def begun(self, *, fresh: bool) -> Begun | None:
        """Return the weights that the run goes on with, where it began with more than random ones.

        Args:
            fresh: whether the run is to begin anew.
        """
        starts = derived.begins_trained(self.config) or head_init(self.config) != "uniform"
        if fresh or not starts:
            return None
        return self.processes.on_main(lambda: checkpoint.begun(self.folder.checkpoints))

    def _recorded(self, key: str) -> str | None:
        """Return what environment.json has under a key."""

        def past() -> str | None:
            found: str | None = (read_json(self.folder.environment) or {}).get(key)
            return found

        return self.processes.on_main(past)

    def _compiled_before(self, progress: Progress) -> tuple[str, ...] | None:
        """Return which parts were compiled when the last steps were made; None if unknown."""
        position = provenance.Position(progress.epoch, progress.totals.steps)
        last = self.processes.on_main(lambda: self._last_before(position))
        return tuple(last["compiled"].split(" and ")) if "compiled" in last else None

    def _computed_features(self) -> bool:
        """Return whether features were computed when the steps before the checkpoint were made."""
        if all(segment.get("features") != COMPUTED for segment in self._segments()):
            return False  # as in most runs, whose checkpoint need not be read for this
        state = checkpoint.load_latest(self.folder.checkpoints).state
        if state is None:
            return False
        position = provenance.Position(state["epoch"], state["totals"]["steps"])
        return self._last_before(position).get("features") == COMPUTED

    def _last_before(self, position: provenance.Position) -> Mapping[str, Any]:
        """Return the stretch that made the steps before a position; empty at the beginning."""
        found = provenance.lasting(self._segments(), position)
        return found[-1] if found else {}

    def _segments(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]]
        found = (read_json(self.folder.environment) or {}).get("segments", [])
        return found

    def _check_weights(self, weights: Hashes, *, held: Collection[str] = ()) -> None:
        for line in provenance.check_weights(self.folder, weights, held=held):
            self.say(line)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Add the line of an epoch to metrics.jsonl; the checkpoint of the epoch comes after."""
        if self.processes.is_main:
            self.folder.append_row(row)

    def report(self, row: Mapping[str, Any]) -> None:
        """Tell the caller of the run about an epoch; what it raises ends the run."""
        if self._report is not None and self.processes.is_main:
            self._report(row["epoch"], row)

    def rows(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return self.processes.on_main(self.folder.rows)

    def summarise(
        self,
        results: Mapping[str, RuleAssessment],
        *,
        selection: Selection,
        notes: Sequence[str],
        since: float,
    ) -> Summary:
        """Return the summary of the run; see :func:`engine.training.summarise.summarise`.

        Args:
            results: of each selection rule.
            selection: chose the epochs.
            notes: what tables must say beside the numbers.
            since: when this segment began, by ``time.perf_counter``.
        """
        return summarise(
            results,
            rows=self.rows(),
            selection=selection,
            dataset=self.dataset,
            seed=self.config.seed,
            identity=self.identity,
            code_hash=self.code,
            notes=(*notes, *provenance.changes(self.environment)),
            parameters={key: self._parameters[key] for key in ("trained", "total")},
            seconds=time.perf_counter() - since,
            limits=group_limits(self.config),
        )

    def save_predictions(
        self,
        rule: str,
        assessment: RuleAssessment,
        *,
        evaluator: Evaluator,
        after_batch: Callable[[], None],
    ) -> None:
        """Write the predictions of the weights that a selection rule chose.

        Where ``evaluate.store_features`` asks for it and test was looked at, the features, too.

        Args:
            rule: that chose the weights of the moment.
            assessment: what they are worth.
            evaluator: of the run.
            after_batch: called between batches.
        """
        if self.processes.is_main:
            assessment.save_predictions(self.folder.predictions, rule, dataset=self.dataset)
        if self.config.evaluate.store_features and assessment.test is not None:
            store_features(
                self.folder.predictions,
                rule,
                evaluator=evaluator,
                targets=self.dataset.train.targets,
                num_classes=self.dataset.num_classes,
                after_batch=after_batch,
            )

    def finish(self, summary: Summary) -> None:
        """Write summary.json, which finishes the run; validation.json where test was left alone."""
        if self.processes.is_main:
            path = self.folder.summary if summary.result.test else self.folder.validation
            write_json(path, summary.model_dump(mode="json"))
