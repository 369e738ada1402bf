"""Cross-entropies of few classes on the CPU, computed with the classes first.

PyTorch's softmax goes number by number through rows that do not fill a vector register. With the
classes first it takes a fraction of the time, and turning the logits less than it saves. Where the
samples fill whole registers the numbers are the same, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._fused import MIN_LOGITS, wants_gradient_alone
from ._inputs import check_labels

# Below so many logits their softmax takes less than calling Python in the backward pass.
FEWEST_LOGITS = 2**12
REGISTER_BYTES = {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 0)


def are_few_classes(logits: Tensor, labels: Tensor) -> bool:
    """Tell whether the classes of logits (N, C) are few, and a first derivative is wanted.

    Args:
        logits: Of any shape.
        labels: Known to be 0 or more.
    """
    if logits.ndim != 2:
        return False
    samples, num_classes = logits.shape
    numbers = REGISTER_BYTES // logits.element_size()  # in a register
    return (
        num_classes < numbers
        and samples % numbers == 0
        and FEWEST_LOGITS <= samples * num_classes < MIN_LOGITS["softmax"]
        and labels.dtype == torch.int64
        and labels.shape == (samples,)
        and wants_gradient_alone(logits)
    )


class CrossEntropies(torch.autograd.Function):
    """Cross-entropies (N,) of logits (N, C) and labels (N,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        at = labels.unsqueeze(0)
        log_p = torch.log_softmax(logits.t(), dim=0)
        try:
            own = log_p.gather(0, at)
        except RuntimeError:
            check_labels(labels, logits.shape[1])
            raise
        ctx.save_for_backward(logits, at, log_p)
        return own.squeeze(0).neg_()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        logits, at, log_p = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient is to be differentiated in turn
            values = F.cross_entropy(logits, at[0], reduction="none")
            (gradient,) = torch.autograd.grad(values, logits, outer, create_graph=True)
            return gradient, None
        gradient = torch._log_softmax_backward_data(
            # Out of place, for several gradients at once.
            torch.zeros_like(log_p).scatter(0, at, outer[0].neg().unsqueeze(0)),
            log_p,
            dim=0,
            input_dtype=log_p.dtype,
        )
        return gradient.t().contiguous(), None
