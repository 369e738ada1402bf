"""Compile the kernels of losses for devices that are not there, and start them on none.

    python -m tests.losses._launched FILE

has losses launched as for a device of each architecture, by a driver that does nothing, and writes
what was compiled and started.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from losses import _device_sigmoid, _kernels, _sigmoid_kernels, _softmax_kernels
from losses._adjustment import Adjustment
from losses._device import given_up
from losses._device_softmax import device_loss
from losses._element_loss import ElementLoss
from losses._sample_loss import SampleLoss
from losses._terms import SampleTerm
from losses.sigmoid_focal import sigmoid_focal_loss
from losses.softmax_focal import softmax_focal_loss
from tests.losses._device_cases import IGNORED, drawn, labels_of, open_to_kernels, shares_of

ARCHITECTURES = (80, 90)
CLASSES = 8142


class NoDevice:
    """A driver, its utilities and its launcher for a device of an architecture."""

    def __init__(self, architecture: int) -> None:
        self.target = GPUTarget("cuda", architecture, 32)
        self.utils = self
        self.started: list[str] = []

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # Triton keeps what it compiled by the number of the device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 99 * 1024}

    def load_binary(self, *_binary: object) -> tuple[int, ...]:
        return 0, 0, 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        return lambda *_arguments: self.started.append(metadata.name)


def resources(kernel: Any) -> dict[str, int]:
    """Return what a compiled kernel takes: registers, and bytes of stack and of local memory."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        said = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", said.stdout)}
    return found | {
        "shared": kernel.metadata.shared,
        "asserts": "__assertfail" in kernel.asm["ptx"],
    }


def everything(labels: Tensor) -> SampleLoss:
    """Return a loss with all that a kernel may be given."""
    vector = torch.ones(CLASSES, dtype=torch.float64)
    return SampleLoss(
        labels,
        SampleTerm(gamma=0.5, epsilon=0.5, gain=2.0, eps=1.0),
        reduction="mean",
        normalize="weights",
        ignore_index=IGNORED,
        weight=vector,
        factor=vector,
        power=vector,
        size=torch.ones(len(labels)),
        adjustment=Adjustment(scale=vector, offset=vector, own=vector),
    )


def sigmoids(targets: Tensor) -> ElementLoss:
    """Return a loss with all that the kernel may be given, of labels or of shares."""
    weight = None if targets.is_floating_point() else torch.ones(CLASSES)
    return ElementLoss(
        targets,
        gamma=0.5,
        alpha=0.25,
        weight=weight,
        reduction="mean",
        normalize="elements",
        ignore_index=IGNORED,
    )


@contextlib.contextmanager
def untried() -> Iterator[None]:
    """Do not ask what kernels of no device compute."""
    with (
        mock.patch.object(_softmax_kernels, "check_on_trial"),
        mock.patch.object(_sigmoid_kernels, "check_on_trial"),
    ):
        yield


def launched(architecture: int) -> dict[str, Any]:
    """Return what was compiled for an architecture, and what each of three steps started."""
    device = NoDevice(architecture)
    driver.set_active(device)
    _kernels.compiled.clear()
    x = drawn(3, CLASSES).float().requires_grad_()
    y = labels_of(x)
    found: dict[str, Any] = {}
    firsts = {
        "first": lambda: device_loss(x, everything(y)),
        "first sigmoid": lambda: _device_sigmoid.device_loss(x, sigmoids(y)),
    }
    for name, loss in firsts.items():
        with warnings.catch_warnings(record=True) as caught:
            is_composed = loss() is None
        given_up.clear()
        found[name] = [is_composed, *(str(warning.message) for warning in caught)]
    with untried():
        for loss in firsts.values():
            loss()
        _device_sigmoid.device_loss(x, sigmoids(shares_of(x)))
    count = len(_kernels.compiled)
    device.started.clear()
    with open_to_kernels(), untried():
        for rows in (x, x, x[:2]):
            softmax_focal_loss(rows, labels_of(rows)).backward()
            sigmoid_focal_loss(rows, labels_of(rows)).backward()
    return found | {
        "started": device.started,
        "compiled": len(_kernels.compiled) - count,
        "kernels": [resources(kernel) for kernel in _kernels.compiled.values()],
    }


if __name__ == "__main__":
    found = {f"sm_{architecture}": launched(architecture) for architecture in ARCHITECTURES}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
