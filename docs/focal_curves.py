"""Draw what gamma and alpha do: focal loss and its gradient against the probability it gives.

    python -m docs.focal_curves docs/focal.png

Every curve is the loss of losses/sigmoid_focal.py and its own gradient at one output. Above, the
output is a positive, and the same against p_t holds for a negative and for the softmax of
losses/softmax_focal.py; below, alpha tells positives from negatives.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    grid,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAMMAS = {0.0: INK, 0.5: BLUE, 1.0: GREEN, 2.0: ORANGE, 5.0: VERMILLION}
ALPHAS = {0.25: BLUE, 0.5: INK, 0.75: VERMILLION}
GAMMA_OF_ALPHAS = 2.0
POINTS = 400


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure into the file named."""
    parser = argparse.ArgumentParser(prog="python -m docs.focal_curves", description=__doc__)
    parser.add_argument("path", type=Path, help="a .png or .pdf file")
    path = parser.parse_args(argv).path
    path.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(path)
    return 0


def curve(
    *, gamma: float, alpha: float | None = None, positive: bool = True
) -> tuple[list[float], list[float], list[float]]:
    """Return the probability of a positive, the focal loss there, and its gradient's size."""
    import torch

    from losses.sigmoid_focal import sigmoid_focal_loss

    p = torch.linspace(0.002, 0.998, POINTS, dtype=torch.float64)
    logits = p.logit().requires_grad_()
    targets = torch.full_like(p, float(positive))
    values = sigmoid_focal_loss(logits, targets, gamma=gamma, alpha=alpha, reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return p.tolist(), values.tolist(), gradient.abs().tolist()


@styled
def draw() -> Figure:
    """Draw four panels: gamma above, alpha below; the loss left, its gradient right."""
    figure = new_figure(9.2, 7.0, title="Focal loss: what gamma and alpha do")
    (loss_gamma, slope_gamma), (loss_alpha, slope_alpha) = figure.subplots(2, 2)
    for gamma, colour in GAMMAS.items():
        p, values, slopes = curve(gamma=gamma)
        name = f"gamma = {gamma:g}" + (" (cross-entropy)" if gamma == 0 else "")
        loss_gamma.plot(p, values, color=colour, label=name)
        slope_gamma.plot(p, slopes, color=colour)
    for alpha, colour in ALPHAS.items():
        for positive, style in ((True, "-"), (False, "--")):
            p, values, slopes = curve(gamma=GAMMA_OF_ALPHAS, alpha=alpha, positive=positive)
            loss_alpha.plot(p, values, style, color=colour)
            slope_alpha.plot(p, slopes, style, color=colour)
    by_alpha = f"by alpha, at gamma = {GAMMA_OF_ALPHAS:g}"
    _label(loss_gamma, "Loss by gamma", what="loss", top=5)
    _label(slope_gamma, "Gradient by gamma", what="size of the gradient to the logit", top=1.4)
    _label(loss_alpha, f"Loss {by_alpha}", what="loss", top=3)
    _label(slope_alpha, f"Gradient {by_alpha}", what="size of the gradient to the logit", top=1)
    loss_gamma.legend()
    _explain_alphas(loss_alpha)
    for above, below in ((loss_gamma, loss_alpha), (slope_gamma, slope_alpha)):
        above.set_xlabel("p_t: probability given to what is true")
        below.set_xlabel("p: probability given to the positive")
    return figure


def _label(axes: Axes, title: str, *, what: str, top: float) -> None:
    axes.set_title(title)
    axes.set_ylabel(what)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)
    grid(axes, axis="both")


def _explain_alphas(axes: Axes) -> None:
    """Add a legend: a colour for each alpha, a line style for positives and negatives."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, label=f"alpha = {alpha:g}") for alpha, c in ALPHAS.items()]
    handles += [
        Line2D([], [], color=GREY, linestyle="-", label="positive, times alpha"),
        Line2D([], [], color=GREY, linestyle="--", label="negative, times 1 - alpha"),
    ]
    axes.legend(handles=handles, loc="upper center")


if __name__ == "__main__":
    raise SystemExit(main())
