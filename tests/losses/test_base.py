"""The base class, and how a loss is found and made."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import losses
from losses.softmax_focal import SoftmaxFocal

COUNTS = torch.tensor([6, 3, 1])

PLUGIN = '''
from losses import Loss


class ThrowAway(Loss):
    """A loss with facts and a key."""

    def __init__(self, num_classes, class_counts, *, scale=2.0):
        super().__init__()
        self.num_classes, self.class_counts, self.scale = num_classes, class_counts, scale
'''


class Stubborn(losses.Loss):
    takes_weight: ClassVar[bool] = False


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "throw_away.py").write_text(PLUGIN)
    monkeypatch.setattr(losses, "__path__", [*losses.__path__, str(tmp_path)])
    yield "throw_away"
    sys.modules.pop("losses.throw_away", None)


def test_a_loss_that_takes_no_weight_refuses_one() -> None:
    with pytest.raises(ValueError, match="Stubborn takes no class weights"):
        Stubborn().set_weight(torch.ones(3))


def test_no_weight_is_fine_for_a_loss_that_takes_none() -> None:
    loss = Stubborn()
    loss.set_weight(None)
    assert loss.weight is None


def test_one_sigmoid_output_predicts_two_classes() -> None:
    loss = losses.build("sigmoid_focal", class_counts=COUNTS)
    predicted = loss.predict(torch.tensor([[0.0], [2.0], [-1e4]], dtype=torch.float64))
    p = 1 / (1 + torch.exp(torch.tensor(-2.0, dtype=torch.float64)))
    expected = torch.tensor([[0.5, 0.5], [1 - p, p], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(predicted, expected, rtol=1e-14, atol=0)


def test_many_sigmoid_outputs_are_divided_by_their_sum() -> None:
    loss = losses.build("sigmoid_focal", class_counts=COUNTS)
    logits = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    expected = torch.sigmoid(logits) / torch.sigmoid(logits).sum()
    torch.testing.assert_close(loss.predict(logits), expected, rtol=1e-14, atol=0)


def test_softmax_losses_predict_a_softmax() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    predicted = losses.build("softmax_focal", class_counts=COUNTS).predict(logits)
    torch.testing.assert_close(predicted, logits.exp() / logits.exp().sum())


def test_keys_reach_the_loss() -> None:
    loss = losses.build("softmax_focal", {"gamma": 0.5}, class_counts=COUNTS)
    assert isinstance(loss, SoftmaxFocal)
    assert loss.gamma == 0.5


def test_class_counts_may_be_a_list() -> None:
    logits, targets = torch.eye(3), torch.arange(3)
    values = [
        losses.build("ldam", class_counts=counts)(logits, targets) for counts in (COUNTS, [6, 3, 1])
    ]
    assert values[0] == values[1]


def test_a_misspelt_loss_names_its_neighbour_and_never_falls_back() -> None:
    with pytest.raises(ValueError, match="did you mean softmax_focal"):
        losses.build("sofmax_focal", class_counts=COUNTS)


def test_a_private_file_is_no_loss() -> None:
    with pytest.raises(ValueError, match="no loss is called '_base': choose from asymmetric"):
        losses.build("_base", class_counts=COUNTS)


def test_a_new_file_is_a_new_loss_and_gets_its_facts(plugin: str) -> None:
    loss = losses.build(plugin, {"scale": 3.0}, class_counts=COUNTS)
    assert plugin in losses.names()
    assert (loss.num_classes, loss.class_counts, loss.scale) == (3, COUNTS, 3.0)


ON_A_SOFTMAX = [
    n for n in losses.names() if losses.build(n, class_counts=COUNTS).activation == "softmax"
]


@pytest.mark.parametrize("kind", ["labels", "soft", "dense"])
@pytest.mark.parametrize("name", ON_A_SOFTMAX)
def test_one_logit_for_two_classes_is_refused_by_losses_on_a_softmax(name: str, kind: str) -> None:
    loss = losses.build(name, class_counts=[5, 3], old_classes=[0, 1])
    shape = (4, 1, 2) if kind == "dense" else (4, 1)
    targets = torch.full(shape, 0.5) if kind == "soft" else torch.zeros(4, *shape[2:]).long()
    with pytest.raises(ValueError, match="a softmax over one logit is always 1"):
        loss(
            torch.zeros(shape),
            targets,
            features=torch.ones(4, 2),
            teacher_logits=torch.zeros(shape),
        )


@pytest.mark.parametrize("name", ["binary_cross_entropy", "balanced_binary_cross_entropy"])
def test_a_loss_of_one_class_says_that_one_output_is_for_two(name: str) -> None:
    loss = losses.build(name, class_counts=[5])
    with pytest.raises(ValueError, match="of 1 output do not fit a loss that was made for 1 class"):
        loss(torch.zeros(2, 1), torch.tensor([0, 0]))


@pytest.mark.parametrize("key", ["gama", "class_counts"])
def test_a_key_that_a_loss_does_not_have_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"softmax_focal has no key '{key}': choose from gamma, "):
        losses.build("softmax_focal", {key: 2.0}, class_counts=COUNTS)


@pytest.mark.parametrize("targets", [[[1.0, 0.0]], [[0.0]]])
def test_soft_targets_of_a_single_output_are_not_read_as_labels(targets: list[list[float]]) -> None:
    loss = losses.build("balanced_binary_cross_entropy", class_counts=[5, 0])
    found = loss(torch.zeros(1, 1), torch.tensor(targets))
    assert found == loss(torch.zeros(1, 1), torch.tensor([0]))
