"""The bench of large tails: what it draws is what it says."""

from __future__ import annotations

import data
from benchmarks.scale import Listed, long_tail


def test_no_pixels_of_the_drawn_list_are_compared() -> None:
    """They are all the same, so that comparing them would find nothing but copies."""
    dataset = data.build(
        Listed(long_tail(20_000, num_classes=50)),
        imbalance=data.Imbalance(kind="none"),
        validation=data.Validation(per_class=None, fraction=0.1),
    )
    assert dataset.source_notes == ()
