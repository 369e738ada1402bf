"""Words of the field that are not keys, and what to write instead."""

from __future__ import annotations

from engine.config import components

METHODS = "experiments/methods"
# Files to put before other words, by the word that --help lists them with.
LISTS = {
    "methods": (METHODS,),
    "recipes": ("experiments/recipes", "experiments/photographs"),
}

# What another repository calls it, and how it is spelled here.
WORDS = {
    "adaptformer": "model.tune=adapter",
    "amp": "runtime.precision=auto",
    "arch": "model=NAME",
    "asl": "loss=asymmetric",
    "backbone": "model=NAME",
    "bce": "loss=binary_cross_entropy",
    "bf16": "runtime.precision=bfloat16",
    "bitfit": "model.tune=bias",
    "bsce": "loss=balanced_softmax",
    "bsm": "loss=balanced_softmax",
    "cb": "reweight=effective_number",
    "cb_focal": "loss=softmax_focal reweight=effective_number",
    "ce": "loss=cross_entropy",
    "crt": "model.init_from=RUN_FOLDER model.init_head=false model.freeze=true "
    "sampler=class_balanced",
    "dataset": "data=NAME",
    "deduplicate": "data.drop_duplicates=true data.near_duplicates=4",
    "drs": "sampler=class_balanced sampler.start=0.8",
    "drw": "reweight=effective_number reweight.start=0.8",
    "early_stopping": "schedule.patience=10",
    "drop_path_rate": "model.drop_path=0.1",
    "drop_rate": "model.drop=0.1",
    "eql": "loss=equalization",
    "few": "evaluate.metric=val/few_accuracy",
    "fp16": "runtime.precision=float16",
    "gcl": "loss=gaussian_clouded model.head=cosine",
    "gpu": "runtime.device=cuda",
    "groups": "evaluate.many_above=100 evaluate.few_below=20",
    "ib": "loss=influence_balanced",
    "imb_factor": "data.imbalance.factor=100",
    "imbalance": "data.imbalance.factor=100",
    "imbalance_ratio": "data.imbalance.factor=100",
    "kd": "loss=distillation teacher=RUN_FOLDER",
    "la": "loss=logit_adjustment",
    "las": "loss=label_aware_smoothing",
    "linear_probing": "model.tune=head model.pretrained=FILE",
    "llrd": "optim.layer_decay=0.75",
    "many": "evaluate.metric=val/many_accuracy",
    "medium": "evaluate.metric=val/medium_accuracy",
    "optimizer": "optim=NAME",
    "oracle": "evaluate.test_every_epoch=true",
    "scheduler": "schedule=NAME",
    "vpt": "model.tune=prompt",
    "vs": "loss=vector_scaling",
    "val_fraction": "data.validation.per_class=null data.validation.fraction=0.1",
    "val_size": "data.validation.per_class=null data.validation.fraction=0.1",
    "val_split": "data.validation.per_class=null data.validation.fraction=0.1",
    "tau": "evaluate.logit_adjustment=1, or loss=logit_adjustment loss.tau=1",
}


def advice(word: str) -> str:
    """Return what to write for a word of the field: a method file or keys; empty if unknown."""
    word = word.lower().replace("-", "_")
    file = f"{METHODS}/{word}.yaml"
    found = [file] if (components.ROOT / file).exists() else []
    found += [WORDS[word]] if word in WORDS else []
    return ", or ".join(found)


def files_of(kind: str) -> dict[str, str]:
    """Return ``{file: its first comment}`` of the ready-made files of a kind of :data:`LISTS`."""
    found = {}
    for folder in LISTS[kind]:
        for path in sorted((components.ROOT / folder).glob("*.yaml")):
            comment = []
            for line in path.read_text(encoding="utf-8").splitlines():
                if not line.startswith("#"):
                    break
                comment.append(line.lstrip("# "))
            found[f"{folder}/{path.name}"] = " ".join(comment)
    return found
