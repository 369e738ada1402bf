"""Arguments of timm's constructors, and whether a model has them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

# What every model is told here, or timm's factory itself takes.
SET_HERE = ("model_name", "pretrained_cfg", "in_chans", "num_classes", "img_size", "norm_layer")
# Arguments with a config key of their own, and what a model without them has not.
KEYS = {
    "drop_rate": ("model.drop", "dropout"),
    "drop_path_rate": ("model.drop_path", "stochastic depth"),
}
# Where weights are made and kept, which is the run's to say.
PLACES = ("device", "dtype")


def unknown_argument(asked: Iterable[str], built: type, *, model: str) -> str | None:
    """Say which argument a constructor does not name, and which it does; None if it names all.

    A constructor that passes on whatever it is given (``**kwargs``) is left to judge by itself.

    Args:
        asked: Names of the arguments.
        built: The class of the model.
        model: Its name in timm.
    """
    taken = inspect.signature(built).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return None
    names = [p.name for p in taken if p.name == "norm_layer" or p.name not in SET_HERE]
    for name in asked:
        if name in names:
            continue
        if name in KEYS:
            key, what = KEYS[name]
            return f"{key}: has no effect, {model} has no {what}; set it to 0"
        others = [other for other in names if other not in (*KEYS, *PLACES)]
        close = difflib.get_close_matches(name, others, n=1)
        near = f" (did you mean {close[0]}?)" if close else ""
        return f"model.kwargs.{name}: {model} takes no {name}{near}; it takes {', '.join(others)}"
    return None
