"""The hub from which timm downloads weights: whether it answers, and its client told if not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import timm
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

from ._wording import one_line

SECONDS = 5.0  # to wait for an answer


def trouble(model: str) -> str:
    """Ask the hub once for the weights of a model of timm; return why it does not answer, or "".

    Left alone, its client asks for two files six times each, and is a minute later where this is.
    """
    config = timm.get_pretrained_cfg(model)
    if constants.HF_HUB_OFFLINE or config is None or not config.hf_hub_id:
        return ""
    url = hf_hub_url(config.hf_hub_id.partition("@")[0], "model.safetensors")
    try:
        get_hf_file_metadata(url, timeout=SECONDS)
    except HfHubHTTPError:
        return ""  # it answers, if only to say that the file has another name
    except Exception as error:  # noqa: BLE001 - its client's, and those of two libraries below it
        return f"no answer from {constants.ENDPOINT}: {one_line(error)}"
    return ""


@contextlib.contextmanager
def offline(reason: str) -> Iterator[None]:
    """Have the hub's client look into its cache alone inside the block, if there is a reason to."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(reason)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
