"""Classifiers: what they give, what freezing keeps, what the seed decides."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.config import components
from models import Classifier, ModelError
from models.heads.cosine import Cosine
from models.heads.linear import Linear
from tests.models._models import build

SMALL: dict[str, Any] = {"num_outputs": 3, "in_channels": 1, "image_size": 8}


def images(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    logits, _ = model(images(4, 1, 8, 8))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_it_gives_logits_and_the_features_that_the_head_was_given(head: str) -> None:
    model = build("cifar_resnet20", head=head, **SMALL).eval()
    output = model(images(5, 1, 8, 8))
    assert output.logits.shape == (5, 3)
    assert output.features.shape == (5, 64)
    assert torch.equal(output.logits, model.head(output.features))
    assert torch.equal(output.features, model.backbone(images(5, 1, 8, 8)))


def test_the_head_is_the_one_asked_for() -> None:
    assert isinstance(build("cifar_resnet20", head="linear", **SMALL).head, Linear)
    assert isinstance(build("cifar_resnet20", head="cosine", **SMALL).head, Cosine)


def test_the_head_of_a_cifar_resnet_starts_kaiming_normal_and_others_as_torch() -> None:
    torch.manual_seed(0)
    options = {"num_outputs": 500, "in_channels": 3, "image_size": 32}
    ours = build("cifar_resnet20", **options).head.weight
    timms = build("resnet10t", **options).head.weight
    assert ours.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.02)
    assert timms.abs().max() <= 1 / math.sqrt(512)


def test_the_seed_of_the_caller_decides_the_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(
            torch.cat([p.flatten() for p in build("cifar_resnet20", **SMALL).parameters()])
        )
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_frozen_backbone_keeps_every_parameter_and_every_statistic() -> None:
    model = build("cifar_resnet20", freeze=True, **SMALL)
    before = copy.deepcopy(model.state_dict())
    step(model)
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert changed == {"head.weight", "head.bias"}


def test_without_freezing_parameters_and_statistics_move() -> None:
    model = build("cifar_resnet20", **SMALL)
    before = copy.deepcopy(model.state_dict())
    step(model)
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert {"backbone.conv1.weight", "backbone.bn1.running_mean", "head.weight"} <= changed


def test_a_frozen_backbone_takes_no_gradient_and_a_copy_stays_frozen() -> None:
    model = copy.deepcopy(build("cifar_resnet20", freeze=True, **SMALL)).train()
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training


def test_a_new_model_is_in_training_mode() -> None:
    assert all(module.training for module in build("cifar_resnet20", **SMALL).modules())


def test_a_prior_reaches_the_bias() -> None:
    model = build("cifar_resnet20", prior=0.01, **SMALL | {"num_outputs": 1})
    assert model.head.bias.item() == pytest.approx(math.log(0.01 / 0.99))


def test_a_prior_leaves_a_head_without_bias_as_it_is() -> None:
    heads = []
    for prior in (None, 0.1):
        torch.manual_seed(0)
        heads.append(build("cifar_resnet20", head="cosine", prior=prior, **SMALL).head.state_dict())
    assert heads[0].keys() == heads[1].keys() == {"weight"}
    assert torch.equal(heads[0]["weight"], heads[1]["weight"])


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, math.nan])
def test_a_prior_that_is_no_probability_is_an_error(prior: float) -> None:
    with pytest.raises(ModelError, match="strictly between 0 and 1"):
        build("cifar_resnet20", prior=prior, **SMALL)


def test_any_backbone_that_gives_features_can_be_wrapped() -> None:
    model = Classifier(nn.Flatten(), Linear(64, 3, "default", None))
    assert model(images(2, 1, 8, 8)).features.shape == (2, 64)


class Doubled(nn.Module):
    """A head that knows nothing of autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 100)

    def forward(self, features: Tensor) -> Tensor:
        return 2 * self.layer(features)


def classifier_of(head: str, *, num_outputs: int = 100) -> Classifier:
    torch.manual_seed(0)
    known = None if head == "own" else head
    options = SMALL | {"num_outputs": num_outputs}
    model = build("cifar_resnet20", head=known or "linear", **options)
    if known is None:
        model.head = Doubled()
    return model.eval()


HEADS = [*components.names("models.heads"), "own"]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_computes_in_float32_under_autocast(head: str, precision: torch.dtype) -> None:
    model = classifier_of(head)
    with torch.autocast("cpu", dtype=precision):
        logits, features = model(images(8, 1, 8, 8))
        in_sixteen_bits = model.backbone(images(8, 1, 8, 8))
    assert in_sixteen_bits.dtype == precision
    assert torch.equal(features, in_sixteen_bits.float())
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model.head(features))


@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_reaches_a_backbone_in_sixteen_bits(head: str) -> None:
    model = classifier_of(head).train()
    if getattr(model.head, "begins_at", None):
        model.head.begin_at(torch.eye(100, 64))  # without class means its logits are all 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images(8, 1, 8, 8)).logits
    logits[:, 0].sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert model.backbone.conv1.weight.grad.any()


def test_a_frozen_backbone_leaves_its_head_in_float32_under_autocast() -> None:
    model = build("cifar_resnet20", freeze=True, **SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images(4, 1, 8, 8)).logits
    logits.sum().backward()
    assert logits.dtype == model.head.weight.grad.dtype == torch.float32
    assert model.backbone.conv1.weight.grad is None


def test_logits_of_a_hundred_classes_do_not_tie_under_autocast() -> None:
    """In bfloat16 about one image in a hundred has two equal top logits."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    model = Classifier(backbone, Linear(64, 100, "default", None))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, features = model(images(5000, 1, 8, 8))
        rounded = model.head(features)
    assert (rounded.topk(2).values.diff() == 0).sum() > 25
    assert (logits.topk(2).values.diff() == 0).sum() == 0


def test_outside_autocast_a_model_computes_in_its_own_precision() -> None:
    output = classifier_of("linear").double()(images(2, 1, 8, 8).double())
    assert output.logits.dtype == output.features.dtype == torch.float64


@pytest.mark.parametrize("head", HEADS)
def test_it_compiles_under_autocast_without_graph_breaks(head: str) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    model = Classifier(backbone, classifier_of(head).head)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = compiled(images(2, 1, 8, 8)), model(images(2, 1, 8, 8))
    assert found.logits.dtype == torch.float32
    torch.testing.assert_close(found.logits, expected.logits)


def test_it_compiles_without_graph_breaks() -> None:
    model = build("cifar_resnet20", head="cosine", **SMALL).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    expected = model(images(2, 1, 8, 8)).logits
    torch.testing.assert_close(compiled(images(2, 1, 8, 8)).logits, expected)
