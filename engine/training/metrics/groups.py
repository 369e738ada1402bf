"""Classes with many, medium and few training images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MANY_ABOVE = 100
FEW_BELOW = 20


def few_shot_groups(class_counts: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return masks (C,) of many- (> 100), medium- (20..100), few-shot (< 20 images) classes.

    Liu et al. (2019), "Large-Scale Long-Tailed Recognition in an Open World", section 4. The groups
    are disjoint; a class without training images is in none.

    >>> {name: mask.tolist() for name, mask in few_shot_groups(np.array([101, 100, 19])).items()}
    {'many': [True, False, False], 'medium': [False, True, False], 'few': [False, False, True]}
    """
    many, few = class_counts > MANY_ABOVE, class_counts < FEW_BELOW
    return {"many": many, "medium": ~(many | few), "few": few & (class_counts > 0)}
