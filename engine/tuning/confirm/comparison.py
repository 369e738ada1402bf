"""A comparison of methods: one session for each, worked on one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.tuning.confirm.comparison_report import confirmed_methods, report
from engine.tuning.confirm.jobs import train_all
from engine.tuning.study.session import Session, folder_of, open_session, work_on
from engine.tuning.study.trials import ended_trials
from engine.tuning.study.wandb_study import record

if TYPE_CHECKING:
    from engine.config.schema import Config
    from engine.tuning.search import command_line
    from engine.tuning.study.display import Display
    from engine.tuning.study.folder import StudyFolder


@dataclass
class Comparison:
    """Searches alike in all but the method, open in this process.

    Attributes:
        sessions: by the name of the method, in the order of the command line.
        folder: of the comparison; each method's study has a folder of its own beside it.
    """

    sessions: Mapping[str, Session]
    folder: StudyFolder
    _named: set[str] = field(default_factory=set)

    @property
    def display(self) -> Display:
        """Where lines go that are of no single method."""
        return next(iter(self.sessions.values())).display

    def begin(self) -> None:
        """Report the trials that have ended already."""
        for session in self.sessions.values():
            session.display.begin(session.study)

    def show(self) -> None:
        """Report the trials that have ended since, under the name of their method."""
        for name, session in self.sessions.items():
            if name not in self._named and ended_trials(session.study):
                self._named.add(name)
                session.display.say(f"{name}:")
            session.display.show(session.study)

    def work(self, *, command: Sequence[str]) -> None:
        """Search with every method, then train the best of each on fresh seeds."""
        runners = []
        for name, session in self.sessions.items():
            session.display.say(f"{name}:")
            with session.display.live():
                runners.append(work_on(session, command=command))
        if (runner := next(filter(None, runners), None)) is not None:
            todo = confirmed_methods(self.sessions, self.folder).jobs
            train_all(todo, run=runner.run_whole, begins=self.display.confirm)

    def finish(self) -> None:
        """Write and show curves, table, and each method's own figures."""
        found = report(confirmed_methods(self.sessions, self.folder), self.folder)
        for name, end in found.studies.items():
            one = self.sessions[name]
            record(
                one.search,
                one.folder,
                study=one.study,
                figures=end.drawn.figures,
                say=one.display.say,
            )
        self.display.close(found.shown)

    def close(self) -> None:
        """Close the connections to the storages."""
        for session in self.sessions.values():
            session.close()


def open_comparison(
    arguments: command_line.Arguments, configs: Sequence[Sequence[Config]]
) -> Comparison:
    """Open the study of every method.

    Args:
        arguments: the methods, and where their studies live.
        configs: of the corners of each method's space.

    Raises:
        ConfigError: as :func:`engine.tuning.study.session.open_session`.
    """
    lead = arguments.search
    sessions = {
        method.study.removeprefix(f"{lead.study}-"): open_session(
            method, corners, url=arguments.storage, is_joining=arguments.join
        )
        for method, corners in zip(arguments.methods, configs, strict=True)
    }
    return Comparison(sessions, folder_of(lead))
