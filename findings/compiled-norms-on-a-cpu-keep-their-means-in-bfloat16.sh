#!/usr/bin/env bash
# torch.compile on a CPU and maps in bfloat16, as autocast makes them: for the way back the compiled
# BatchNorm keeps mean and deviation of each channel in bfloat16, where torch's own kernel keeps them in
# float32. A mean of 10 is then off by up to 0.03, and each gradient of a scale by that much of the sum of
# all upstream gradients: where the deviation is 1 and upstream gradients do not cancel, it is wrong by
# more than its own size. GroupNorm and InstanceNorm are a fifth and a third off below. The forward pass
# is the same, so that no loss of a first step shows it. torch._decomp.decompositions has the reason:
# on a CPU statistics get the type of the input, whatever that of scales and offsets is. Casting the
# maps to float32 before the norm and back after it is right.
# Seen with torch 2.14.1, Python 3.11, Linux, x86-64. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.14.1 numpy setuptools
cat > norms.py <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
maps, upstream = 10 + torch.randn(64, 16, 8, 8), torch.rand(64, 16, 8, 8).bfloat16()
maps = maps.bfloat16()


class Cast(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, given):
        return self.norm(given.float()).to(given.dtype)


def scales(norm, forward, given):
    norm.zero_grad()
    forward(given).backward(upstream.to(given.dtype))
    return norm.weight.grad.double()


layers = {
    "BatchNorm2d": nn.BatchNorm2d(16),
    "GroupNorm": nn.GroupNorm(4, 16),
    "InstanceNorm2d": nn.InstanceNorm2d(16, affine=True),
}
for name, norm in layers.items():
    found = {
        "eager": scales(norm, norm, maps),
        "compiled": scales(norm, torch.compile(norm), maps),
        "cast and compiled": scales(norm, torch.compile(Cast(norm)), maps),
    }
    exact = scales(norm.double(), norm, maps.double())
    for way, value in found.items():
        error = ((value - exact).norm() / exact.norm()).item()
        is_right = way != "compiled"
        print(f"{name}, {way}: {error:.1e}", "" if (error < 1e-3) == is_right else "CHANGED")
PYTHON
venv/bin/pip list 2> /dev/null | grep -E "^torch "
echo "relative error of the gradient of the scales, against float64"
found=$(TORCHINDUCTOR_CACHE_DIR=$folder/cache venv/bin/python -W ignore norms.py 2> /dev/null)
echo "$found"
[[ $(wc -l <<< "$found") == 9 && $found != *CHANGED* ]]
