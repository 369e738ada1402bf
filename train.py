"""Train one long-tailed classifier and tell the whole truth about it.

``python train.py --help`` lists every key. From Python: ``train.run(load([...]))`` with
:func:`engine.config.load.load`.
Heavy imports wait until a run starts, so that ``--help`` and a typo answer at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import command_line, rules
from engine.config.calendar import start_epoch
from engine.config.load import dump, fingerprint, load
from engine.config.metrics import metrics
from engine.config.mistakes import ConfigError
from engine.config.schema import Config

if TYPE_CHECKING:
    import data
    from engine.report.terminal import Terminal
    from engine.training.metrics.per_class import PerClass
    from engine.training.summary import Summary
    from engine.training.train_loop import Step

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
) -> Summary:
    """One run, top to bottom; resumes an interrupted one, returns the summary of a finished one.

    Processes that ``engine.training.processes.joined`` has joined run it together, and all get the
    summary.

    Args:
        config: from :func:`engine.config.load.load`.
        report: called in the main process after each epoch with its number (1-based) and its line
            of metrics.jsonl; what it raises ends the run, which can be resumed.
        test: predict test at the end. Without, the summary has validation numbers only and is kept
            as validation.json; the run counts as unfinished, and with test goes on from there.
        dataset: as ``engine.training.build.build_dataset`` made it for the same ``data`` section,
            where the caller has it in memory.
        fresh: run again although the folder exists; the old one is renamed and kept.
        command: recorded in environment.json.
        screen: where to print; default the terminal.

    Raises:
        ConfigError: a mistake that only the data, timm or the machine could reveal.
        DivergenceError: of the loss, the weights or the predictions.
        Interrupted: by a signal, after a checkpoint.
        LostProcessError: another process of the run has ended.
    """
    import torch

    import data
    from engine.report import tracking
    from engine.report.figures.run_figures import draw_figures
    from engine.report.terminal import Header, Terminal
    from engine.training import build, evaluation, provenance, summarise
    from engine.training.checkpoint import Checkpointer, Progress
    from engine.training.code_hash import code_hash
    from engine.training.files import write_json, write_text
    from engine.training.predict_loop import predict
    from engine.training.processes import Processes
    from engine.training.provenance import describe_segment
    from engine.training.run_folder import RunFolder
    from engine.training.runtime import (
        choose_device,
        choose_precision,
        cpu_threads,
        derive_seed,
        determinism,
        device_name,
        precision_note,
        preserved_randomness,
    )
    from engine.training.selection import Selection
    from engine.training.signals import EndedEarly, interruptions
    from engine.training.train_loop import EpochTotals

    tracking.check_installed(config.track.to)
    if config.evaluate.test_every_epoch and not test:
        raise ConfigError(["evaluate.test_every_epoch=true: this run is to leave test alone"])
    began = time.perf_counter()
    processes = Processes.current()
    screen = (screen or Terminal()) if processes.is_main else Terminal.silent()
    epochs = config.schedule.epochs
    name = config.track.name or config.data.name
    folder = RunFolder(Path(config.track.root).expanduser() / name / fingerprint(config))

    with contextlib.ExitStack() as stack:
        # --- machine -----------------------------------------------------------------------------
        stack.enter_context(build.mistakes_of(data.DataError))
        stack.enter_context(preserved_randomness())
        threads = stack.enter_context(cpu_threads(config.runtime.threads))
        stack.enter_context(determinism(is_on=config.runtime.deterministic))
        device = choose_device(config.runtime.device)
        precision = choose_precision(config.runtime.precision, device)
        if (note := precision_note(config.runtime.precision, precision, device)) is not None:
            screen.say(note)

        # --- data; a finished run ends here ------------------------------------------------------
        if dataset is None:
            with processes.one_a_machine_first():
                dataset = build.build_dataset(config)
        code = code_hash(config.data.name, config.loss.name)
        identity = {
            "fingerprint": fingerprint(config),
            "group": fingerprint(config, without_seeds=True),
            "split_fingerprint": dataset.split_fingerprint,
        }

        def past() -> Summary | None:
            provenance.check_split(folder, dataset.split_fingerprint)
            return provenance.finished_summary(folder, test=test)

        if not fresh and (finished := processes.on_main(past)) is not None:
            if test:
                screen.say("this run is finished; --fresh runs it again")
                screen.summary(finished, folder.path, code_now=code)
            return finished

        # --- model, loss, optimizer --------------------------------------------------------------
        trainer = build.build_trainer(config, dataset, device=device)
        class_weights = build.build_class_weights(config, dataset)
        loader_settings: dict[str, Any] = {
            "batch_size": config.optim.batch_size,
            "mean": dataset.mean,
            "std": dataset.std,
            "device": device,
            "seed": derive_seed(config.seed, "loader"),
            "workers": config.runtime.workers,
        }
        train_loader = data.Loader(
            dataset.train,
            augment=build.augmentation(config),
            rank=processes.rank,
            world=processes.world,
            smallest_share=2,
            **loader_settings,
        )
        class_index = data.ClassIndex.from_targets(
            dataset.train.targets, num_classes=dataset.num_classes
        )
        steps = train_loader.num_batches(len(dataset.train))
        build.check_lone_images(
            config,
            trainer.model,
            dataset,
            smallest_batch=min(train_loader.batch_sizes(len(dataset.train))),
            processes=processes.world,
        )

        for remark in build.opening_notes(config, dataset):
            screen.say(remark)

        # --- run folder, resume ------------------------------------------------------------------
        def own() -> None:
            if fresh and (aside := folder.set_aside()) is not None:
                screen.say(f"--fresh: the earlier run is kept in {aside}")
            stack.enter_context(folder.owned())

        processes.on_main(own)
        interruption = stack.enter_context(interruptions())
        progress = Progress()
        checkpoints = Checkpointer(
            folder.checkpoints,
            trainer,
            progress=progress,
            interruption=interruption,
            seconds=config.runtime.checkpoint_seconds,
        )
        for problem in checkpoints.resume():
            screen.say(problem)
        if progress.has_begun:
            screen.say(f"resuming at epoch {progress.epoch + 1}, step {progress.totals.steps + 1}")
        ran = describe_segment(
            command=command,
            device=device_name(device),
            precision=precision,
            threads=threads,
            code=code,
            processes=processes.world,
        )

        facts = build.facts_of(config, dataset, teacher=trainer.teacher)

        def begin() -> dict[str, Any]:
            provenance.check_teacher(folder, facts["teacher_weights"])
            folder.cut_rows(progress.epoch)
            environment = provenance.add_segment(
                folder,
                ran,
                position=provenance.Position(progress.epoch, progress.totals.steps),
                facts=facts,
                identity=identity,
                say=screen.say,
            )
            write_text(folder.config, dump(config))
            return environment

        environment = processes.on_main(begin)
        tracked = tracking.TrackedRun(
            folder=folder.path,
            root=Path(config.track.root).expanduser(),
            run_id=environment["wandb_id"],
            name=tracking.run_name(config),
            group=config.track.group or identity["group"],
            config=config.model_dump(mode="json"),
        )
        trackers = tracking.Trackers()
        if processes.is_main:
            trackers = tracking.start(config.track, tracked, say=screen.say)

        def end_trackers(kind: type[BaseException] | None, *_: object) -> None:
            if kind is EndedEarly and progress.best is not None:
                values = {"objective": progress.best["value"], "ended_early": True}
                trackers.close(tracking.Closing(values))
            trackers.finish(failed=kind not in (None, EndedEarly))

        stack.push(end_trackers)
        for past_row in tracking.logged_again(folder.rows()):
            values = tracking.values_of(past_row, dataset.class_names, mode=config.track.per_class)
            trackers.log(values, step=past_row["epoch"])

        # --- epochs ------------------------------------------------------------------------------
        # Without a validation split nothing asks for "val".
        splits = {"val": dataset.val or dataset.test, "test": dataset.test}
        readout = build.build_readout(
            config,
            trainer.loss,
            class_counts=torch.from_numpy(dataset.class_counts),
            classes=dataset.classes.predicted,
        )
        loader_of = functools.cache(lambda split: data.Loader(splits[split], **loader_settings))

        def assess(
            split: str, *, after_batch: Callable[[], None], **options: Any
        ) -> evaluation.Assessment:
            num_images = len(splits[split])
            share = predict(
                trainer.evaluated,
                loader_of(split).epoch(processes.share(torch.arange(num_images)), epoch=0),
                device=device,
                precision=precision,
                after_batch=after_batch,
            )
            return evaluation.assess(
                share.joined(processes, num_images=num_images),
                readout,
                class_counts=dataset.class_counts,
                num_outputs=build.num_outputs(config, dataset.num_classes),
                old_classes=dataset.classes.old,
                **options,
            )

        def after_step(step: Step) -> None:
            checkpoints.poll()
            screen.step(step, epoch=progress.epoch, steps=steps, rate=trainer.current_rate)

        selection = Selection.of(config)
        stack.enter_context(checkpoints.named_on_divergence())
        screen.header(
            Header(
                title=dataset.title,
                class_counts=dataset.class_counts.tolist(),
                num_validation=0 if dataset.val is None else len(dataset.val),
                num_test=len(dataset.test),
                model=config.model.name,
                num_parameters=sum(p.numel() for p in trainer.evaluated.parameters()),
                device=device_name(device),
                threads=threads,
                epochs=epochs,
                steps=steps,
                chosen_by=None if dataset.val is None else metrics()[selection.metric].heading,
                folder=folder.path,
            )
        )
        with screen.training(
            epochs=epochs, done=progress.epoch * steps + progress.totals.steps, total=epochs * steps
        ):
            for epoch in range(progress.epoch, epochs):
                sampler = config.sampler
                is_sampling = epoch >= start_epoch(sampler.start, epochs)
                positions = data.draw_epoch(
                    sampler.name if is_sampling else "instance",
                    class_index,
                    seed=derive_seed(config.seed, "order"),
                    epoch=epoch,
                    progress=epoch / max(epochs - 1, 1),
                    beta=sampler.beta,
                )
                is_weighting = epoch >= start_epoch(config.reweight.start, epochs)
                trainer.loss.set_weight(
                    class_weights.to(device) if is_weighting and class_weights is not None else None
                )
                trainer.loss.set_progress(epoch, epochs)
                trainer.train_epoch(
                    train_loader.epoch(positions, epoch=epoch, start=progress.totals.steps),
                    epoch=epoch,
                    steps=steps,
                    totals=progress.totals,
                    after_step=after_step,
                )

                row: dict[str, Any] = {
                    "epoch": epoch + 1,
                    "step": (epoch + 1) * steps,
                    "lr": trainer.current_rate,
                    **{f"train/{k}": v for k, v in progress.totals.metrics().items()},
                    "train/class_histogram": data.class_histogram(
                        positions, dataset.train.targets, dataset.num_classes
                    ).tolist(),
                }
                scores: PerClass | None = None
                if dataset.val is not None:
                    val = assess(
                        "val", after_batch=checkpoints.poll, ranking=selection.needs_ranking
                    )
                    row |= evaluation.row_of("val", val.metrics)
                    scores = val.metrics.per_class
                    progress.best = selection.updated(
                        progress.best, row, weights=trainer.evaluated.state_dict
                    )
                if config.evaluate.test_every_epoch:
                    tested_now = assess("test", after_batch=checkpoints.poll)
                    row |= evaluation.row_of("test", tested_now.metrics)
                row |= progress.totals.timing()

                if processes.is_main:
                    folder.append_row(row)
                progress.epoch, progress.totals = epoch + 1, EpochTotals()
                checkpoints.save()
                values = tracking.values_of(
                    row, dataset.class_names, mode=config.track.per_class, scores=scores
                )
                trackers.log(values, step=epoch + 1)
                best_epoch = progress.best["epoch"] if progress.best else None
                screen.epoch(row, metric=selection.metric, best_epoch=best_epoch)
                if report is not None and processes.is_main:
                    report(epoch + 1, row)
                checkpoints.stop_if_asked()

        # --- test (unless left alone), once for each selection rule ------------------------------
        rules = {"last": (epochs, trainer.evaluated.state_dict())}
        if progress.best is not None:
            rules["val"] = (progress.best["epoch"], progress.best["state"])
        results = {}
        for rule, (epoch, weights) in rules.items():
            # From here on a signal stops without a checkpoint: the one of the last epoch stands.
            stop = checkpoints.stop_if_asked
            trainer.evaluated.load_state_dict(weights)
            held_out: evaluation.Assessment | None = None
            if dataset.val is not None:
                held_out = assess("val", after_batch=stop, ranking=True)
            tested: evaluation.Assessment | None = None
            if test:
                limit = summarise.threshold(held_out)
                tested = assess("test", after_batch=stop, ranking=True, threshold=limit)
            results[rule] = summarise.RuleAssessment(epoch, val=held_out, test=tested)
            if processes.is_main:
                results[rule].save_predictions(folder.predictions, rule, dataset=dataset)

        # --- summary, figures --------------------------------------------------------------------
        def close() -> Summary:
            summary = summarise.summarise(
                results,
                rows=folder.rows(),
                selection=selection,
                dataset=dataset,
                seed=config.seed,
                identity=identity,
                code_hash=code,
                notes=(*build.notes(config), *provenance.changes(environment)),
                seconds=time.perf_counter() - began,
            )
            headline = results[summary.headline]
            if headline.test is None:
                objective = headline.val.metrics.scalars[selection.metric] if headline.val else None
                values = {**tracking.closing_values(summary), "objective": objective}
                trackers.close(tracking.Closing(values))
                write_json(folder.validation, summary.model_dump(mode="json"))
                return summary
            figures = {}
            if config.track.figures:
                figures = draw_figures(
                    folder.figures,
                    headline.test,
                    class_counts=dataset.class_counts,
                    class_names=dataset.class_names,
                    rows=folder.rows(),
                    best_epoch=headline.epoch if summary.headline == "val" else None,
                    data_title=dataset.title,
                    rule=summary.headline,
                    say=screen.say,
                )
            trackers.close(tracking.closing_of(summary, test=headline.test, figures=figures))
            write_json(folder.summary, summary.model_dump(mode="json"))
            return summary

        summary = processes.on_main(close)
        if not test:
            return summary
        screen.summary(summary, folder.path, code_now=code)
        return summary


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        arguments = command_line.parse(argv)
        if arguments.help is not None:
            print(command_line.help_text(arguments.help))
            return 0
        config = load(arguments.files, arguments.overrides)
        if arguments.print_config:
            print(dump(config), end="")
            return 0
        return _run_seeds(config, arguments)
    except ConfigError as error:
        # Whatever is wrong with the command is wrong for every process of a run; one says so.
        for mistake in error.mistakes if os.environ.get("RANK", "0") == "0" else ():
            print(mistake, file=sys.stderr)
        return 2


def _run_seeds(config: Config, arguments: command_line.Arguments) -> int:
    import torch

    from engine.report import seeds
    from engine.report.terminal import Terminal
    from engine.training.divergence import DivergenceError
    from engine.training.files import WriteError, write_text
    from engine.training.processes import LostProcessError, joined
    from engine.training.signals import Interrupted

    screen = Terminal(is_brief=bool(arguments.seeds))
    command = ["train.py", *sys.argv[1:]]
    summaries = []
    try:
        with joined(config.runtime.device) as processes:
            screen = screen if processes.is_main else Terminal.silent()
            for seed in range(config.seed, config.seed + (arguments.seeds or 1)):
                seeded = config.model_copy(update={"seed": seed})
                summaries.append(run(seeded, fresh=arguments.fresh, command=command, screen=screen))
    except Interrupted as stop:
        screen.say(f"{stop}; the same command goes on from here")
        return stop.exit_code
    except (WriteError, LostProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    except DivergenceError as error:
        print(error, *error.__notes__, sep="; ", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError:
        print(_out_of_memory(config), file=sys.stderr)
        return 1
    if arguments.seeds and processes.is_main:
        name = config.track.name or config.data.name
        root = Path(config.track.root).expanduser()
        file = root / name / f"seeds-{summaries[0].group}.md"
        write_text(file, seeds.markdown(summaries))
        screen.seeds(summaries, file=file)
    return 0


def _out_of_memory(config: Config) -> str:
    """Which keys to change; with more pieces a batch, and the result, stay what they are."""
    batch_size, pieces = config.optim.batch_size, config.optim.accumulate
    line = f"out of GPU memory with optim.batch_size={batch_size} in {pieces} piece(s): "
    if not rules.is_mean_over_samples(config):
        return (
            line + f"optim.batch_size={batch_size // 2} needs less memory and changes the recipe; "
            f"{config.loss.name} cannot be computed in pieces of a batch"
        )
    half = next((n for n in range(2 * pieces, batch_size + 1) if batch_size % n == 0), None)
    if half is None:
        return line + "no smaller piece is left; use a smaller model or smaller images"
    return (
        line + f"optim.accumulate={half} keeps the batch and needs less memory; "
        f"optim.batch_size={batch_size // 2} changes the recipe"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
