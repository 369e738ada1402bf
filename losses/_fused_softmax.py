"""Value and gradient of losses that are a function of each sample's cross-entropy."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._adjustment import Adjustment
from ._fused import Made
from ._inputs import check_labels
from ._terms import SampleTerm

# From so many logits on a batch is finished part by part: what that spares in memory is more than
# starting twenty small operations costs.
MIN_PARTED = 2**18
# Logits of a part for each thread: so many that two dozen operations on its (n,) samples do not
# count, so few that those on its (n, ...) pixels stay small beside the gradient. More parts would
# also be more often that threads wait for each other.
PART = 2**21
# A probability below this may have lost digits to underflow, and its logarithm with them.
TINY = 1e-30
REGISTER_BYTES = {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 0)


class Samples(NamedTuple):
    """Labels of samples, which of them do not count, and what else their losses depend on."""

    labels: Tensor  # (N, ...) int64
    ignore_index: int
    factor: Tensor | None  # (N, ...), as are the others
    power: Tensor | None
    size: Tensor | None

    def part(self, rows: slice) -> Samples:
        """Return some of the samples."""
        values = (None if value is None else value[rows] for value in self[2:])
        return Samples(self.labels[rows], self.ignore_index, *values)


def classes_go_first(logits: Tensor) -> bool:
    """Tell whether logits (N, C) have few classes, and samples that fill vector registers.

    PyTorch's softmax goes number by number through rows that do not fill a register. With the
    classes first it takes a fraction of the time, and turning the logits less than it saves. Where
    the samples fill whole registers the numbers are the same, bit for bit.
    """
    numbers = REGISTER_BYTES // logits.element_size()  # in a register
    return logits.shape[1] < numbers and logits.shape[0] % numbers == 0


def softmax_in_parts(
    logits: Tensor,
    samples: Samples,
    *,
    term: SampleTerm,
    adjustment: Adjustment,
    divisor: Tensor | int,
) -> Made:
    """Return the sum of term(CE_i) over the samples that count / divisor.

    The gradient with respect to adjusted logits is softmax - onehot times a slope of each sample,
    the derivative of `term` by the cross-entropy.

    Raises:
        IndexError: For a label out of range.
    """
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    total = torch.zeros((), dtype=torch.float64)
    step = max(1, PART * torch.get_num_threads() // logits[0].numel())
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        part, out = samples.part(rows), gradient[rows]
        valid = part.labels != part.ignore_index
        labels = torch.where(valid, part.labels, 0)
        check_labels(labels, logits.shape[1])
        nll = _softmax_into(out, logits[rows], labels, adjustment=adjustment)
        values, slope = term.of(nll.where(valid, 0), *part[2:], with_slope=True)
        assert slope is not None
        total += values.where(valid, 0).sum()
        slope = torch.where(valid, slope, 0).to(nll)
        at = labels.unsqueeze(1)
        out.scatter_add_(1, at, out.new_tensor(-1.0).expand(at.shape))
        if isinstance(adjustment.scale, Tensor):
            out *= adjustment.factor(out)
        elif adjustment.scale is not None:
            slope *= adjustment.scale
        out.mul_(slope.div_(divisor).unsqueeze(1))
        hole = nll.isnan() & ~valid  # the softmax of such logits is NaN, and so is 0 times that
        if hole.any():
            out.masked_fill_(hole.unsqueeze(1), 0)
    return Made((total / divisor).to(logits.dtype), gradient)


def _softmax_into(out: Tensor, logits: Tensor, labels: Tensor, *, adjustment: Adjustment) -> Tensor:
    """Write the softmax of logits (n, C, ...) to `out`; return the cross-entropies, (n, ...)."""
    at = labels.unsqueeze(1)
    adjusted = adjustment.into(out, logits, labels)
    if logits.ndim > 2:
        # Over a dimension that is not the last, softmax takes twice as long as log_softmax.
        torch.log_softmax(adjusted, dim=1, out=out)
        nll = -out.gather(1, at).squeeze(1)
        out.exp_()
        return nll
    torch.softmax(adjusted, dim=1, out=out)
    likelihood = out.gather(1, at).squeeze(1)
    nll = -likelihood.log()
    tiny = likelihood < TINY
    if tiny.any():
        again = adjustment.of(logits[tiny], labels[tiny])
        nll[tiny] = F.cross_entropy(again, labels[tiny], reduction="none")
    return nll
