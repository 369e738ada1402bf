"""Backbones from timm's registry, built for the images at hand."""

from __future__ import annotations

import contextlib
import difflib
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from timm.models import resolve_model_input_args
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import _hub
from ._adaptations import adaptations, of_deeper_model
from ._arguments import KEYS, SET_HERE, unknown_argument
from ._own_files import mistake_in, names
from ._weights_file import prefixes_of, read_state
from ._weights_hint import hint_to
from ._wording import one_line

# What a model of timm answers to options or images that it cannot take.
BUILD_ERRORS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
# What reading a file of weights, or fetching one, can end in on top of that.
LOADING_ERRORS = (
    *BUILD_ERRORS,
    AttributeError,
    EOFError,
    OSError,
    SafetensorError,
    UnpicklingError,
)


class Backbone(NamedTuple):
    """A backbone, and sentences on what was made of the weights that it starts from."""

    module: nn.Module
    remarks: tuple[str, ...] = ()


class ModelError(ValueError):
    """A mistake in the choice of a model, in one line for whoever made it."""


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel, of pixel values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class GroupNorm(nn.GroupNorm):
    """Group normalisation of (N, C, ...) by 32 groups, or fewer with two channels at least.

    Wu and He 2018, "Group Normalization", use 32 groups. Where these do not fit, it is the largest
    power of two that divides C and leaves two channels in a group: one would be instance norm.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(max(1, math.gcd(64, num_channels) // 2), num_channels, **kwargs)


def create_backbone(
    name: str,
    *,
    in_channels: int,
    image_size: tuple[int, int],
    norm: Literal["batch", "group"],
    pretrained: bool | str,
    asked: Mapping[str, Any],
) -> Backbone:
    """Return timm's model `name` without classifier: images (N, C, H, W) to features (N, D).

    Args:
        name: A name of timm's registry, with or without the tag of its weights.
        in_channels: Channels of the images.
        image_size: Height and width, told to models that are built for one size.
        norm: ``group`` puts group normalisation in the place of batch normalisation.
        pretrained: True for the weights that timm downloads, or the path of a file of weights.
        asked: More arguments of its constructor.

    Raises:
        ModelError: For a name that timm does not know, weights that cannot be had, and a model that
            cannot take the image size, the channels, the normalisation or another argument.
    """
    kwargs = _model_arguments(name, in_channels=in_channels, image_size=image_size)
    if asked:
        _check_arguments(asked, kwargs, name=name)
        kwargs |= asked
    if norm == "group":
        _check_batch_norm(kwargs, name=name)
        kwargs["norm_layer"] = GroupNorm
    if isinstance(pretrained, str):
        backbone = _create_from_file(kwargs, name=name, weights=pretrained)
    else:
        backbone = Backbone((_create_pretrained if pretrained else _create)(kwargs, name=name))
    if norm == "group" and _has_batch_norm(backbone.module):
        raise ModelError(f"model.norm=group does not reach all of {name}: choose norm=batch")
    return backbone


def source_weights(name: str, *, pretrained: bool | str) -> Mapping[str, torch.Tensor]:
    """Return pretrained weights by name, before they are fitted to the images of a run.

    Of a file all that it holds, nothing where it is JAX's; of timm's own those of the model as it
    comes, for images of its own size and channels.

    Args:
        name: A name of timm's registry.
        pretrained: As in :func:`create_backbone`.

    Raises:
        ModelError: They cannot be had.
    """
    if not isinstance(pretrained, str):
        with torch.random.fork_rng(devices=[]):
            model = _create_pretrained({"model_name": name, "num_classes": 0}, name=name)
        return model.state_dict()
    file = Path(pretrained).expanduser()
    try:
        return {} if file.suffix == ".npz" else read_state(file)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"model.pretrained={pretrained} is not a file of weights ({one_line(error)})"
        ) from error


def check_name(name: str) -> None:
    """Check that timm has a model of this name.

    Raises:
        ModelError: It has not; names like it are shown.
    """
    if mistake := mistake_in(name):
        raise ModelError(mistake)
    if not timm.is_model(name):
        near = _nearest_models(name)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists the names"
        raise ModelError(f"model.name={name} is not a model of timm {timm.__version__}: {hint}")


def _model_arguments(name: str, *, in_channels: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments of timm.create_model; only a model of fixed size is told the size."""
    check_name(name)
    size = {"img_size": image_size}
    try:
        return dict(resolve_model_input_args(name, size, in_chans=in_channels, num_classes=0))
    except RuntimeError as error:
        known = timm.list_models(name.split(".")[0], include_tags=True)
        raise ModelError(
            f"model.name={name} has a tag that timm does not know: choose {', '.join(known)}"
        ) from error


def _check_arguments(asked: Mapping[str, Any], kwargs: Mapping[str, Any], *, name: str) -> None:
    """Raise for arguments that the model's constructor does not name."""
    with torch.random.fork_rng(devices=[]):
        plain = _create(kwargs, name=name)
    if (mistake := unknown_argument(asked, type(plain), model=name)) is not None:
        raise ModelError(mistake)


def own_size(name: str) -> str:
    """Return which images a model was made for, to follow those that it does not take."""
    known = timm.get_pretrained_cfg(name)
    return "" if known is None else f", it is made for {'x'.join(map(str, known.input_size))}"


def normalization(name: str) -> Normalization:
    """Return the mean and standard deviation that the pretrained weights of a model were made with.

    Args:
        name: A name of timm's registry, with or without the tag of its weights.

    Raises:
        ModelError: For a name that timm does not know, or knows no such numbers of.
    """
    _model_arguments(name, in_channels=3, image_size=(224, 224))
    known = timm.get_pretrained_cfg(name)
    if known is None:
        raise ModelError(
            f"data.normalize=weights: nothing is known of the weights of model.name={name}; set it "
            "to train or imagenet"
        )
    return Normalization(tuple(known.mean), tuple(known.std))


def _nearest_models(name: str, *, most: int = 3) -> list[str]:
    """Return names like `name`: of ours that contain it, that go on from it, or are spelled alike.

    Ours are first, as they are built for small images; of what begins with ``vit_base`` the usual
    one, of patches of 16 and images of 224 pixels, then the shortest.
    """
    known = timm.list_models()
    last = name.rpartition("/")[2]  # of hf_hub:timm/NAME
    if last != name and timm.is_model(last):
        return [last]
    ours = [model for file in names() for model in timm.list_models(module=file)]
    whole = sorted((model for model in ours if name in model), key=len)
    longer = [model for model in known if model.startswith(f"{name}_")]
    longer.sort(key=lambda model: (not model.endswith("_patch16_224"), len(model), model))
    close = difflib.get_close_matches(name, known, n=most)
    return list(dict.fromkeys([*whole, *longer, *close]))[:most]


def _create(kwargs: Mapping[str, Any], *, name: str) -> nn.Module:
    try:
        return timm.create_model(**kwargs)
    except BUILD_ERRORS as error:
        asked = "norm=group" if "norm_layer" in kwargs else f"{kwargs['in_chans']} channels"
        asked += "".join(f", {key}={kwargs[key]}" for key in kwargs if key not in SET_HERE)
        if "img_size" in kwargs:
            asked += f" and images of {'x'.join(map(str, kwargs['img_size']))}"
        raise ModelError(
            f"model.name={name} cannot be built with {asked}{own_size(name)}: choose another "
            f"({one_line(error)})"
        ) from error


def _create_pretrained(kwargs: Mapping[str, Any], *, name: str) -> nn.Module:
    """Build with the weights that timm knows for the model, from its cache or the network."""
    trouble = _hub.trouble(name)
    try:
        with unlogged(), _hub.offline(trouble):
            return timm.create_model(**kwargs, pretrained=True)
    except LOADING_ERRORS as error:
        _create(kwargs, name=name)  # raises where it is the model that cannot be built
        raise ModelError(
            f"model.pretrained=true found no weights of {name}: give a file of them instead, or "
            f"set it to false ({trouble or one_line(error)})"
        ) from error


def _create_from_file(kwargs: Mapping[str, Any], *, name: str, weights: str) -> Backbone:
    """Build with weights from a file, all of them or it is an error."""
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ModelError(f"model.pretrained={weights} is not a file{hint_to(weights, name=name)}")
    with torch.random.fork_rng(devices=[]):
        fresh = _create(kwargs, name=name).state_dict()
    try:
        # JAX weights come as .npz, which timm reads another way.
        state = {} if file.suffix == ".npz" else read_state(file)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"model.pretrained={weights} is not a file of weights ({one_line(error)})"
        ) from error
    said: list[str] = []
    prefixes = [] if fresh.keys() & state.keys() else prefixes_of(state, fresh)
    if len(prefixes) > 1:
        raise ModelError(
            f"model.pretrained={weights} holds {name} under {' and '.join(prefixes)}: save the "
            "tensors of one to a file"
        )
    for prefix in prefixes:
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        said = [f"of its {len(state):,} tensors the {len(own):,} under {prefix} are taken"]
        state = own
    try:
        source = {"state_dict": state} if state else {"file": str(file), "custom_load": True}
        with unlogged():
            model = timm.create_model(**kwargs, pretrained=True, pretrained_cfg_overlay=source)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"model.pretrained={weights} does not fit {name}: give a file of its weights "
            f"({_first_mismatch(error)})"
        ) from error
    if (key := _missing(model, fresh, state)) is not None:
        other = "" if fresh.keys() & state.keys() else "; python -m models.weights may convert it"
        raise ModelError(f"model.pretrained={weights} has no {key}: give a file for {name}{other}")
    is_shortened = any(key not in (*SET_HERE, *KEYS) for key in kwargs)  # by model.kwargs
    if not is_shortened and (key := of_deeper_model(state, model)) is not None:
        raise ModelError(
            f"model.pretrained={weights} has {key}, which {name} has not: name the model that the "
            "file is of"
        )
    for key, value in model.state_dict().items():
        if not value.isfinite().all():
            raise ModelError(f"model.pretrained={weights} has numbers in {key} that are not finite")
    known: Any = model.pretrained_cfg
    known.pop("state_dict", None)  # the tensors would be copied with the model
    return Backbone(model, (*said, *adaptations(state, model, name=name)))


def _missing(
    model: nn.Module, fresh: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> str | None:
    """Return the first tensor of a model that a file did not set.

    timm passes over what is missing when it leaves a classifier out. Both builds drew the same
    numbers, so a weight that still equals them was not in the file. A constant may have been, under
    this name or one that timm translates: it was not where its module has others in the file.

    Args:
        model: with the weights of the file.
        fresh: the same tensors as they were drawn.
        state: what the file holds; nothing where it could not be read by name.
    """
    drawn = {key for key, value in model.named_parameters() if value.requires_grad}
    modules = {key.rpartition(".")[0] for key in state}
    for key, value in model.state_dict().items():
        module, _, own = key.rpartition(".")
        if own == "num_batches_tracked" or not torch.equal(value, fresh[key]):
            continue
        is_drawn = key in drawn and bool(value.min() < value.max())
        if is_drawn or (key not in state and module in modules):
            return key
    return None


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep off the terminal what is logged on loading: every key of a file, every retry.

    What matters of it is in the error that follows, or in ours.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


# What timm says of a first convolution that it cannot fit to the images.
_OTHER_CHANNELS = re.compile(r"Pretrained (\S+) weight shape \(\d+, (\d+), \d+, \d+\) is inc")


def _first_mismatch(error: BaseException) -> str:
    """Return why weights do not load: of torch's list of wrong shapes the first."""
    found = re.search(r"size mismatch for (\S+):", str(error))
    if found is not None:
        return f"{found[1]} has another shape"
    if (found := _OTHER_CHANNELS.search(str(error))) is not None:
        return f"{found[1]} is for images of {found[2]} channel(s), not for these"
    if "load_pretrained" in str(error):
        return "its weights do not come as .npz"
    return one_line(error)


def _check_batch_norm(kwargs: Mapping[str, Any], *, name: str) -> None:
    """Raise for a model without batch normalisation, on which norm=group would have no effect."""
    with torch.random.fork_rng(devices=[]):
        plain = _create(kwargs, name=name)
    if not _has_batch_norm(plain):
        raise ModelError(f"model.norm=group has no effect: {name} has no batch normalisation")


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())
