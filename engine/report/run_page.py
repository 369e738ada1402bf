"""The page of one run, where ``track.report=true`` asks for it."""

from __future__ import annotations

from engine.config.mistakes import ConfigError
from engine.training.journal import Journal
from engine.training.processes import Processes
from engine.training.repeats import find_repeats


def write_page(journal: Journal) -> None:
    """Write report.html of a run that is finished and has its summary, if its config asks for it.

    Where several processes are joined, the main one writes. A page that cannot be made is a line
    for the user: the run is finished without it.

    Args:
        journal: of the run.
    """
    if not journal.config.track.report or not Processes.current().is_main:
        return
    from engine.report import page  # with pandas and jinja2, which other runs do without

    try:
        page.write_page(
            journal.folder.path,
            test=journal.dataset.test,
            repeats=find_repeats(journal.dataset.splits),
        )
    except (ConfigError, OSError) as error:
        journal.say(f"{page.FILE}: not written: {error}")
