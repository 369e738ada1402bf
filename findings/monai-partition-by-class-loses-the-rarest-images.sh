#!/usr/bin/env bash
# monai.data.partition_dataset_classes splits each class by itself, so that partitions have the same share of every
# class. With ratios it rounds each part of each class to the nearest image, and what the parts do not add up to is in
# no partition. Five equal folds of a class of two images: 2/5 rounds to 0 five times, and both images are in none,
# for any seed; a class of eight is 2, 2, 2, 2 and 0. Nothing warns. Of ten classes from 108 images down to 2, five
# folds lose 4 of 301 images and the rarest class altogether, ten folds 7 images and the two rarest classes; 8:1:1
# loses a third of the class of three. Without ratios, num_partitions=5 refuses a class of fewer images than folds.
# Seen with monai 1.6.1, torch 2.14.1, Python 3.11, Linux. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check monai==1.6.1 torch==2.14.1 numpy==2.4.6 2> /dev/null
cat > folds.py <<'PYTHON'
from collections import Counter

import monai
import torch
from monai.data import partition_dataset_classes

print("monai", monai.__version__, "torch", torch.__version__)
counts = [round(108 * 50 ** (-c / 9)) for c in range(10)]
labels = [c for c, count in enumerate(counts) for _ in range(count)]
images = list(range(len(labels)))
print("images a class:", counts)
lost = {}
for ratios in ([1, 1, 1, 1, 1], [0.6, 0.2, 0.2], [8, 1, 1], [1] * 10):
    for seed in range(20):
        parts = partition_dataset_classes(images, labels, ratios=ratios, shuffle=True, seed=seed)
        kept = Counter(labels[i] for part in parts for i in part)
        of_classes = [count - kept[c] for c, count in enumerate(counts)]
        assert lost.setdefault(str(ratios), of_classes) == of_classes
    rows = {counts[c]: [sum(labels[i] == c for i in part) for part in parts] for c in range(10)}
    print(f"ratios {ratios}: {sum(of_classes)} of {len(images)} in no part, by class {of_classes}")
    print(f"    parts of the class of eight {rows[8]}, of two {rows[2]}")
try:
    partition_dataset_classes(images, labels, num_partitions=5)
    refused = False
except RuntimeError as error:
    refused = True
    print("num_partitions=5:", error)
assert [sum(of_classes) for of_classes in lost.values()] == [4, 2, 1, 7], lost
assert lost["[1, 1, 1, 1, 1]"][-1] == 2 and lost[str([1] * 10)][-2:] == [3, 2] and refused
PYTHON
venv/bin/python -W ignore folds.py 2> /dev/null
