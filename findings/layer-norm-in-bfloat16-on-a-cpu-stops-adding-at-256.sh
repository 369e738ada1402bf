#!/usr/bin/env bash
# LayerNorm on a CPU, maps in bfloat16, scales and offsets in float32 as under autocast: the gradient
# of an offset is the sum of the rows' upstream gradients. torch adds them up in bfloat16, a sum for
# each thread, in which 256 + 1 is 256. For 65,536 rows of ones it is 256 with one thread and 512 with
# two. Gradients of scales were 5 to 10 % off for 4,096 rows, and with float16 sums stop at 2,048. Under
# autocast CUDA runs the layer in float32; a CPU does not. In timm 1.0.31 under autocast all 29 norms of
# swin_tiny and 13 of 17 of convnext_atto get maps in bfloat16 (those of a ViT are float32, by its
# position embedding). BatchNorm, GroupNorm and RMSNorm with scales were right: they sum in float32.
# Seen with torch 2.14.1, Python 3.11, Linux, x86-64. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.14.1 numpy
cat > norm.py <<'PYTHON'
import torch
from torch import nn

rows = 65_536
for threads in (1, 2):
    torch.set_num_threads(threads)
    for layer in (nn.LayerNorm(8), nn.GroupNorm(1, 8), nn.RMSNorm(8)):
        maps = torch.randn(rows, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
        layer(maps).backward(torch.ones(rows, 8, dtype=torch.bfloat16))
        if hasattr(layer, "bias"):
            name = type(layer).__name__
            print(f"{threads} {name} {layer.bias.dtype} {layer.bias.grad[0].item():.0f}")
PYTHON
venv/bin/pip list 2> /dev/null | grep -E "^torch "
echo "threads, layer, its offsets, gradient of the first of them (65536 is right)"
found=$(venv/bin/python -W ignore norm.py 2> /dev/null)
echo "$found"
[[ $found == "1 LayerNorm torch.float32 256
1 GroupNorm torch.float32 65536
2 LayerNorm torch.float32 512
2 GroupNorm torch.float32 65536" ]]
