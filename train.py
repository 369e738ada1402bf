"""Train one long-tailed classifier and report it in full.

``python train.py --help`` lists every key. From Python: ``train.run(load([...]))`` with
:func:`engine.config.load.load`.
Heavy imports wait until a run starts, so that ``--help`` and a typo answer at once.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("train"))

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.config import command_line, derived
from engine.config.calendar import start_epoch
from engine.config.launch import is_first_here
from engine.config.load import dump, load
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config
from engine.training.named_precision import settled
from engine.training.run_folder import RunFolder

if TYPE_CHECKING:
    import data
    from engine.report.terminal import Terminal
    from engine.training.summary import Summary

Report = Callable[[int, Mapping[str, Any]], None]


def run(
    config: Config,
    *,
    report: Report | None = None,
    test: bool = True,
    dataset: data.LongTailed | None = None,
    fresh: bool = False,
    command: Sequence[str] = ("train.run",),
    screen: Terminal | None = None,
    leave: Collection[int] = (),
) -> Summary:
    """Train, test and describe one run; resume an interrupted one, return a finished one's summary.

    Processes joined by ``engine.training.processes.joined`` run it together; all get the summary.

    Args:
        config: from :func:`engine.config.load.load`.
        report: called in the main process after each epoch with its number (1-based) and its line
            of metrics.jsonl; what it raises ends the run, which can be resumed.
        test: predict test at the end. Without, the summary has validation numbers only and is kept
            as validation.json; the run counts as unfinished, and can be finished with test later.
        dataset: from :func:`engine.training.setup.load_dataset`, where the caller has it.
        fresh: run again although the folder exists; the old one is renamed and kept.
        command: recorded in environment.json.
        screen: where to print; default the terminal.
        leave: epochs (from 1) whose checkpoints stay, as ``epoch_<n>.pt``, for runs to begin there.

    Raises:
        ConfigError: a mistake that only the data, timm or the machine could reveal.
        DivergenceError: of the loss, the weights or the predictions.
        Interrupted: by a signal, after a checkpoint.
        LostProcessError: another process of the run has ended.
    """
    import data
    from engine.report.figures.run_figures import draw_figures
    from engine.report.run_header import header_of
    from engine.report.run_page import write_page
    from engine.report.run_trackers import check_installed, tracked
    from engine.report.terminal import Terminal
    from engine.training.checkpointer import Checkpointer, CheckpointOptions, Progress
    from engine.training.epoch_totals import EpochTotals
    from engine.training.evaluation import row_of
    from engine.training.journal import Journal
    from engine.training.machine import machine
    from engine.training.selection import Selection
    from engine.training.setup import load_dataset, set_up
    from engine.training.signals import interruptions
    from engine.training.summarise import assess_rule

    check_installed(config.track.to)
    if config.evaluate.test_every_epoch and not test:
        raise ConfigError(["evaluate.test_every_epoch=true: this run is to leave test alone"])
    began, epochs, screen = time.perf_counter(), config.schedule.epochs, screen or Terminal()
    config = settled(config, say=screen.say)

    with contextlib.ExitStack() as stack:
        # --- machine, data; a finished run ends here ---------------------------------------------
        stack.enter_context(mistakes_of(data.DataError))
        computer = stack.enter_context(machine(config.runtime, say=screen.say))
        dataset = dataset or load_dataset(config)
        journal = Journal(config, dataset, machine=computer, say=screen.say, report=report)
        if not fresh and (finished := journal.finished(test=test)) is not None:
            if test:
                write_page(journal)
                screen.finished(finished, journal.folder.path, code_now=journal.code)
            return finished

        # --- model, loss, optimizer --------------------------------------------------------------
        config = journal.as_begun(fresh=fresh)
        begun = journal.begun(fresh=fresh)
        setup = stack.enter_context(contextlib.closing(set_up(config, dataset, computer, begun)))
        trainer, evaluator, steps = setup.trainer, setup.evaluator, setup.steps
        selection = Selection.of(config, has_validation=dataset.val is not None)

        # --- run folder, resume ------------------------------------------------------------------
        stack.enter_context(journal.owned(setup, fresh=fresh))
        progress = Progress()
        checkpoints = Checkpointer(
            journal.folder.checkpoints,
            trainer,
            progress=progress,
            interruption=stack.enter_context(interruptions()),
            options=CheckpointOptions.of(config, leave=leave),
        )
        for line in (*setup.remarks, *checkpoints.resume(has_begun=begun is not None)):
            screen.say(line)
        journal.begin(progress, setup, command=command)
        trackers = stack.enter_context(tracked(journal, progress=progress))

        # --- epochs ------------------------------------------------------------------------------
        stack.enter_context(checkpoints.named_on_divergence())
        screen.header(header_of(journal, setup))
        with screen.training(epochs=epochs, done=progress.num_steps(steps), total=epochs * steps):
            for epoch in selection.remaining(progress.epoch, rows=journal.rows()):
                positions = setup.draw(epoch)
                is_weighting = epoch >= start_epoch(config.reweight.start, epochs)
                trainer.loss.set_weight(setup.class_weights if is_weighting else None)
                trainer.loss.set_progress(epoch, epochs)
                trainer.train_epoch(
                    setup.loader.epoch(positions, epoch=epoch, start=progress.totals.steps),
                    epoch=epoch,
                    steps=steps,
                    totals=progress.totals,
                    poll=checkpoints.poll,
                    after_step=screen.step,
                )
                setup.average(positions, epoch=epoch, totals=progress.totals, poll=checkpoints.poll)
                row = progress.totals.row(epoch, steps=steps, rate=trainer.current_rate)
                row["train/class_histogram"] = setup.histogram(positions)
                val = None
                if dataset.val is not None:
                    ranking = selection.needs_ranking
                    val = evaluator.assess("val", after_batch=checkpoints.poll, ranking=ranking)
                    row |= row_of("val", val.metrics)
                if config.evaluate.test_every_epoch:
                    tested = evaluator.assess("test", after_batch=checkpoints.poll)
                    row |= row_of("test", tested.metrics)
                row |= progress.totals.timing()
                journal.write_row(row)
                weights = trainer.evaluated.state_dict
                progress.best = selection.update(progress.best, row, weights=weights)
                progress.epoch, progress.totals = epoch + 1, EpochTotals()
                checkpoints.after_epoch(is_last=selection.is_over)
                with checkpoints.before_it_ends():
                    trackers.epoch(row, val=val)
                    best_epoch = selection.best_epoch(progress.best)
                    screen.epoch(row, metric=selection.metric, best_epoch=best_epoch)
                    journal.report(row)
                checkpoints.stop_if_asked()

        # --- test (unless left alone), once for each selection rule ------------------------------
        results, best, weights = {}, progress.best, trainer.evaluated.state_dict
        for rule, chosen in selection.chosen(best, epochs=progress.epoch, weights=weights).items():
            trainer.evaluated.load_state_dict(chosen.weights)
            # From here on a signal stops without a checkpoint: the one of the last epoch stands.
            stop = checkpoints.stop_if_asked
            results[rule] = assess_rule(evaluator, chosen.epoch, test=test, after_batch=stop)
            journal.save_predictions(rule, results[rule], evaluator=evaluator, after_batch=stop)

        # --- summary, figures, page --------------------------------------------------------------
        summary = journal.summarise(results, selection=selection, notes=setup.notes, since=began)
        headline = results[summary.headline].test
        figures = draw_figures(journal, headline, summary=summary, rows=journal.rows())
        trackers.result(summary, test=headline, figures=figures)
        checkpoints.finish()
        journal.finish(summary)
        if test:
            write_page(journal)
            screen.summary(summary, journal.folder.path, code_now=journal.code)
        return summary


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        arguments = command_line.parse(argv)
        if arguments.help is not None:
            print(command_line.help_text(arguments.help))
            return 0
        config = load(arguments.files, arguments.overrides, has_begun=_has_begun)
        if arguments.print_config:
            print(dump(config), end="")
            return 0
        if arguments.print_classes:
            _print_classes(config)
            return 0
        if arguments.print_groups:
            _print_groups(config)
            return 0
        seeds = command_line.seeds(config, arguments)
        if arguments.submit is not None:
            from engine.cluster.submit import submit

            return submit(arguments.submit, "train.py", argv, seeds=seeds)
        return _run_seeds(config, arguments, seeds=seeds)
    except ConfigError as error:
        # A mistake is the same in every process of a machine.
        for mistake in error.mistakes if is_first_here() else ():
            print(mistake, file=sys.stderr)
        return 2


def _has_begun(config: Config) -> bool:
    # The folder bears the fingerprint with the precision by name.
    return RunFolder.of(settled(config)).has_begun()


def _print_classes(config: Config) -> None:
    """Print the classes of the config's data in label order."""
    from engine.report.class_list import class_list
    from engine.training.setup import load_dataset

    dataset = load_dataset(config)
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    counts = {
        name: split.targets.bincount(minlength=dataset.num_classes).tolist()
        for name, split in splits.items()
        if split is not None
    }
    print(*class_list(dataset.class_names, counts), sep="\n")


def _print_groups(config: Config) -> None:
    """Print which parameters are trained, in which groups of the optimizer."""
    import torch

    from engine.report.group_list import group_list
    from engine.training.build import build_groups, build_model
    from engine.training.parameter_groups import described
    from engine.training.setup import load_dataset

    with torch.random.fork_rng(devices=[]):
        model = build_model(config, load_dataset(config))
    print(*group_list(described(model, build_groups(config, model))), sep="\n")


def _run_seeds(config: Config, arguments: command_line.Arguments, *, seeds: range) -> int:
    import torch

    from engine.report.terminal import Terminal
    from engine.training.divergence import DivergenceError
    from engine.training.files import WriteError
    from engine.training.processes import LostProcessError, joined
    from engine.training.signals import Interrupted

    screen = Terminal(is_brief=bool(arguments.seeds))
    command = ["train.py", *sys.argv[1:]]
    summaries: list[Summary] = []
    diverged: list[int] = []
    aside = ", without --fresh, which would begin again" if arguments.fresh else ""
    try:
        with joined(config.runtime.device) as processes:
            screen = screen if processes.is_main else Terminal.silent()
            for seed in seeds:
                seeded = config.model_copy(update={"seed": seed})
                try:
                    found = run(seeded, fresh=arguments.fresh, command=command, screen=screen)
                except DivergenceError as error:  # in all processes alike
                    diverged.append(seed)
                    if processes.is_main:
                        named = [f"seed={seed}"] if arguments.seeds else []
                        print(*named, error, *error.__notes__, sep="; ", file=sys.stderr)
                else:
                    summaries.append(found)
    except Interrupted as stop:
        screen.say(f"{stop}; run the same command to resume{aside}")
        return stop.exit_code
    except (WriteError, LostProcessError) as error:
        print(f"{error}{aside}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError:
        which = "" if processes.world == 1 else f"process {processes.rank} of {processes.world}: "
        print(which + _out_of_memory(config), file=sys.stderr)
        return 1
    if arguments.seeds and summaries and processes.is_main:
        _print_table(config, summaries, diverged=diverged, screen=screen)
    return 1 if diverged else 0


def _print_table(
    config: Config, summaries: Sequence[Summary], *, diverged: Sequence[int], screen: Terminal
) -> None:
    """Print the table of several seeds, and write it beside their run folders."""
    from engine.report.seeds import markdown
    from engine.training.files import write_text

    file = RunFolder.of(settled(config)).path.parent / f"seeds-{summaries[0].group}.md"
    text, line = markdown(summaries), None
    if diverged:
        number, seeds = len(summaries), ", ".join(map(str, diverged))
        line = f"n = {number} of {number + len(diverged)}: left out, as it diverged: seed {seeds}"
        text += f"- {line}\n"
    write_text(file, text)
    screen.seeds(summaries, file=file)
    if line is not None:
        screen.say(line)


def _out_of_memory(config: Config) -> str:
    """Say which keys to change; more pieces leave the batch and its gradient, but for BatchNorm."""
    batch_size, pieces = config.optim.batch_size, config.optim.accumulate
    line = f"out of GPU memory with optim.batch_size={batch_size} in {pieces} piece(s): "
    if not derived.is_mean_over_samples(config):
        return (
            line + f"optim.batch_size={batch_size // 2} needs less memory and changes the recipe; "
            f"{config.loss.name} cannot be computed in pieces of a batch"
        )
    half = next((n for n in range(2 * pieces, batch_size + 1) if batch_size % n == 0), None)
    if half is None:
        return line + "no smaller piece is left; use a smaller model or smaller images"
    keeps = f"optim.accumulate={half} keeps the batch and needs less memory, in evaluation too"
    if config.model.norm == "batch":
        keeps += ", and BatchNorm uses the statistics of each piece"
    return f"{line}{keeps}; optim.batch_size={batch_size // 2} changes the recipe"
