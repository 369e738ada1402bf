"""What the terminal shows about a run before its first epoch."""

from __future__ import annotations

from engine.config.metrics import metrics
from engine.report.terminal import Header
from engine.training.journal import Journal
from engine.training.runtime import device_name
from engine.training.setup import Setup


def header_of(journal: Journal, setup: Setup) -> Header:
    """Return the header of a run that is set up and has its folder."""
    config, dataset, val = journal.config, journal.dataset, journal.dataset.val
    metric = config.evaluate.metric.removeprefix("val/")
    return Header(
        title=dataset.title,
        class_counts=dataset.class_counts.tolist(),
        num_validation=0 if val is None else len(val),
        num_test=len(dataset.test),
        model=config.model.name,
        num_parameters=sum(p.numel() for p in setup.trainer.evaluated.parameters()),
        device=device_name(journal.machine.device),
        threads=journal.machine.threads,
        epochs=config.schedule.epochs,
        steps=setup.steps,
        chosen_by=None if val is None else metrics()[metric].heading,
        folder=journal.folder.path,
        patience=config.schedule.patience,
    )
