"""The classes of a data set in label order, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.config.messages import one_line


def class_list(class_names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a heading and a line a class: label, images of each split, name.

    Args:
        class_names: C names in label order.
        counts: C numbers of images by split.
    """
    rows = [("label", *counts, "class")]
    for label, (name, *numbers) in enumerate(zip(class_names, *counts.values(), strict=True)):
        rows.append((str(label), *map(str, numbers), one_line(name)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
