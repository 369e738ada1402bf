"""The precision that a run computes in on this machine, by name; imports torch only to find out."""

from __future__ import annotations

from collections.abc import Callable

from engine.config.schema import Config


def settled(config: Config, *, say: Callable[[str], None] | None = None) -> Config:
    """Return a config whose precision is named: ``auto`` becomes what it is on this machine.

    So the fingerprint, the run folder and its config.yaml say what a number was made with.

    Args:
        config: of a run that is to be made here.
        say: called with a line where there was something to choose.

    Raises:
        ConfigError: the device is not there.
    """
    if config.runtime.precision != "auto":
        return config
    from engine.training.runtime import choose_device, choose_precision

    device = choose_device(config.runtime.device)
    precision = choose_precision("auto", device)
    if say is not None:
        say(f"runtime.precision=auto: {precision} on this {device.type} device")
    runtime = config.runtime.model_copy(update={"precision": precision})
    return config.model_copy(update={"runtime": runtime})
