"""Checks that every loss of this package has to pass, and one of your own can be put through.

    python -m losses.conformance                          every loss of the package
    python -m losses.conformance softmax_focal ldam       some of them
    python -m losses.conformance my_package.my_file:MyLoss    one of yours

A check is a small function that takes a `Subject`, a loss that can be built and called, and raises
`Failed` with a sentence if the loss does not keep what the check is about, `NotApplicable` if that
has no meaning for the loss. Its name and its one-sentence docstring, which says what it would
catch, are what the report shows. `CHECKS` has them all; the project's tests run the same functions.

A loss need state nothing: it is any `torch.nn.Module` called as `loss(logits, targets)`, better a
`losses.Loss`, whose class facts say more about it. See losses/README.md.

This is a folder, with neither pytest nor anything but torch in it, so that it goes along when
losses/ is copied, and so that nobody who lists the files of losses/ takes it for a loss.
"""

from __future__ import annotations

from ._outcomes import Outcome, examine
from ._subject import Failed, NotApplicable, Subject, SubjectError, find_subject, own_subjects
from ._suite import CHECKS, SLOW_CHECKS, Check

__all__ = [
    "CHECKS",
    "SLOW_CHECKS",
    "Check",
    "Failed",
    "NotApplicable",
    "Outcome",
    "Subject",
    "SubjectError",
    "examine",
    "find_subject",
    "own_subjects",
]
