"""The tree of config keys: every key that all runs share, its type, range, default and meaning.

Keys that a package declares itself are read from its source (:mod:`engine.config.components`): the
dataclasses of ``data`` and the files of each choice (:mod:`engine.config.choices`) here, those of
the data set and the loss in :func:`tree`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from engine.config import choices, components, selection_rules
from engine.config.metrics import selectable
from engine.config.mistakes import ComponentError

Fraction = Annotated[float, Ge(0), Lt(1)]
PathSafe = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

if TYPE_CHECKING:
    MetricName = str
    RuleName = str
else:
    MetricName = Literal.__getitem__(tuple(f"val/{name}" for name in selectable()))
    RuleName = Literal.__getitem__(tuple(selection_rules.catalogue()))


def _each_once(rules: tuple[str, ...]) -> tuple[str, ...]:
    """Put rules in the order of the catalogue: two orders of the same rules are one config."""
    return tuple(name for name in selection_rules.catalogue() if name in rules)


class Section(BaseModel):
    """A node of the tree: frozen, strict about types, no unknown keys."""

    # defer_build: --help makes models that nothing is ever checked with.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        defer_build=True,
    )


class OpenSection(Section):
    """A section whose keys, or some of them, are read from the sources."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _dataclass_section(file: str, name: str) -> type[OpenSection]:
    component = components.read_dataclass("data", file, name)
    fields: dict[str, Any] = components.pydantic_fields(component)
    return create_model(f"{name}Config", __base__=OpenSection, __doc__=component.summary, **fields)


def _choice_section(shared: type[OpenSection], selector: str) -> type[OpenSection]:
    """Extend ``shared`` by the selector and the keys of all the files that it chooses from.

    Raises:
        ComponentError: a file has a key that all of the section share.
    """
    choice = choices.of(selector)
    fields = choice.fields()
    taken = fields.keys() & shared.model_fields.keys() - {selector.rpartition(".")[2]}
    for key in sorted(taken):
        owner = choice.owners()[f"{choice.section}.{key}"][0]
        file = components.path_of(components.folder(choice.package) / f"{owner}.py")
        raise ComponentError(file, f"is a key of all {choice.section} settings", key=key)
    return create_model(
        shared.__name__.lstrip("_"), __base__=shared, __doc__=shared.__doc__, **fields
    )


if TYPE_CHECKING:
    ImbalanceConfig = OpenSection
    ValidationConfig = OpenSection
    AugmentConfig = OpenSection
else:
    ImbalanceConfig = _dataclass_section("_imbalance", "Imbalance")
    ValidationConfig = _dataclass_section("_notes", "Validation")
    AugmentConfig = _dataclass_section("_augment", "Augment")


class DataConfig(OpenSection):
    """Which images, how imbalanced, what is held out."""

    name: str
    one_vs_rest: str | None = Field(
        None, description="binary task: this class (name or number) against all others"
    )
    classes: tuple[int | str, ...] | None = Field(
        None,
        description="names or numbers of the classes to train (and validate) on; the others keep "
        "their labels and outputs; null: all",
    )
    test_classes: tuple[int | str, ...] | None = Field(
        None, description="classes to test on; null: those in training and those of the teacher"
    )
    near_duplicates: Annotated[int, Ge(0), Le(16)] | None = Field(
        None,
        description="count images of two splits that look alike, as resized, re-compressed or "
        "brightened copies do: bits in which their 64-bit difference hashes may differ, such as 4; "
        "null does not look",
    )
    drop_duplicates: bool = Field(
        False,
        description="leave images out of training that are in validation or test, too, and out of "
        "validation those of test, which stays whole: those of equal pixels (of equal bytes where "
        "they are too many to decode) and, with near_duplicates, those that look alike",
    )
    imbalance: ImbalanceConfig = ImbalanceConfig()
    validation: ValidationConfig = ValidationConfig()
    augment: AugmentConfig = AugmentConfig()


class _SamplerConfig(OpenSection):
    """Which training images an epoch draws."""

    name: str = ""
    start: Fraction = Field(
        0.0, description="fraction of training after which it begins (instance before)"
    )
    length: Annotated[int, Ge(1)] | None = Field(
        None,
        description="images an epoch draws, whatever the sampler; instance draws each equally "
        "often, give or take one; null: the number of training images",
    )


class _ModelConfig(OpenSection):
    """Backbone and head."""

    name: str = Field(
        "cifar_resnet20", description="a model of models/, listed below, or any timm backbone"
    )
    head: str = ""
    tune: str = ""
    norm: Literal["batch", "group"] = Field("batch", description="normalisation layers")
    pretrained: bool | str = Field(
        False,
        description="true downloads timm's weights; or a file of them: .safetensors, .pth, .th",
    )
    freeze: bool = Field(
        False, description="train the head only, as tune=head; BatchNorm statistics rest too"
    )
    init_from: str | tuple[str, ...] | None = Field(
        None,
        description="run folder whose headline weights start this run; of a list of them the mean "
        "of the weights, with batch-normalisation statistics of its own",
    )
    init_head: bool = Field(
        True, description="with init_from: take the head's weights too, not only the backbone's"
    )
    drop: Fraction = Field(
        0.0, description="dropout of the features before the head, by timm's drop_rate"
    )
    drop_path: Fraction = Field(
        0.0,
        description="stochastic depth: how often training leaves out the last residual branch, "
        "earlier ones less, by timm's drop_path_rate",
    )
    kwargs: dict[str, Any] = Field(
        {},
        description="more arguments of the model's constructor in timm, as in "
        "model.kwargs.global_pool=avg",
    )
    ema: Annotated[float, Gt(0), Lt(1)] | None = Field(
        None,
        description="decay of an averaged copy of the weights, which is then evaluated; at most "
        "(t - 1) / (t + 8) at step t, so that it remembers a ninth of the steps so far",
    )

    swa: Fraction | None = Field(
        None,
        description="stochastic weight averaging: fraction of training from which on the mean of "
        "the weights after each epoch is evaluated in their place, with batch-normalisation "
        "statistics of its own; wants a rate that stays up, as schedule=constant; null: off",
    )


class LossConfig(OpenSection):
    """What is minimised; its other keys are those of the loss."""

    name: str


class _ReweightConfig(OpenSection):
    """Class weights from the training counts, normalised to sum to the number of classes."""

    scheme: str = ""
    start: Fraction = Field(
        0.0, description="fraction of training after which weights apply (deferred: 0.8)"
    )


class OptimConfig(Section):
    """Optimizer, by timm's factory."""

    name: str = Field(
        "sgd", description="timm optimizer: sgd (Nesterov), momentum (plain), adamw, lamb ..."
    )
    lr: Annotated[float, Gt(0)] = Field(0.05, description="peak learning rate")
    weight_decay: Annotated[float, Ge(0)] = Field(
        2e-4, description="weight decay, on the parameters of optim.decay_on"
    )
    decay_on: Literal["all", "weights"] = Field(
        "all",
        description="what decays: every parameter that is trained; or by timm's rule the weights "
        "alone, no bias, no norm and no token",
    )
    layer_decay: Annotated[float, Gt(0), Le(1)] = Field(
        1.0,
        description="factor on the rate from each layer to the one before it, by timm's layers, "
        "the head being the last; 1: off",
    )
    head_lr: Annotated[float, Gt(0)] = Field(
        1.0, description="factor on the rate of the head, on top of layer_decay"
    )
    momentum: Annotated[float, Ge(0), Lt(1)] = Field(0.9, description="momentum of sgd-like ones")
    sam: Annotated[float, Ge(0)] = Field(
        0.0,
        description="rho of sharpness-aware minimisation: the gradient of a step is that at the "
        "weights moved so far along their own gradient; two passes a step; 0: off",
    )
    batch_size: Annotated[int, Ge(1)] = Field(32, description="images an optimizer step")
    accumulate: Annotated[int, Ge(1)] = Field(
        1,
        description="pieces a batch is split into to save memory; BatchNorm uses the statistics of "
        "each piece, and with model.norm=group the gradient is that of the whole batch; not for "
        "losses that compare a batch as a whole",
    )
    clip_norm: Annotated[float, Gt(0)] | None = Field(
        None, description="clip the global gradient norm to this"
    )


class _ScheduleConfig(OpenSection):
    """Learning rate as a pure function of training progress, and the length of training."""

    name: str = ""
    epochs: Annotated[int, Ge(1)] = Field(40, description="length of training")
    patience: Annotated[int, Ge(1)] | None = Field(
        None,
        description="early stopping: end training after so many epochs without a better "
        "evaluate.metric, counted once all that is deferred has begun; the learning rate still "
        "goes by schedule.epochs; null: off",
    )
    warmup: Fraction = Field(0.05, description="fraction of training with a linearly rising rate")
    unit: Literal["step", "epoch"] = Field(
        "step", description="change the rate every optimizer step or once an epoch"
    )


if TYPE_CHECKING:
    SamplerConfig = _SamplerConfig
    ModelConfig = _ModelConfig
    ReweightConfig = _ReweightConfig
    ScheduleConfig = _ScheduleConfig
else:
    SamplerConfig = _choice_section(_SamplerConfig, "sampler.name")
    ModelConfig = _choice_section(_choice_section(_ModelConfig, "model.head"), "model.tune")
    ReweightConfig = _choice_section(_ReweightConfig, "reweight.scheme")
    ScheduleConfig = _choice_section(_ScheduleConfig, "schedule.name")


class MixupConfig(Section):
    """Mixing of images and labels, by timm; 0 is off."""

    mixup: Annotated[float, Ge(0)] = Field(0.0, description="alpha of mixup")
    cutmix: Annotated[float, Ge(0)] = Field(0.0, description="alpha of CutMix")


class EvaluateConfig(Section):
    """What chooses the best epoch, and when test is looked at."""

    metric: MetricName = Field(
        "val/balanced_accuracy",
        description="validation metric that chooses the epoch of the rule val, once all that is "
        "deferred has begun",
    )
    rules: Annotated[tuple[RuleName, ...], AfterValidator(_each_once)] = Field(
        selection_rules.DEFAULT,
        description="selection rules, each with weights that are kept and numbers in every table; "
        "those that choose by validation are left out where there is none; "
        + "; ".join(f"{r.name}: {r.meaning}" for r in selection_rules.catalogue().values()),
    )
    test_every_epoch: bool = Field(
        False, description="also log test each epoch, for the oracle column; selects nothing"
    )
    many_above: Annotated[int, Ge(1)] = Field(
        100, description="many: the classes with more training images than this"
    )
    few_below: Annotated[int, Ge(1)] = Field(
        20, description="few: the classes with fewer training images than this; medium: the others"
    )
    logit_adjustment: Annotated[float, Ge(0)] = Field(
        0.0,
        description="tau: validation and test predict by logits - tau log(share of training "
        "images); stored logits stay as they are; 0: off",
    )
    store_features: bool = Field(
        False,
        description="at the end also keep what the head was given (D numbers an image) of "
        "validation and test, and its mean over each class's training images: analyze.py then "
        "tries classifiers that need them",
    )


class TrackConfig(Section):
    """Where results go. No key here changes a number."""

    to: tuple[str, ...] = Field(
        ("wandb",), description="trackers that follow the run, by name; [] for none; keys below"
    )
    root: str = Field("runs", description="folder of all run folders")
    name: PathSafe | None = Field(
        None, description="folder under track.root; null: that of the images, or data.name"
    )
    group: PathSafe | None = Field(
        None, description="group in the trackers; null: the fingerprint without the seeds"
    )
    wandb: Literal["offline", "online", "disabled"] = Field(
        "offline", description="W&B mode; the variable WANDB_MODE overrides it"
    )
    per_class: Literal["auto", "scalars", "table", "off"] = Field(
        "auto", description="per-class metrics in trackers each epoch; auto: by number of classes"
    )
    figures: bool = Field(
        True,
        description="draw figures at the end of a run; false saves seconds; a sweep draws those of "
        "its study either way",
    )
    report: bool = Field(
        False,
        description="write report.html at the end of a run: all of it on one page; "
        "python -m engine.report.page writes that of a finished run",
    )
    keep_checkpoints: bool = Field(
        False,
        description="keep the last two checkpoints of a finished run whole; false leaves the "
        "weights of its selection rules, without optimizer state",
    )

    @property
    def is_tracked(self) -> bool:
        """Whether any tracker is asked for."""
        return any(name != "wandb" or self.wandb != "disabled" for name in self.to)


class RuntimeConfig(Section):
    """How it runs. Only runtime.precision is part of a run's identity."""

    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32",
        description="precision of the model's arithmetic; losses are always float32; "
        "auto: the fastest that the device computes in, whose name the run then bears; also "
        "read: bf16, fp16, amp (auto)",
    )
    deterministic: bool = Field(
        False, description="on GPUs: only algorithms that give the same bits every time"
    )
    compile: Literal["auto", "cuda_graphs"] | bool = Field(
        False,
        description="torch.compile the model; auto: where the steps to come save more than it "
        "costs; cuda_graphs: true, and a GPU replays all that the model does with a batch as one "
        "(torch's reduce-overhead); evaluation likewise where it pays",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = Field(
        "auto", description="auto | cpu | cuda | cuda:N | mps"
    )
    threads: Annotated[int, Ge(1)] | None = Field(
        None, description="CPU threads of torch; null: torch's own choice"
    )
    cache_features: bool | None = Field(
        None,
        description="with model.tune=head: compute the features of each image once, in memory and "
        "in a file below DATA_ROOT, rather than in every epoch; null: where nothing changes them",
    )
    workers: Annotated[int, Ge(0)] = Field(
        2, description="processes that decode images on disk and augment image by image"
    )
    checkpoint_seconds: Annotated[float, Gt(0)] = Field(
        600.0, description="also checkpoint inside an epoch when this much time has passed"
    )
    checkpoint_epoch_seconds: Annotated[float, Ge(0)] = Field(
        10.0,
        description="checkpoint after an epoch when this much time has passed; 0: after each; the "
        "end of training and a stop always make one",
    )


class Config(Section):
    """One run, completely. Loaded by :func:`engine.config.load.load`."""

    seed: Annotated[int, Ge(0), Lt(2**32)] = Field(
        0, description="seed of model and batch order; the subset has data.imbalance.seed"
    )
    data: DataConfig
    sampler: SamplerConfig = SamplerConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig
    reweight: ReweightConfig = ReweightConfig()
    teacher: str | None = Field(
        None, description="run folder whose headline weights a distillation loss learns from"
    )
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mixup: MixupConfig = MixupConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    track: TrackConfig = TrackConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def _sections(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Return the full names of the sections of a model."""
    found = set()
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found |= {f"{prefix}{name}", *_sections(info.annotation, f"{prefix}{name}.")}
    return found


SECTIONS = frozenset(_sections(Config))

# The key of a section that names its choice: `loss: ldam` is `loss: {name: ldam}`.
SELECTORS = {
    "data": "name",
    "data.imbalance": "kind",
    "sampler": "name",
    "model": "name",
    "loss": "name",
    "reweight": "scheme",
    "optim": "name",
    "schedule": "name",
    "evaluate": "metric",
}

# Keys below these are not ours: they are arguments of a constructor in timm.
OPEN_KEYS = ("model.kwargs",)

TRACKERS = "engine.report.tracking"  # one file a tracker, as in the other packages of components
DEFAULT_DATA = "digits"
DEFAULT_LOSS = "cross_entropy"


@cache
def tree(data: str, loss: str, trackers: tuple[str, ...] = ("wandb",)) -> type[Config]:
    """Build the config model for a data set, a loss and trackers, with their own keys in it."""
    return create_model(
        "Config",
        __base__=Config,
        data=_section(_data_config(data)),
        loss=_section(_loss_config(loss)),
        track=_section(_track_config(trackers)),
    )


def standard(data: str, loss: str, trackers: tuple[str, ...] = ("wandb",)) -> Config:
    """Return the default config of a data set, a loss and trackers, which nobody may change."""
    return _defaults_of(tree(data, loss, trackers))


@cache
def _defaults_of(model: type[Config]) -> Config:
    return model.model_validate({})


def tracker_field(tracker: str, key: str) -> str:
    """Name the field of ``track`` for a tracker's key; its ``mode`` bears the tracker's name."""
    return tracker if key == "mode" else f"{tracker}_{key}"


def chosen_keys(config: Config, selector: str) -> dict[str, Any]:
    """Return the values of the keys that belong to the file that ``selector`` chooses."""
    choice = choices.of(selector)
    section = getattr(config, choice.section)
    name = getattr(section, selector.rpartition(".")[2])
    return {key.name: getattr(section, key.name) for key in choice.components[name].keys}


def component_keys(config: Section) -> dict[str, Any]:
    """Return the values of the component's own keys, for its constructor."""
    shared = DataConfig if isinstance(config, DataConfig) else LossConfig
    own = type(config).model_fields.keys() - shared.model_fields.keys()
    return {key: getattr(config, key) for key in own}


def _section(model: type[Section]) -> Any:
    return (model, Field(default_factory=model))


def _loss_config(name: str) -> type[LossConfig]:
    component = components.read("losses", name)
    fields = {"name": _name(component), **components.pydantic_fields(component)}
    return create_model("LossConfig", __base__=LossConfig, **fields)


def _data_config(name: str) -> type[DataConfig]:
    """Extend DataConfig by the data set's own keys and its defaults for the shared ones."""
    component = components.read("data", name)
    fields = {"name": _name(component), **components.pydantic_fields(component)}
    defaults = component.class_facts.get("shared_defaults", {})
    for section in ("imbalance", "validation", "augment"):
        model = DataConfig.model_fields[section].annotation
        assert isinstance(model, type) and issubclass(model, Section)
        prefix = f"{section}."
        own = {k.removeprefix(prefix): v for k, v in defaults.items() if k.startswith(prefix)}
        for unknown in sorted(own.keys() - model.model_fields.keys()):
            raise ComponentError(
                f"data/{name}.py", f"shared_defaults: no key data.{prefix}{unknown}"
            )
        fields[section] = _section(_with_defaults(model, own))
    return create_model("DataConfig", __base__=DataConfig, **fields)


def tracker_fields(name: str) -> dict[str, Any]:
    """Return the definitions of the fields that a tracker adds to ``track``."""
    found = components.pydantic_fields(components.read(TRACKERS, name))
    fields = {tracker_field(name, key): definition for key, definition in found.items()}
    return {key: found for key, found in fields.items() if key not in TrackConfig.model_fields}


def _track_config(trackers: tuple[str, ...]) -> type[TrackConfig]:
    """Extend TrackConfig by the keys of the chosen trackers, which must be files that exist."""
    info = TrackConfig.model_fields["to"]
    choice: Any = Literal.__getitem__(components.names(TRACKERS))
    fields: dict[str, Any] = {"to": (tuple[choice, ...], info)}
    for name in trackers:
        fields |= tracker_fields(name)
    return create_model("TrackConfig", __base__=TrackConfig, **fields)


def _with_defaults(model: type[Section], defaults: dict[str, Any]) -> type[Section]:
    fields: dict[str, Any] = {}
    for key, value in defaults.items():
        info = model.model_fields[key]
        annotation: Any = info.annotation
        if info.metadata:
            annotation = Annotated[annotation, *info.metadata]
        fields[key] = (annotation, Field(default=value, description=info.description))
    return create_model(model.__name__, __base__=model, **fields)


def _name(component: components.Component) -> Any:
    annotation: Any = Literal.__getitem__(component.name)
    return (annotation, Field(default=component.name, description=component.summary))
