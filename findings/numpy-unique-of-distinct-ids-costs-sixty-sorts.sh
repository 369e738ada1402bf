#!/usr/bin/env bash
# How many different images does a list name? np.unique of their 64-bit ids was one sort up to NumPy 2.2. Since 2.3
# whole numbers go through a hash table and are sorted afterwards. Of a million ids that all differ, which is what ids
# do, that takes fifty to sixty times as long, and five to six times as long as the same call with return_index=True,
# which asks for more and still sorts. np.sort and a look at neighbours is back at the former time.
# Seen with numpy 2.2.6 and 2.4.6, Python 3.11, Linux x86-64. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > ids.py <<'PYTHON'
import statistics
import time

import numpy as np

ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 1_300_000)


def seconds(call):
    found = []
    for _ in range(7):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found)


plain = seconds(lambda: np.unique(ids))
indexed = seconds(lambda: np.unique(ids, return_index=True))
assert np.array_equal(np.unique(ids), np.unique(ids, return_index=True)[0])
print(f"numpy {np.__version__}: unique {plain:.3f} s, with return_index {indexed:.3f} s: {plain / indexed:.1f}")
PYTHON
for version in 2.2.6 2.4.6; do
  python3 -m venv "venv-$version"
  "venv-$version/bin/pip" install --quiet --disable-pip-version-check "numpy==$version"
  "venv-$version/bin/python" ids.py | tee "$version.txt"
done
ratio() { sed 's/.*: //' "$1.txt"; }
awk -v old="$(ratio 2.2.6)" -v new="$(ratio 2.4.6)" 'BEGIN { exit !(old < 1 && new > 2) }'
