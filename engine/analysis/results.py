"""All of an analysis of one run, section by section, as plain numbers for a file.

Whatever is chosen or fitted is so on validation and then shown on test once. Without validation the
choice is refused in words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.analysis import conformal, confusions, scaling
from engine.analysis.adjustment import TAUS, TauCurve, offsets_of, tau_curve
from engine.analysis.blocks import Doubles, argmax_with
from engine.analysis.calibration_results import calibration_section, threshold_section
from engine.analysis.classifier_results import classifier_section
from engine.analysis.comparison import recall_differences
from engine.analysis.groups import GROUPS, LINES, REFUSED, defined
from engine.analysis.prior_results import prior_section, shift_section
from engine.analysis.set_results import set_section
from engine.analysis.stored_run import Part, StoredRun
from engine.analysis.superclasses import Superclasses, Within, superclass_counts, within
from engine.report.cluster_bootstrap import FEW

Section = dict[str, Any]
Counts = npt.NDArray[np.int64]


def analyse(
    run: StoredRun,
    *,
    alpha: float = conformal.ALPHA,
    superclasses: Superclasses | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Section:
    """Return every section of the analysis, which JSON can hold; None stands for undefined.

    Args:
        run: from :func:`engine.analysis.stored_run.read_stored_run`.
        alpha: Share of images that a prediction set may miss.
        superclasses: Which classes belong together, where that is known.
        say: Told what is being done.
    """
    found: Section = {"run": about(run)}
    for name, section in (
        ("logit_adjustment", adjustment_section),
        ("calibration", calibration_section),
        ("thresholds", threshold_section),
        ("test_priors", prior_section),
        ("label_shift", shift_section),
        ("classifiers", classifier_section),
    ):
        say(name.replace("_", " "))
        found[name] = section(run)
    say("confusions")
    found["confusions"] = confusion_section(run, superclasses=superclasses)
    say("prediction sets")
    return {**found, "prediction_sets": set_section(run, alpha=alpha)}


def about(run: StoredRun) -> Section:
    """Return what the numbers are of, and on what they rest."""
    num_groups = run.test.num_groups
    over = "test images" if num_groups is None else f"{num_groups:,} groups of test images"
    notes = [
        "the training prior is taken to be the shares of the training images; weights, samplers "
        "and losses that balance classes change what a model's probabilities carry",
        f"intervals and errors are over {over}, with the model held: other seeds vary more",
    ]
    if num_groups is not None:
        notes.append("chance and the promise of prediction sets take images to be independent")
        if num_groups < FEW:
            notes.append(
                f"intervals of calibration errors over fewer than {FEW} groups are too narrow"
            )
    notes += run.limits.notes
    chosen = run.summary.rules[run.rule]
    if run.val is not None and run.rule != "last":
        notes.append(f"validation chose epoch {chosen.epoch}, too: its numbers are a little good")
    return {
        "title": run.summary.title,
        "folder": str(run.folder),
        "fingerprint": run.summary.fingerprint,
        "group": run.summary.group,
        "seed": run.summary.seed,
        "loss": run.config.loss.name,
        "rule": run.rule,
        "epoch": chosen.epoch,
        "split_fingerprint": run.summary.split_fingerprint,
        "former_fingerprints": list(run.summary.former_fingerprints),
        "own_tau": run.tau,
        "class_counts": run.class_counts.tolist(),
        "class_names": list(run.class_names),
        "group_sizes": {g: int(m.sum()) for g, m in run.masks.items() if g in GROUPS},
        "many_above": run.limits.many_above,
        "few_below": run.limits.few_below,
        "num_test": len(run.test.targets),
        "num_test_groups": num_groups,
        "num_val": 0 if run.val is None else len(run.val.targets),
        "notes": notes,
    }


# --- logit adjustment -----------------------------------------------------------------------------


def adjustment_section(run: StoredRun) -> Section:
    """Choose tau on validation and show test there; else draw the curve of test, an oracle."""
    own, counts = run.tau, run.class_counts
    taus = np.union1d(TAUS, [own])
    on_test = _curve(run, run.test, taus=taus)
    best = on_test.best()
    oracle = {"tau": float(taus[best]), "test": {g: on_test.of(g)[best] for g in LINES}}
    as_is = {g: on_test.of(g)[on_test.at(own)] for g in LINES}
    found: Section = {"own_tau": own, "as_is": as_is, "oracle": oracle, "taus": taus.tolist()}
    if run.val is None:
        curve = {g: on_test.of(g) for g in LINES}
        return {**found, "chosen": None, "refused": REFUSED, "oracle_curve": curve}
    on_val = _curve(run, run.val, taus=taus)
    place = on_val.best()
    log_probabilities, targets = run.test.log_probabilities, run.test.targets
    before, after = argmax_with(log_probabilities, offsets_of(counts, np.array([own, taus[place]])))
    gain = recall_differences(
        before == targets, after == targets, targets, masks=run.masks, groups=run.test.groups
    )
    chosen = {
        "tau": float(taus[place]),
        "val": {g: on_val.of(g)[place] for g in LINES},
        "test": {g: on_test.of(g)[place] for g in LINES},
        "gain": {g: None if change is None else list(change) for g, change in gain.items()},
    }
    return {**found, "chosen": chosen, "val_curve": {g: on_val.of(g) for g in LINES}}


def _curve(run: StoredRun, part: Part, *, taus: Doubles) -> TauCurve:
    return tau_curve(
        part.log_probabilities, part.targets, run.class_counts, taus=taus, limits=run.limits
    )


# --- confusions -----------------------------------------------------------------------------------


def confusion_section(run: StoredRun, *, superclasses: Superclasses | None = None) -> Section:
    """Return where the images of each group go, who takes whose, and the surest mistakes."""
    targets, names = run.test.targets, run.class_names
    found = scaling.confidences(run.evaluated_test, targets)
    counts = confusions.confusion_counts(targets, found.predicted, num_classes=len(names))
    groups = {name: run.masks[name] for name in GROUPS}
    flows = confusions.between_groups(counts, groups)
    taken = confusions.towards_the_head(counts, run.class_counts)
    by_superclass = {} if superclasses is None else _by_superclass(run, counts, superclasses)
    return {
        **by_superclass,
        "groups": {
            name: dict(zip(("right", *GROUPS), defined(row), strict=True))
            for name, row in flows.items()
        },
        "towards_the_head": [
            {**row._asdict(), "true_name": names[row.true], "predicted_name": names[row.predicted]}
            for row in taken
        ],
        "surest_mistakes": [
            {
                "position": place,
                "index": int(run.test.index[place]),
                "true": names[targets[place]],
                "predicted": names[found.predicted[place]],
                "confidence": float(found.confidence[place]),
            }
            for place in confusions.surest_mistakes(found, targets).tolist()
        ],
    }


def _by_superclass(run: StoredRun, counts: Counts, known: Superclasses) -> Section:
    """Return how many images stay within their superclass, by group and by superclass."""
    images = superclass_counts(counts, known.of)
    rows = []
    for number, name in enumerate(known.names):
        found = within(counts, known.of, classes=known.of == number)
        others = np.delete(images[number], number)
        most = int(np.delete(np.arange(len(known.names)), number)[others.argmax()])
        rows.append(
            {
                "superclass": name,
                "classes": int((known.of == number).sum()),
                "train_images": int(run.class_counts[known.of == number].sum()),
                **(dict.fromkeys(Within._fields) if found is None else found._asdict()),
                "mostly_taken_for": known.names[most] if others.max() > 0 else None,
            }
        )
    by_group = {name: within(counts, known.of, classes=mask) for name, mask in run.masks.items()}
    return {
        "superclasses": rows,
        "within_superclass": {
            name: None if found is None else found._asdict() for name, found in by_group.items()
        },
        "superclass_counts": images.tolist(),
    }
