#!/usr/bin/env bash
# torch.compile gives up on a function that it has compiled eight times for inputs it did not foresee,
# which is how a loop of ever new shapes is noticed: a warning, then the function as it is. After
# `import timm.optim` the limit is a million in the whole process, for every model: the module of the
# optimizer Kron sets it when it is imported, whether Kron is used or not. The same training loop with
# ten shapes stops compiling after the eighth without that import and compiles all ten with it.
# The import also brings torch._dynamo, which torch alone leaves for later.
# Seen with timm 1.0.31, torch 2.14.1, Python 3.11, Linux. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy
cat > shapes.py <<'PYTHON'
import sys

import torch

is_early = "torch._dynamo" in sys.modules
if "timm.optim" in sys.argv:
    import timm.optim
brings_dynamo = "torch._dynamo" in sys.modules and not is_early
compiled = 0


def count(graph, _inputs):
    global compiled
    compiled += 1
    return graph.forward


step = torch.compile(lambda x: (x * 2).sum(), backend=count, dynamic=False)
for size in range(2, 12):
    step(torch.ones(size))
print(torch._dynamo.config.recompile_limit, compiled, brings_dynamo)
PYTHON
alone=$(venv/bin/python -W ignore shapes.py 2> /dev/null)
imported=$(venv/bin/python -W ignore shapes.py timm.optim 2> /dev/null)
venv/bin/pip list 2> /dev/null | grep -E "^(torch|timm) "
echo "limit, times compiled of ten, whether the import brought torch._dynamo"
echo "torch alone:       $alone"
echo "import timm.optim: $imported"
[[ $alone == "8 8 False" && $imported == "1000000 10 True" ]]
