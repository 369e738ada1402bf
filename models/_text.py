"""Directions of classes by their names, from the text encoder of a CLIP."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._backbone import LOADING_ERRORS, ModelError, unlogged
from ._weights_file import read_state
from ._wording import one_line

PACKAGE = "open_clip_torch"  # an extra: nothing else needs it


@torch.no_grad()
def text_directions(
    class_names: Sequence[str], *, encoder: str, model: str, prompt: str, num_features: int
) -> Tensor:
    """Return the direction (C, num_features) of each class in the features of images.

    The embeddings of a CLIP compare text with images after a projection of either. A backbone gives
    features before it, into which embeddings are taken back by its transpose (as LIFT does); one
    that gives as many features as there are embedded is compared as it is.

    Args:
        class_names: In label order.
        encoder: File of the whole CLIP's weights.
        model: Its name in open_clip.
        prompt: What is embedded; ``{}`` stands for the name.
        num_features: Of the backbone.

    Raises:
        ModelError: In one line: open_clip is not installed, knows no such model, the file is not of
            it, or the embeddings do not fit the features.
    """
    try:
        open_clip: Any = importlib.import_module("open_clip")
    except ImportError as error:
        raise ModelError(
            f"model.head_init=text: needs open_clip, which is not installed: pip install {PACKAGE}"
        ) from error
    if model not in (known := open_clip.list_models()):
        near = difflib.get_close_matches(model, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "open_clip.list_models() lists them"
        raise ModelError(f"model.text_model={model} is not a model of open_clip: {hint}")
    file = Path(encoder).expanduser()
    if not file.is_file():
        raise ModelError(
            f"model.text_encoder={encoder} is not a file: give one of weights of {model}"
        )
    try:
        with unlogged():
            clip = open_clip.create_model(model, pretrained=None)
        clip.load_state_dict(read_state(file))
        tokens = open_clip.get_tokenizer(model)([prompt.replace("{}", n) for n in class_names])
        embedded: Tensor = clip.eval().encode_text(tokens, normalize=True)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"model.text_encoder={encoder}: is no file of {model} ({one_line(error)})"
        ) from error
    return _in_features(embedded, clip, model=model, num_features=num_features)


def _in_features(embedded: Tensor, clip: Any, *, model: str, num_features: int) -> Tensor:
    if embedded.shape[1] == num_features:
        return embedded
    projection = getattr(clip.visual, "proj", None)
    if isinstance(projection, Tensor) and projection.shape[0] == num_features:
        return embedded @ projection.T
    raise ModelError(
        f"model.text_model={model}: embeds in {embedded.shape[1]} numbers, the backbone gives "
        f"{num_features} features; choose the CLIP that the backbone is of"
    )
