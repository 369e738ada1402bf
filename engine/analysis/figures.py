"""Figures of an analysis: every line has its own marker, so that none needs its colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.frames import LABELS, LEGEND, TOP, framed, save, widen
from engine.config.messages import counted
from engine.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    GROUP_COLOURS,
    INK,
    ORANGE,
    SKY,
    VERMILLION,
    grid,
    new_figure,
    shorten,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Section = Mapping[str, Any]
LINES = {
    "balanced": (INK, "-", "o"),
    "many": (GROUP_COLOURS["many"], "--", "s"),
    "medium": (GROUP_COLOURS["medium"], "-.", "D"),
    "few": (GROUP_COLOURS["few"], ":", "^"),
}
WAYS = {
    "marginal": (INK, "o"),
    "class-conditional": (BLUE, "s"),
    "prevalence-adjusted": (VERMILLION, "^"),
    "interpolated": (GREEN, "D"),
}
EVERY = 8
"""A marker stands on every so many points of a curve."""

CONFUSIONS_SHOWN = 15

TICKS, LINE, HEADING, GAP = 0.28, 0.17, 0.2, 0.7
"""Inches: tick labels, a second line under them, titles of axes, and between two scales."""


def draw(found: Section, folder: Path) -> list[Path]:
    """Draw all figures of an analysis into a folder as PNG, and return their paths."""
    title = f"{found['run']['title']} · {found['run']['loss']} · rule {found['run']['rule']}"
    over = "images" if found["run"]["num_test_groups"] is None else "groups"
    figures = {
        "tau_curve": tau_figure(found["logit_adjustment"], title=title),
        "reliability": reliability_figure(found["calibration"], title=title),
        "test_priors": prior_figure(found["test_priors"], title=title, over=over),
    }
    if "refused" not in found["prediction_sets"]:
        figures["prediction_sets"] = set_figure(found["prediction_sets"], title=title)
    if found["confusions"]["towards_the_head"]:
        figures["confusions"] = confusion_figure(found["confusions"], title=title)
    folder.mkdir(parents=True, exist_ok=True)
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


@styled
def tau_figure(section: Section, *, title: str) -> Figure:
    """Draw recall against tau: of validation, which chooses, or of test as an oracle."""
    chosen = section["chosen"]
    split = "test: an oracle, which chooses nothing" if chosen is None else "validation"
    figure = framed(7.2, 4.4, title=f"Recall against tau on {split} · {title}")
    (axes,) = figure.axes
    curve = section["oracle_curve" if chosen is None else "val_curve"]
    for name, (colour, dash, marker) in LINES.items():
        values = [np.nan if value is None else value for value in curve[name]]
        if np.isnan(values).all():
            continue
        axes.plot(
            section["taus"], values, label=name, color=colour, linestyle=dash, marker=marker,
            markevery=EVERY, markersize=4.5,
        )  # fmt: skip
    axes.axvline(section["own_tau"], color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        "as it is", (section["own_tau"], 0.01), xycoords=("data", "axes fraction"), fontsize=8,
        xytext=(3, 0), textcoords="offset points", color=GREY,
    )  # fmt: skip
    if chosen is not None:
        axes.axvline(chosen["tau"], color=INK, linewidth=1)
        axes.annotate(
            f"chosen, {chosen['tau']:.2f}", (chosen["tau"], 0.06), fontsize=8, color=INK,
            xycoords=("data", "axes fraction"), xytext=(-3, 0), textcoords="offset points",
            ha="right",
        )  # fmt: skip
        axes.plot(
            [chosen["tau"]], [chosen["test"]["balanced"]], linestyle="none", marker="*",
            markersize=13, color=ORANGE, markeredgecolor=INK, label="balanced on test there",
        )  # fmt: skip
    axes.set(xlabel="tau: how much of the training prior is taken out", ylabel="Mean recall")
    axes.set_ylim(top=1.02)
    figure.legend(loc="lower left", ncols=5)
    grid(axes, axis="y")
    return figure


@styled
def reliability_figure(section: Section, *, title: str) -> Figure:
    """Draw confidence less accuracy by bin for all images and each group, as is and scaled."""
    groups = {g: row for g, row in section["ways"]["as is"]["groups"].items() if row is not None}
    figure = framed(
        2.7 * len(groups) + 0.4, 3.6, title=f"Reliability on test by group · {title}",
        columns=len(groups), gap=0.3, below=LABELS + LINE + LEGEND, above=TOP + HEADING,
        shares_y=True,
    )  # fmt: skip
    axes_of = figure.axes
    marks = {"as is": (VERMILLION, "o", "full"), "temperature": (BLUE, "s", "none")}
    for axes, group in zip(axes_of, groups, strict=True):
        # Images picked by their true class lie off it even if the classifier is calibrated.
        if group == "all":
            axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
        ece: list[str] = []
        for name, (colour, marker, fill) in marks.items():
            if name not in section["ways"]:
                continue
            row = section["ways"][name]["groups"][group]
            bins = row["reliability"]
            size = 12 + 150 * np.sqrt(np.array(bins["images"]) / sum(bins["images"]))
            x, y = np.array([bins["confidence"], bins["accuracy"]], dtype=float)
            axes.plot(x, y, color=colour, linewidth=0.9, alpha=0.7)
            axes.scatter(
                x, y, s=size, marker=marker, edgecolors=colour,
                facecolors=colour if fill == "full" else "none", label=name, clip_on=False,
                zorder=3,
            )  # fmt: skip
            ece.append(f"{row['ece_equal_width']['ece']:.3f}")
        number = groups[group]["ece_equal_width"]["num_images"]
        axes.set(title=f"{group}: {counted(number, 'image')}", xlim=(0, 1), ylim=(0, 1))
        axes.set_xlabel(f"Confidence\nECE {', scaled '.join(ece)}")
        grid(axes, axis="both")
    axes_of[0].set_ylabel("Accuracy")
    figure.legend(*axes_of[0].get_legend_handles_labels(), loc="lower left", ncols=3)
    return figure


@styled
def prior_figure(section: Section, *, title: str, over: str) -> Figure:
    """Draw accuracy against the test prior, from a forward to a backward long tail.

    Args:
        section: of the analysis.
        title: what the run is.
        over: what the errors are over, ``images`` or ``groups``.
    """
    heading = f"Accuracy under other test priors · {title}"
    figure = framed(7.2, 4.0, title=heading, below=LABELS)
    (axes,) = figure.axes
    names = [row["prior"] for row in section["rows"]]
    places = np.arange(len(names))
    for way, label, colour, dash, marker in (
        ("as_is", "as it is", VERMILLION, "-", "o"),
        ("known", "prior known and corrected for", BLUE, "--", "s"),
    ):
        values = np.array([row[way]["value"] for row in section["rows"]])
        error = 1.96 * np.array([row[way]["error"] for row in section["rows"]])
        axes.plot(places, values, label=label, color=colour, linestyle=dash, marker=marker)
        axes.fill_between(places, values - error, values + error, color=colour, alpha=0.12)
    axes.set_xticks(places, [name.rpartition(" ")[2] for name in names])
    axes.set(
        ylabel="Accuracy", xlabel="← forward: as in training    factor    backward: tail first →"
    )
    axes.legend(loc="lower left", title=f"band: 95 % over {over}")
    grid(axes, axis="y")
    return figure


@styled
def set_figure(section: Section, *, title: str) -> Figure:
    """Draw coverage and mean size of the prediction sets by group."""
    promise = 1 - section["alpha"]
    heading = f"Prediction sets for {100 * promise:.4g} % on test · {title}"
    figure = framed(
        8.2, 3.8, title=heading, columns=2, gap=GAP, below=TICKS + LEGEND, above=TOP + HEADING
    )
    left, right = figure.axes
    first = next(iter(section["ways"].values()))
    groups = [name for name, row in first["groups"].items() if row is not None]
    for number, (name, (colour, marker)) in enumerate(WAYS.items()):
        rows = [section["ways"][name]["groups"][group] for group in groups]
        places = np.arange(len(groups)) + 0.16 * (number - 1.5)
        for axes, key, ends in ((left, "coverage", "interval"), (right, "size", "size_interval")):
            _draw_points(
                axes, places, [row[key] for row in rows], [row[ends] for row in rows],
                label=name, colour=colour, marker=marker,
            )  # fmt: skip
    left.axhline(promise, color=GREY, linestyle="--", linewidth=1)
    left.set(title="Coverage", ylabel="Share of images")
    right.set(title="Size", ylabel="Classes in a set")
    for axes in (left, right):
        axes.set_xticks(np.arange(len(groups)), groups)
        grid(axes, axis="y")
    figure.legend(*left.get_legend_handles_labels(), loc="lower left", ncols=4)
    return figure


def _draw_points(
    axes: Axes,
    places: np.ndarray,
    values: Sequence[float],
    ends: Sequence[Sequence[float]],
    *,
    label: str,
    colour: str,
    marker: str,
) -> None:
    """Draw values with their intervals."""
    middle, interval = np.array(values), np.array(ends)
    reach = np.abs(np.stack([middle - interval[:, 0], interval[:, 1] - middle]))
    axes.errorbar(
        places, middle, yerr=reach, linestyle="none", marker=marker, color=colour, label=label,
        markersize=5, elinewidth=1, capsize=2,
    )  # fmt: skip


@styled
def confusion_figure(section: Section, *, title: str) -> Figure:
    """Draw which classes lose most images to a more frequent one."""
    rows = section["towards_the_head"][:CONFUSIONS_SHOWN]
    height = 1.4 + 0.27 * len(rows)
    figure = new_figure(
        7.2, height, title=f"Share of a class taken for a more frequent one · {title}"
    )
    widen(figure)
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    shares = [row["share"] for row in rows]
    axes.barh(places, shares, color=SKY, edgecolor=INK, linewidth=0.6, height=0.7)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            counted(row["images"], "image"), (row["share"], place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    labels = [
        f"{shorten(row['true_name'], limit=24)} as {shorten(row['predicted_name'], limit=24)}"
        for row in rows
    ]
    axes.set_yticks(places, labels)
    axes.set(xlabel="Share of the class's test images", xlim=(0, 1.18 * max(shares)))
    grid(axes, axis="x")
    return figure
