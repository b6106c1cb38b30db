"""Who is fast but wrong does not win: by bits that are off, places that are not written, and layers of every kind and order."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from zellige.cuda.layers import timing
from zellige.cuda.layers.agreement import Agreement, Answer
from zellige.cuda.layers.choices import Choice, ChoiceCache
from zellige.cuda.layers.choosing import fastest_way
from zellige.cuda.layers.timing import fastest
from zellige.cuda.network.expected import expected
from zellige.cuda.network.layers import FEATURES, ORDERS, TOKENS, Attention, Convolution, Layer, Linear, Norm
from zellige.cuda.network.modules import ACTIVATIONS
from zellige.cuda.tiling.convolution_tiles import Window
from zellige.errors import CompileError


class Replayed:
    """A capture without a GPU: its calls are made again in every replay, into the same results."""

    def __init__(self, calls: list[Callable[[], torch.Tensor]]) -> None:
        self.calls, self.count = calls, len(calls)
        self.results = [call().clone() for call in calls]

    def replay(self) -> tuple[Moment, Moment]:
        for call, result in zip(self.calls, self.results, strict=True):
            written = call()
            result.copy_(written) if written.shape == result.shape else result[:len(written)].copy_(written)
        return Moment(), Moment()


class Moment:
    def elapsed_time(self, other: Moment) -> float:
        return 1.0


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Repeated", Replayed)
    monkeypatch.setattr("zellige.cuda.layers.choosing.Repeated", Replayed)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


WEIGHT = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))


def test_a_wrong_way_does_not_win(replays: None, tmp_path: Path) -> None:
    """It is told, and the choice not kept: nothing may rely on it tomorrow."""
    cache, dense = ChoiceCache(tmp_path / "choices"), lambda x: functional.linear(x, WEIGHT)

    def choose(factor: float) -> Choice:
        return fastest_way("key", dense, {"columns": lambda: lambda config, x: dense(x) * factor}, {"columns": [None]},
                           torch.empty(8, 40), cache, (8,))

    choice = choose(1.1)
    assert choice.way == "dense" and len(choice.failed) == 1
    assert choice.failed[0].startswith("columns: CompileError: its answer is off by ")
    right = choose(1.01)
    assert right.failed == () and choose(1.1) == right  # that one was kept


def test_places_that_are_not_written_are_noticed(replays: None) -> None:
    """Though what lies there is right: it may have been left by another."""
    whole = torch.ones(6, 3)
    calls = iter([whole, whole[:4], whole[:4], whole[:4]])
    agreement = Agreement(lambda: Answer.of_product(whole))
    _, failed = fastest({"half": lambda: Replayed([lambda: next(calls)])}, check=agreement.check)  # type: ignore[dict-item]
    assert "its answer is off by nan" in failed["half"]


def test_who_failed_is_let_go_before_the_next_is_made(replays: None) -> None:
    """Both together might not fit the memory."""
    lives: list[weakref.ref[Replayed]] = []

    def prepare() -> Replayed:
        assert all(life() is None for life in lives)
        made = Replayed([lambda: torch.zeros(3)])
        lives.append(weakref.ref(made))
        return made

    agreement = Agreement(lambda: Answer.of_product(torch.ones(3)))
    _, failed = fastest(dict.fromkeys(("one", "other"), prepare), check=agreement.check)  # type: ignore[arg-type]
    assert len(lives) == 2 and all("is off by" in reason for reason in failed.values())


@pytest.mark.parametrize("odd", [torch.inf, torch.nan])
def test_what_is_no_number_may_agree(odd: float) -> None:
    agreement = Agreement(lambda: Answer.of_product(torch.tensor([1.0, odd])))
    agreement.check(torch.tensor([1.0, odd]))
    for wrong in ([1.1, odd], [odd, odd], [1.0, 1.0]):
        with pytest.raises(CompileError, match="off by"):
            agreement.check(torch.tensor(wrong))


def test_memory_for_the_dense_answer_runs_out(replays: None, tmp_path: Path) -> None:
    def dense(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        fastest_way("key", dense, {"columns": lambda: lambda config, x: x}, {"columns": [None]}, torch.empty(8, 40),
                    ChoiceCache(tmp_path / "choices"), (8,))


# ------------------------------------------------------------------------------------------------- layers of networks


def layer_of(kind: str, bias: float | None, activation: str, dtype: torch.dtype) -> tuple[Layer, tuple[int, ...], tuple[int, ...]]:
    """A layer of 24 features, the lead of its result, and the shape of its operand as PyTorch has it."""
    draw = torch.Generator().manual_seed(1)
    kernel, gain, added = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((24, 5, 3, 2), (24,), (24,)))
    added = None if bias is None else bias * added
    made: dict[str, tuple[Layer, tuple[int, ...], tuple[int, ...]]] = {
        "linear": (Linear(("one",), (WEIGHT.to(dtype),), added, activation, 960), (6,), (6, 40)),
        "convolution": (Convolution(("one",), kernel, added, Window((3, 2), (2, 1)), 7, 4, activation), (2, 3, 3), (2, 5, 7, 4)),
        "norm": (Norm(("one",), 24, gain, added, 1e-5), (6,), (6, 24)),
        "attention": (Attention(("one",), 24, 3, 3, 0.3), (2, 3), (6, 72))}
    return made[kind]


def exact(layer: Layer, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens × features, or a map, in float64 by PyTorch."""
    x = x.double()
    if isinstance(layer, Attention):
        heads = x.reshape(2, 3, 3, 3, 8).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(*heads, scale=0.3).transpose(1, 2).reshape(6, 24)
    bias = None if layer.bias is None else layer.bias.double()
    if isinstance(layer, Norm):
        return functional.layer_norm(x, (24,), None if layer.weight is None else layer.weight.double(), bias, 1e-5)
    y = functional.linear(x, layer.weight.double(), bias) if isinstance(layer, Linear) else functional.conv2d(
        x, layer.weight.double(), bias, layer.window.stride)
    return ACTIVATIONS[layer.activation](y if residual is None else y + residual.double())


@given(kind=st.sampled_from(["linear", "convolution", "norm", "attention"]), orders=st.tuples(*[st.sampled_from(ORDERS)] * 2),
       activation=st.sampled_from(list(ACTIVATIONS)), bias=st.sampled_from([None, 1.0, 300.0]), added=st.booleans(),
       dtype=st.sampled_from([torch.bfloat16, torch.float16]), seed=st.integers(0, 99))
def test_the_exact_answer_agrees_and_a_wrong_one_does_not(kind: str, orders: tuple[str, str], activation: str, bias: float | None,
                                                          added: bool, dtype: torch.dtype, seed: int) -> None:
    """The exact one rounded, which a large bias may drown; wrong are zeros in place of the first row, token or image."""
    layer, lead, shape = layer_of(kind, bias, activation, dtype)
    orders = (TOKENS, TOKENS) if isinstance(layer, Convolution) else orders
    draw = torch.Generator().manual_seed(seed)
    x, residual = torch.randn(shape, generator=draw).to(dtype), None
    if added and isinstance(layer, Linear | Convolution):
        residual = torch.randn(exact(layer, x).shape, generator=draw).to(dtype)

    def laid(tensor: torch.Tensor, order: str) -> torch.Tensor:
        return tensor.T.contiguous() if order == FEATURES else tensor

    answer = expected(layer, orders, lead, laid(x, orders[0]), None if residual is None else laid(residual, orders[1]))
    right = laid(exact(layer, x, residual), orders[1]).to(dtype).reshape(answer.numbers.shape)
    agreement = Agreement(lambda: answer)
    agreement.check(right)
    wrong = right.clone()
    wrong[0] = 0
    if right[0].norm() > 0.1 * right.norm() and bias != 300.0:
        with pytest.raises(CompileError):
            agreement.check(wrong)
