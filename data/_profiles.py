"""Class counts of data sets that are long-tailed by nature, to be cut into others."""

from __future__ import annotations

import numpy as np

# Ranks, from 0 of the largest class to that of the smallest, and the training images there. Between
# them the logarithm of the count goes straight.
_POINTS: dict[str, tuple[tuple[int, int], ...]] = {
    # All 12 classes of module_metadata.json, github.com/RaptorMaps/InfraredSolarModules.
    "infrared_solar": tuple(
        enumerate((10_000, 1_877, 1_639, 1_499, 1_288, 1_056, 940, 827, 249, 246, 204, 175))
    ),
    # 21 of the 365 classes of Places_LT_train.txt (github.com/facebookresearch/
    # classifier-balancing); what lies between is off by at most 21 %, the sum by 1.5 %.
    "places_lt": (
        *((0, 4_980), (1, 2_612), (2, 2_400), (4, 1_530), (7, 1_380), (14, 689), (28, 431)),
        *((42, 318), (56, 263), (84, 188), (112, 128), (140, 97), (168, 78), (196, 60), (224, 44)),
        *((252, 34), (280, 23), (308, 15), (336, 9), (350, 7), (364, 5)),
    ),
    # Training images of the 14 super categories of iNaturalist 2018 (github.com/visipedia/
    # inat_comp).
    "inaturalist18_groups": tuple(
        enumerate(
            (
                *(143_950, 118_800, 87_192, 22_754, 20_104, 11_156, 8_007, 7_835, 6_864, 5_966),
                *(4_037, 621, 211, 16),
            )
        )
    ),
}


def profile_shares(profile: str, num_classes: int) -> np.ndarray:
    """Return what share (C,) of the largest class each class has, from 1 downwards.

    The profile's classes are laid side by side and cut into C equal pieces, each of which is one
    class: with fewer classes a piece is the mean of several of the profile's, with more it is a
    part of one, so that a tenth of the classes has the share of the images that it has there.

    >>> profile_shares("infrared_solar", 12)[[0, -1]].tolist()
    [1.0, 0.0175]
    """
    ranks, counts = np.array(_POINTS[profile], dtype=np.float64).T
    every = np.exp(np.interp(np.arange(ranks[-1] + 1), ranks, np.log(counts)))
    total = np.concatenate([[0.0], np.cumsum(every)])
    cuts = np.linspace(0, len(every), num_classes + 1)
    pieces = np.diff(np.interp(cuts, np.arange(len(total)), total))
    return np.round(pieces / pieces[0], 12)
