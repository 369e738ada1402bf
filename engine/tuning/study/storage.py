"""Optuna's database storage, whose calls are retried while the database is unreachable."""

from __future__ import annotations

import copy
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import (
    BaseStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
    get_storage,
)
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from engine.config.mistakes import ConfigError
from engine.training.files import WriteError
from engine.tuning.study.address import Address
from engine.tuning.study.claims import Claim, claim_on
from engine.tuning.study.trial_owner import is_lost

PATIENCE = 600.0  # seconds for which calls to a storage that is gone are tried again
HEARTBEAT = 10  # seconds between signs of life of a trial
TOKEN = "token"  # system attribute of a trial that was made with values: no other has the same
GRACE = 120  # seconds without one after which a trial on another machine counts as dead

Found = TypeVar("Found")


class StorageLostError(WriteError):
    """The storage has been gone for longer than anybody waits."""


def _patient_call(name: str) -> Callable[..., Any]:
    def call(self: PatientStorage, *arguments: Any, **options: Any) -> Any:
        return self.patiently(lambda: getattr(self.database, name)(*arguments, **options))

    return call


# All that Optuna asks of a storage, made of one pattern: the same call of `self.database`.
_Calls: Any = type(
    "_Calls",
    (BaseStorage, BaseHeartbeat),
    {
        name: _patient_call(name)
        for name in BaseStorage.__abstractmethods__ | BaseHeartbeat.__abstractmethods__
    },
)


class PatientStorage(_Calls):  # type: ignore[misc]
    """A storage for Optuna, in front of its own.

    Args:
        address: of the database.
        say: called with a line when calls begin to fail, and when they work again.
        heartbeat: seconds between signs of life of a running trial.
        grace: seconds without one after which it counts as dead.
        patience: seconds after which a call gives up.
    """

    def __init__(
        self,
        address: Address,
        *,
        say: Callable[[str], None],
        heartbeat: int = HEARTBEAT,
        grace: int = GRACE,
        patience: float = PATIENCE,
    ) -> None:
        self.address, self.say, self.patience = address, say, patience
        with warnings.catch_warnings():
            # Heartbeats have been "experimental" since Optuna 2.9.
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.requeue = RetryHeartbeatStaleTrialCallback()
            self._tables = RDBStorage(
                address.secret,
                engine_kwargs={"pool_pre_ping": True, "connect_args": address.connect_arguments()},
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=self.requeue,
            )
        self.engine: sqlalchemy.Engine = self._tables.engine
        self.database = get_storage(self._tables)  # with Optuna's cache in front

    # --- calls that must not be made twice -------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial as Optuna's storage does, once.

        A server that went away may have taken it, and only its answer was lost. Without a template
        it then belongs to nobody, and is given up before the next is asked for.
        """
        if template_trial is None:
            created: int = super().create_new_trial(study_id)
            return created
        marked = copy.copy(template_trial)
        token = uuid.uuid4().hex
        marked.system_attrs = {**marked.system_attrs, TOKEN: token}
        is_again = False

        def create() -> int:
            nonlocal is_again
            if is_again:
                for trial in self.database.get_all_trials(study_id, deepcopy=False):
                    if trial.system_attrs.get(TOKEN) == token:
                        return trial._trial_id
            is_again = True
            return self.database.create_new_trial(study_id, marked)

        return self.patiently(create)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set the state as Optuna's storage does, which says whether a waiting trial was taken.

        It was where the answer to an earlier try was lost and nobody owns the trial yet.
        """
        is_again = False

        def set_state() -> bool:
            nonlocal is_again
            was_tried, is_again = is_again, True
            if self.database.set_trial_state_values(trial_id, state, values):
                return True
            return was_tried and is_lost(self.database.get_trial(trial_id))

        return self.patiently(set_state)

    def close(self) -> None:
        """Close the connections."""
        self._tables.remove_session()
        self.engine.dispose()

    def patiently(self, action: Callable[[], Found]) -> Found:
        """Return what ``action`` finds in the database, tried again while that is gone.

        Raises:
            StorageLostError: it has been gone for longer than ``patience``.
        """
        began, failures = time.monotonic(), 0
        while True:
            try:
                found = action()
            except (StorageInternalError, SQLAlchemyError) as error:
                failures += 1
                reason = self.address.redacted(error.__cause__ or error)
                if time.monotonic() - began > self.patience:
                    lost = f"storage={self.address}: gone for {self.patience:.0f} s: {reason}"
                    raise StorageLostError(lost) from None
                if failures == 1:
                    self.say(f"storage={self.address}: {reason[:200]}; trying again")
                time.sleep(min(0.1 * 2**failures, 2.0))
            else:
                if failures:
                    self.say(f"storage={self.address}: is back")
                return found


class PatientClaim:
    """A claim that waits for a database that is gone."""

    def __init__(self, claim: Claim, storage: PatientStorage) -> None:
        self.claim, self.storage = claim, storage
        self.is_held, self.release = claim.is_held, claim.release

    def acquire(self) -> None:
        """Wait for the claim, and for the database."""
        self.storage.patiently(self.claim.acquire)


def claim_of(storage: PatientStorage, *, study: str) -> Claim:
    """Return the claim that all workers of a study share."""
    return PatientClaim(claim_on(storage.address, storage.engine, study), storage)


def open_storage(
    address: Address, *, say: Callable[[str], None], retry_seconds: float = 0.0, **options: Any
) -> PatientStorage:
    """Connect to a database, and create its tables if they are missing.

    Args:
        address: of the database.
        say: see :class:`PatientStorage`.
        retry_seconds: for how long to try again where it cannot be reached.
        options: of :class:`PatientStorage`.

    Raises:
        ConfigError: there is no such database, or it does not let us in.
    """
    began = time.monotonic()
    while True:
        engine = address.engine()
        claim = claim_on(address, engine, "tables")
        try:
            # Two processes that make the tables at once would get in each other's way.
            claim.acquire()
            return PatientStorage(address, say=say, **options)
        except (SQLAlchemyError, StorageInternalError, OSError) as error:
            if time.monotonic() - began >= retry_seconds:
                reason = address.redacted(getattr(error, "orig", None) or error)
                # From None: the driver's own text may hold what was just redacted.
                raise ConfigError([f"storage={address}: cannot be used: {reason}"]) from None
            time.sleep(1.0)
        finally:
            claim.release()
            engine.dispose()
