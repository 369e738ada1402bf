#!/usr/bin/env bash
# On a CPU with AVX-512 the logarithms of a softmax over 10 classes, those of CIFAR-10, MNIST or digits, take four to
# five times as long as over 16, though there are fewer. Where a row does not fill a vector register (16 float32 with
# AVX-512, 8 with AVX2), torch goes through it number by number: 15 classes are the dearest, 7 with AVX2. With the
# classes first (the same numbers transposed, softmax over dimension 0) 10 classes are as cheap as one would expect.
# Seen with torch 2.14.1, Python 3.11, Linux x86-64, AVX-512 and AVX2. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > classes.py <<'PYTHON'
import statistics
import time

import torch

torch.set_num_threads(1)
samples, full = 128, {"AVX512": 16, "AVX2": 8}[torch.backends.cpu.get_cpu_capability()]


def microseconds(call):
    found = []
    for _ in range(9):
        start = time.process_time()
        for _ in range(2000):
            call()
        found.append((time.process_time() - start) / 2000 * 1e6)
    return statistics.median(found)


times = {}
for classes in (full // 2 + 2, full - 1, full):
    logits = torch.randn(samples, classes)
    turned = logits.t().contiguous()
    assert torch.allclose(logits.log_softmax(1), turned.log_softmax(0).t())
    rows, columns = microseconds(lambda: logits.log_softmax(1)), microseconds(lambda: turned.log_softmax(0))
    times[classes] = rows
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}: {samples} rows of {classes} classes "
        f"{rows:.1f} us, with the classes first {columns:.1f} us"
    )
assert times[full - 1] > 2 * times[full], times
PYTHON
venv/bin/python classes.py
ATEN_CPU_CAPABILITY=avx2 venv/bin/python classes.py
