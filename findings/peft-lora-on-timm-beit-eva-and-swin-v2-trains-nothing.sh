#!/usr/bin/env bash
# PEFT's LoRA on the qkv layers of timm's models: in a ViT and in Swin the model calls the layers that were replaced.
# BEiT, BEiT v2, EVA-02 tiny and Swin V2 take self.qkv.weight and hand it to F.linear with a bias of their own. PEFT's
# layer answers with the weight of the layer it replaced, so that the model runs and its adapters are out of it: they
# are trainable parameters, have no gradient (None), keep their zeros, and only the classifier learns. Nothing warns
# or raises. Adapters filled with anything change no logit until they are merged: then they do.
# A look at gradients after one backward pass tells.
# Seen with peft 0.21.2, timm 1.0.31, torch 2.14.1, Python 3.11, Linux. Exit code 0 while that is so, else 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 peft==0.21.2 \
  2> /dev/null
cat > adapters.py <<'PYTHON'
import sys

import timm
import torch
from peft import LoraConfig, get_peft_model

EXPECTED = {
    "vit_tiny_patch16_224": "called",
    "swin_tiny_patch4_window7_224": "called",
    "beit_base_patch16_224": "passed over",
    "beitv2_base_patch16_224": "passed over",
    "eva02_tiny_patch14_224": "passed over",
    "swinv2_tiny_window8_256": "passed over",
}
found = {}
for name in EXPECTED:
    torch.manual_seed(0)
    base = timm.create_model(name, pretrained=False, num_classes=5)
    with torch.no_grad():  # No layer scale or norm that begins at zero hides a change.
        for parameter in base.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["qkv"], modules_to_save=["head"])).eval()
    images, labels = torch.randn(2, *base.pretrained_cfg["input_size"]), torch.tensor([0, 1])
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    second = [p for n, p in trainable if "lora_B" in n]
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    without = sum(p.grad is None for n, p in trainable if "lora_" in n)
    head = all(p.grad is not None for n, p in trainable if "lora_" not in n)
    with torch.no_grad():
        before = model(images)
        for parameter in second:
            parameter.normal_()
        apart = (model(images) - before).abs().max().item()
        merged = (model.merge_and_unload()(images) - before).abs().max().item()
    print(
        f"{name}: {2 * len(second)} adapter matrices, {without} without a gradient, head learns {head}; "
        f"filled with noise they change logits by {apart:.1g}, merged by {merged:.1g}"
    )
    if head and merged > 1e-3:
        if without == 0 and apart > 1e-3:
            found[name] = "called"
        elif without == 2 * len(second) and apart == 0:
            found[name] = "passed over"
sys.exit(found != EXPECTED)
PYTHON
venv/bin/pip list 2> /dev/null | grep -E "^(peft|timm|torch) "
venv/bin/python adapters.py
