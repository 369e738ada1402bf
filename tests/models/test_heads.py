"""Linear and cosine heads."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.heads.cosine import Cosine
from models.heads.linear import Linear


def test_cosine_logits_are_the_cosines_of_the_angles() -> None:
    head = Cosine(5, 3)
    features = torch.randn(4, 5)
    rows = features[:, None].expand(4, 3, 5)
    expected = F.cosine_similarity(rows, head.weight.expand(4, 3, 5), dim=2)
    torch.testing.assert_close(head(features), expected)


@given(scale=st.floats(1e-3, 1e3), stretch=st.floats(1e-3, 1e3))
def test_lengths_of_features_and_weights_do_not_matter(scale: float, stretch: float) -> None:
    head = Cosine(5, 3)
    stretched = copy.deepcopy(head)
    stretched.weight.data *= stretch
    features = torch.linspace(-1, 1, 10).view(2, 5)
    torch.testing.assert_close(stretched(scale * features), head(features))


def test_the_scale_is_one() -> None:
    head = Cosine(5, 3)
    torch.testing.assert_close(head(head.weight.detach()).diagonal(), torch.ones(3))


def test_the_cosine_head_has_no_bias_and_starts_with_rows_of_length_one() -> None:
    head = Cosine(500, 20)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(20))


def test_the_cosine_head_starts_from_a_uniform_distribution() -> None:
    torch.manual_seed(0)
    weight = Cosine(500, 20).weight.detach() * math.sqrt(500 / 3)
    assert weight.abs().max() < 1.1  # a normal distribution would reach 1.7
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-10])
def test_features_without_length_give_finite_logits_and_bounded_gradients(length: float) -> None:
    head = Cosine(5, 3)
    features = torch.full((2, 5), length, requires_grad=True)
    logits = head(features)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert features.grad.norm(dim=1).max() <= 3 / Cosine.shortest
    assert torch.isfinite(head.weight.grad).all()


def test_features_of_length_zero_give_logits_of_zero() -> None:
    assert not Cosine(5, 3)(torch.zeros(2, 5)).any()


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_prior_of_one_in_c_starts_the_bias_at_minus_log_c_minus_one(classes: int) -> None:
    head = Linear(4, classes, "default", 1 / classes)
    expected = torch.full((classes,), -math.log(classes - 1))
    torch.testing.assert_close(head.bias.detach(), expected)


@given(prior=st.floats(1e-6, 1 - 1e-6))
def test_the_sigmoid_of_the_bias_is_the_prior(prior: float) -> None:
    bias = Linear(4, 1, "default", prior).bias.double()
    assert math.isclose(bias.sigmoid().item(), prior, rel_tol=1e-5)


def test_without_a_prior_the_bias_is_torchs() -> None:
    torch.manual_seed(0)
    ours = Linear(4, 3, "default", None)
    torch.manual_seed(0)
    torchs = torch.nn.Linear(4, 3)
    assert torch.equal(ours.bias, torchs.bias)
    assert torch.equal(ours.weight, torchs.weight)


def test_kaiming_weights_are_wider_than_torchs_and_leave_the_bias() -> None:
    torch.manual_seed(0)
    head = Linear(64, 500, "kaiming", None)
    assert head.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.02)
    assert head.bias.abs().max() <= 1 / math.sqrt(64)
