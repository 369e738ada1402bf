"""The classes of a data set in label order, as lines of text."""

from __future__ import annotations

import data
from engine.config.messages import one_line


def class_list(dataset: data.LongTailed) -> list[str]:
    """Return a heading and a line a class: label, training, validation and test images, name."""
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    there = {name: split for name, split in splits.items() if split is not None}
    counts = [
        split.targets.bincount(minlength=dataset.num_classes).tolist() for split in there.values()
    ]
    rows = [("label", *there, "class")]
    for label, (name, *numbers) in enumerate(zip(dataset.class_names, *counts, strict=True)):
        rows.append((str(label), *map(str, numbers), one_line(name)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
