"""Zeros stay exactly zero, whatever optimiser, wrapper or copy is in play."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from small_runs import OPTIMIZERS, Perceptron, assert_exact_zeros, batch, half_masks, loss_of, step_once
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import zellige as zl
from zellige.errors import TrainingError
from zellige.train import Sparsifier
from zellige.train.names import bare_module, bare_name
from zellige.train.stencil import blank, fits, stencil_of


def made(optimizer: str = "adamw") -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
    model = Perceptron()
    made_optimizer = OPTIMIZERS[optimizer](model.parameters())
    for step in range(2):  # memory of weights that are pruned only then
        step_once(model, made_optimizer, step)
    return model, made_optimizer, Sparsifier(model, half_masks(model), made_optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_and_memories_stay_zero(name: str) -> None:
    model, optimizer, sparsifier = made(name)
    assert_exact_zeros(sparsifier)
    for step in range(6):
        step_once(model, optimizer, step)
        sparsifier.step()
        assert_exact_zeros(sparsifier)
        for key, parameter in model.named_parameters():
            memories = [value for value in optimizer.state[parameter].values()
                        if isinstance(value, torch.Tensor) and value.shape == parameter.shape]
            assert memories
            assert all(bool((value[~sparsifier.masks[key]] == 0).all()) for value in memories if key in sparsifier.masks)


def test_without_the_step_zeros_come_back() -> None:
    model, optimizer, sparsifier = made()
    step_once(model, optimizer, 0)
    assert bool((model.head.weight[~sparsifier.masks["head.weight"]] != 0).any())


def test_kept_weights_move_as_if_the_others_had_never_been() -> None:
    """SGD on the masked weights alone, written out in float64."""
    torch.manual_seed(3)
    model = nn.Linear(6, 3, bias=False).double()
    mask = torch.rand(3, 6) < 0.5
    weight, velocity = model.weight.detach().clone() * mask, torch.zeros(3, 6).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsifier = Sparsifier(model, {"weight": mask}, optimizer)
    for step in range(5):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step)).double()
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        sparsifier.step()
        velocity = 0.9 * velocity + 2 * weight @ x.T @ x * mask
        weight = weight - 0.1 * velocity
    assert torch.allclose(model.weight.detach(), weight, rtol=1e-12, atol=0)


def test_averaged_copies_lose_what_is_pruned() -> None:
    model, optimizer, _ = made()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)
    sparsifier = Sparsifier(model, half_masks(model), optimizer, copies=[average])
    for step in range(3):
        step_once(model, optimizer, step)
        average.update_parameters(model)
        sparsifier.step()
        assert_exact_zeros(sparsifier, average)


def test_gradients_may_be_accumulated() -> None:
    model, optimizer, sparsifier = made("sgd")
    for step in range(4):
        optimizer.zero_grad()
        for part in range(3):
            (loss_of(model, 10 * step + part) / 3).backward()
        optimizer.step()
        sparsifier.step()
        assert_exact_zeros(sparsifier)


def test_autocast_and_a_skipped_step() -> None:
    model, optimizer, sparsifier = made("sgd")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = model.head.weight.detach().clone()
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, step)
        scaler.scale(loss).backward()
        if step == 1:
            model.head.weight.grad[0, 0] = torch.inf
            before = model.head.weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        sparsifier.step()
        assert_exact_zeros(sparsifier)
        assert torch.equal(model.head.weight, before) == (step == 1)


def test_infinite_values_are_zero_too() -> None:
    model, _, sparsifier = made()
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    sparsifier.step()
    assert bool((model.head.weight[~sparsifier.masks["head.weight"]] == 0).all())


def test_deep_copies_are_independent() -> None:
    model, optimizer, sparsifier = made()
    other_model, other_optimizer, other = copy.deepcopy((model, optimizer, sparsifier))
    assert other.model is other_model
    step_once(other_model, other_optimizer, 0)
    other.step()
    assert_exact_zeros(other)
    assert not torch.equal(other_model.head.weight, model.head.weight)
    alone = copy.deepcopy(model)
    again = sparsifier.on(alone)
    fresh = OPTIMIZERS["sgd"](alone.parameters())
    again.optimizers.append(fresh)
    step_once(alone, fresh, 1)
    again.step()
    assert_exact_zeros(again)


def test_state_dicts_go_round() -> None:
    model, optimizer, sparsifier = made()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "masks": sparsifier.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    torch.manual_seed(7)
    other = Perceptron()
    other_optimizer = OPTIMIZERS["adamw"](other.parameters())
    other.load_state_dict(state["model"])
    other_optimizer.load_state_dict(state["optimizer"])
    restored = Sparsifier(other, {}, other_optimizer)
    restored.load_state_dict(state["masks"])
    for step in range(3):
        for pair in ((model, optimizer, sparsifier), (other, other_optimizer, restored)):
            step_once(pair[0], pair[1], step)
            pair[2].step()
    assert_exact_zeros(restored)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("made_before", [True, False])
def test_compiled_models(made_before: bool) -> None:
    torch._dynamo.reset()
    model = Perceptron()
    masks = half_masks(model)
    early = Sparsifier(model, masks) if made_before else None
    compiled = torch.compile(model, backend="eager")
    optimizer = OPTIMIZERS["sgd"](compiled.parameters())
    sparsifier = early or Sparsifier(compiled, masks)
    sparsifier.optimizers.append(optimizer)
    for step in range(3):
        step_once(compiled, optimizer, step)
        sparsifier.step()
        assert_exact_zeros(sparsifier, model)
        assert torch.equal(compiled(batch(0)[0]), model(batch(0)[0]))
    assert sparsifier.finalize() is model


class Adapted(nn.Module):
    """A linear layer under a low-rank adapter, as adapters for language models keep it."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.a, self.b = nn.Linear(base_layer.in_features, 2, bias=False), nn.Linear(2, base_layer.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.b(self.a(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        merged = nn.Linear(self.base_layer.in_features, self.base_layer.out_features)
        merged.weight = nn.Parameter(self.base_layer.weight + self.b.weight @ self.a.weight)
        merged.bias = self.base_layer.bias
        return merged


def test_adapters_and_their_merge() -> None:
    model, _, sparsifier = made()
    model.head = Adapted(model.head)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    sparsifier.optimizers = [optimizer]
    step_once(model, optimizer, 0)
    sparsifier.step()
    assert bool((model.head.base_layer.weight[~sparsifier.masks["head.weight"]] == 0).all())
    model.head = model.head.merged()  # a parameter of its own, and dense
    assert bool((model.head.weight != 0).all())
    sparsifier.step()
    assert_exact_zeros(sparsifier)


def test_finalize_leaves_a_plain_module_that_compiles() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16))
    names, hooks = list(model.state_dict()), [type(module) for module in model.modules()]
    zl.prune(model, "block:8x8", 0.5)
    sparsifier = Sparsifier.of_zeros(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model(torch.ones(2, 32)).sum().backward()
    sparsifier.optimizers[0].step()
    plain = sparsifier.finalize()
    assert plain is model and list(model.state_dict()) == names and [type(module) for module in model.modules()] == hooks
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    x = torch.randn(1, 32)
    engine = zl.compile(model.eval(), (x,), threads=1)
    assert zl.verify(model, engine, (x,)).max_relative_error < 1e-5
    assert all(abs(float((model[at].weight == 0).float().mean()) - 0.5) < 1e-9 for at in (0, 2))


def test_tied_weights_and_aliases() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    model["b"].weight = model["a"].weight
    sparsifier = Sparsifier(model, {"b.weight": torch.eye(4) > 0})
    assert bool((model["a"].weight.detach() * (1 - torch.eye(4)) == 0).all()) and sparsifier.sparsity == 0.75


def test_of_zeros_holds_what_is_zero() -> None:
    model = Perceptron()
    with torch.no_grad():
        model.head.weight[1] = 0
    model.body[1].bias.data.zero_()  # no matrix of a layer: left alone
    assert set(Sparsifier.of_zeros(model).masks) == {"head.weight"}


def test_what_does_not_fit_is_refused() -> None:
    model = Perceptron()
    for masks, said in (
        ({"nowhere": torch.ones(2, dtype=torch.bool)}, "no parameter of the model"),
        ({"head.weight": torch.ones(2, 2, dtype=torch.bool)}, r"bool tensor of its shape \(4, 32\)"),
        ({"head.weight": torch.ones(4, 32)}, "not torch.float32"),
    ):
        with pytest.raises(TrainingError, match=said):
            Sparsifier(model, masks)
    for arguments, said in (
        (({}, {}), "takes a torch.nn.Module, not dict"), ((model, {}, 3), "expected an optimiser, or several, not int"),
        ((model, {}, [model]), "not Perceptron"),
    ):
        with pytest.raises(TrainingError, match=said):
            Sparsifier(*arguments)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"takes a torch\.nn\.Module, not dict"):
        Sparsifier.of_zeros({})  # type: ignore[arg-type]
    with torch.device("meta"), pytest.raises(TrainingError, match="meta device"):
        Sparsifier.of_zeros(Perceptron())
    sparsifier = Sparsifier(model, half_masks(model))
    with pytest.raises(TrainingError, match="with 'masks' in it"):
        sparsifier.load_state_dict({"weights": 1})
    model.head = nn.Linear(32, 5)
    with pytest.raises(TrainingError, match="flattened shard"):
        sparsifier.step()
    del model.head
    with pytest.raises(TrainingError, match="no such parameter any more"):
        sparsifier.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_stencils_of_all_types_and_layouts(dtype: torch.dtype, layout: torch.memory_format) -> None:
    whole = torch.randn(8, 7, 3, 5).to(dtype).to(memory_format=layout)
    whole[0, 0] = torch.nan
    for part in (whole.clone(memory_format=torch.preserve_format), whole.clone()[2:7, 1::2]):
        mask, before = torch.rand(part.shape) < 0.5, part.clone()
        mask[0, 0, 0] = False
        stencil = stencil_of(mask, part)
        assert fits(stencil, part) and not fits(stencil, part.to(torch.complex128))
        blank(part, stencil)
        assert torch.equal(part[mask].nan_to_num(7), before[mask].nan_to_num(7)) and bool((part[~mask] == 0).all())
        assert not bool(part[~mask].signbit().any())


def test_codes_of_optimisers_are_left_alone() -> None:
    model, optimizer, sparsifier = made("sgd")
    code = torch.full(model.head.weight.shape, 3, dtype=torch.uint8)
    optimizer.state[model.head.weight]["code"] = code
    sparsifier.step()
    assert bool((code == 3).all())


def test_names_without_wrappers() -> None:
    assert bare_name("module._orig_mod.a._checkpoint_wrapped_module.b") == "a.b"
    assert bare_name("base_model.model.fc.base_layer.weight") == "fc.weight"
    assert bare_name("body.module.weight") == "body.module.weight"
    model = Perceptron()
    assert bare_module(AveragedModel(model)).head.weight.shape == model.head.weight.shape
    assert bare_module(model) is model
