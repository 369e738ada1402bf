"""Arguments of timm's constructors, and whether a model has them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

# What every model is told here, or timm's factory itself takes.
SET_HERE = ("model_name", "pretrained_cfg", "in_chans", "num_classes", "img_size", "norm_layer")
# Arguments with a config key of their own.
KEYS = {"drop_rate": "model.drop", "drop_path_rate": "model.drop_path"}


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
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            near = f" (did you mean {close[0]}?)" if close else ""
            key = KEYS.get(name, f"model.kwargs.{name}")
            return f"{key}: {model} takes no {name}{near}; it takes {', '.join(names)}"
    return None
