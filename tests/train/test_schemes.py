"""Every scheme: zeros after every step, the asked sparsity in the end, and what its paper says in between."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from small_runs import OPTIMIZERS, Perceptron, assert_exact_zeros, batch, loss_of, train, training_of
from torch import nn

import zellige as zl
from zellige.errors import PruneError, RecipeError, TrainingError
from zellige.patterns import Block, WeightShape, parse_pattern
from zellige.prune.calibration import Calibration
from zellige.train.choice import Choice, Wish
from zellige.train.schemes import Dense, Fixed, Gradual, Lasso, Penalty, Regrow, Scheme, Stages, Ste
from zellige.train.schemes.lasso import shrink
from zellige.train.schemes.penalty import penalty
from zellige.train.schemes.regrow import exchanged
from zellige.train.training import SparseTraining

PRUNING: dict[str, Scheme] = {
    "fixed": Fixed(), "gradual": Gradual(), "gradual-rest": Gradual(shape="rest", until=0.5), "stages": Stages(floor=0.0, mini=2),
    "penalty": Penalty(), "lasso": Lasso(), "regrow": Regrow(every=3), "ste": Ste(), "ste-rarely": Ste(every=3, until=0.5),
}


def fresh(name: str) -> Scheme:
    return copy.deepcopy(PRUNING[name])


def run(training: SparseTraining, until: int | None = None) -> None:
    """A whole run, with an accuracy of 1 whenever one is wanted."""
    if training.step == 0:
        training.begin()
        if training.wants_evaluation:
            training.evaluated(1.0)

    def check() -> None:
        if training.sparsifier.masks:
            assert_exact_zeros(training.sparsifier)
        if training.wants_evaluation:
            training.evaluated(1.0)

    train(training, until, check)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", PRUNING)
def test_zeros_at_every_step_and_sparsity_in_the_end(name: str, optimizer: str) -> None:
    training = training_of(fresh(name), optimizer=optimizer)
    before = float(loss_of(training.model, 1000).detach())
    run(training)
    model = training.finish()
    assert_exact_zeros(training.sparsifier)
    for layer in training.choice.layers.values():
        census = Block(4, 4).verify(layer.weight.detach())
        assert census.clean and census.gone == census.blocks // 2, layer.name
    assert training.sparsity == 0.5 and model is training.model
    assert float(loss_of(model, 1000).detach()) < before


@pytest.mark.parametrize("name", PRUNING)
def test_a_run_that_is_cut_in_two_is_the_same_run(name: str) -> None:
    whole = training_of(fresh(name))
    run(whole)
    first = training_of(fresh(name))
    run(first, until=9)
    file = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict(), "training": first.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = training_of(fresh(name))
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])
    second.load_state_dict(state["training"])
    assert second.step == 9
    run(second)
    for training in (whole, second):
        training.finish()
    for left, right in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_fixed_chooses_as_prune_does() -> None:
    training = training_of(Fixed())
    reference = copy.deepcopy(training.model)
    zl.prune(reference, "block:4x4", 0.5)
    training.begin()
    assert all(torch.equal(a, b) for a, b in zip(training.model.parameters(), reference.parameters(), strict=True))


def test_fixed_holds_what_is_zero_already() -> None:
    training = training_of(Fixed(), pattern=None)
    with pytest.raises(TrainingError, match="no zeros to hold"):
        training.begin()
    zl.prune(training.model, "nm:2:4", 0.5)
    training.begin()
    train(training)
    assert zl.NM(2, 4).verify(training.model.head.weight.detach()).clean and training.sparsity == 0.5


def test_dense_training_is_what_the_optimiser_does() -> None:
    training = training_of(Dense(), pattern=None)
    other = training_of(Dense(), pattern=None)
    training.begin()
    train(training)
    for step in range(20):
        other.optimizer.zero_grad()
        loss_of(other.model, step).backward()
        other.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(training.model.parameters(), other.model.parameters(), strict=True))


def test_gradual_cuts_follow_the_schedule() -> None:
    training = training_of(Gradual(cuts=4, until=0.5), pattern="unstructured")
    seen = []
    training.begin()
    train(training, check=lambda: seen.append(training.sparsifier.sparsity))
    assert seen == sorted(seen) and len({round(share, 6) for share in seen}) == 4 and seen[9:] == [0.5] * 11
    assert abs(seen[0] - 0.5 * (1 - 0.75**3)) < 1e-3
    rest = training_of(Gradual(shape="rest", rate=0.5, until=0.9), pattern="block:8x8")
    goal, gone = rest.choice.goal, []
    rest.begin()
    train(rest, check=lambda: gone.append(rest.sparsifier.sparsity))
    assert goal == 12 and gone[-1] == 0.5 and len(set(gone)) > 3


def test_a_run_that_ends_early_is_pruned_all_the_same() -> None:
    training = training_of(Gradual())
    training.begin()
    train(training, until=3)
    assert training.sparsity < 0.5
    training.finish()
    assert training.sparsity == 0.5


def stages(**options: object) -> SparseTraining:
    options = {"mini": 2, "patience": 2, "groups": [["body"], ["head"]], "stages": [0.25]} | options
    training = training_of(Stages(**options), steps=60)  # type: ignore[arg-type]
    training.begin()
    assert training.wants_evaluation and not training.sparsifier.masks
    training.evaluated(0.9)
    return training


def sparsity_of(training: SparseTraining) -> dict[str, float]:
    return {name: 1 - float(mask.double().mean()) for name, mask in training.sparsifier.masks.items()}


def test_stages_take_groups_in_turn() -> None:
    training = stages(floor=0.5)
    bodies = {"body.0.weight": 0.25, "body.3.weight": 0.25}
    assert sparsity_of(training) == bodies
    for expected in ({**bodies, "head.weight": 0.25}, {**dict.fromkeys(bodies, 0.5), "head.weight": 0.25},
                     dict.fromkeys([*bodies, "head.weight"], 0.5)):
        train(training, training.step + 1)
        assert not training.wants_evaluation
        train(training, training.step + 1)
        training.evaluated(0.6)
        assert sparsity_of(training) == expected
    train(training, training.step + 2)
    training.evaluated(0.6)
    train(training, training.step + 4)
    assert not training.wants_evaluation


def test_a_group_that_fails_is_given_back_and_frozen() -> None:
    training = stages(floor=None, drop=0.1)
    train(training, 2)
    training.evaluated(0.81)  # 0.9 − 0.1 is the floor
    head = training.model.head.weight
    dense = training.scheme.before["head.weight"][1]  # type: ignore[attr-defined]
    taken = ~training.sparsifier.masks["head.weight"]
    assert bool((head[taken] == 0).all()) and bool((dense[taken] != 0).all())
    for _ in range(2):
        train(training, training.step + 2)
        training.evaluated(0.7)
    assert bool((head.detach()[taken] == dense[taken]).all()) and not bool((head.detach()[~taken] == dense[~taken]).any())
    assert sparsity_of(training) == {"body.0.weight": 0.5, "body.3.weight": 0.5, "head.weight": 0.0}
    train(training, training.step + 2)
    training.evaluated(0.85)
    assert training.scheme.frozen == [1] and not training.wants_evaluation  # type: ignore[attr-defined]
    assert_exact_zeros(training.sparsifier)


def test_stages_refuse_groups_that_match_nothing() -> None:
    training = training_of(Stages(groups=[["body"], ["legs"]]))
    with pytest.raises(PruneError, match="legs"):
        training.begin()


def test_group_lasso_against_its_definition() -> None:
    torch.manual_seed(0)
    weight, amount = torch.randn(9, 10, dtype=torch.float64), 0.7
    expected = weight.clone()
    for row in range(0, 9, 4):
        for column in range(0, 10, 4):
            part = expected[row:row + 4, column:column + 4]
            threshold = amount * part.numel() ** 0.5
            part *= max(0.0, 1 - threshold / float(part.norm()))
    shrunk = weight.clone()
    shrink(shrunk, Block(4, 4), WeightShape((9, 10)), amount)
    assert torch.allclose(shrunk, expected, rtol=1e-12, atol=0) and bool((shrunk == 0).any()) and bool((shrunk != 0).any())


def test_the_lasso_makes_blocks_zero_by_itself() -> None:
    training = training_of(Lasso(strength=0.3, until=1.0), steps=60, optimizer="sgd")
    training.begin()
    train(training, 59)
    assert not training.sparsifier.masks and training.sparsity > 0.2


def test_rigl_exchanges_the_smallest_for_the_steepest() -> None:
    generator = torch.Generator().manual_seed(0)
    shape, pattern = WeightShape((12, 12)), Block(4, 4)
    mask = pattern.random_mask(shape, 0.5, generator)
    weight = torch.randn(12, 12, generator=generator) * mask
    gradient = torch.randn(12, 12, generator=generator)
    kept = {at for at in range(9) if bool(mask[block(at)].any())}
    smallest = sorted(kept, key=lambda at: float(weight[block(at)].abs().sum()))[:2]
    free = (set(range(9)) - kept) | set(smallest)
    steepest = sorted(free, key=lambda at: -float(gradient[block(at)].abs().sum()))[:2]
    moved = exchanged(pattern, shape, mask, weight, gradient, 0.4)
    assert {at for at in range(9) if bool(moved[block(at)].all())} == kept - set(smallest) | set(steepest)
    assert int(moved.sum()) == int(mask.sum())


def block(at: int) -> tuple[slice, slice]:
    row, column = divmod(at, 3)
    return slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)


def test_rigl_moves_blocks_and_they_begin_at_zero() -> None:
    training = training_of(Regrow(every=2, until=1.0))
    training.begin()
    first = {name: mask.clone() for name, mask in training.sparsifier.masks.items()}
    train(training, 2)
    grown = {name: mask & ~first[name] for name, mask in training.sparsifier.masks.items()}
    assert any(bool(mask.any()) for mask in grown.values())
    for name, parameter in training.parameters().items():
        assert bool((parameter[grown[name]] == 0).all())
        assert all(bool((memory[grown[name]] == 0).all()) for memory in training.optimizer.state[parameter].values()
                   if memory.shape == parameter.shape)
    train(training, 4)
    assert any(bool((parameter[grown[name]] != 0).any()) for name, parameter in training.parameters().items())


def test_sr_ste_is_what_the_paper_writes() -> None:
    """One linear layer by SGD, beside w ← w − γ (g(mask ⊙ w) + λ (1 − mask) ⊙ w) written out."""
    torch.manual_seed(0)
    model = nn.Linear(8, 4, bias=False).double()
    latent, decay, rate = model.weight.detach().clone(), 0.05, 0.1
    training = SparseTraining(model, Ste(decay=decay), Choice(model, Wish(zl.NM(2, 4), 0.5)),
                              torch.optim.SGD(model.parameters(), lr=rate), 11)
    training.begin()
    for step in range(10):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step)).double()
        mask = zl.NM(2, 4).mask(latent.abs(), 0.5)
        assert torch.allclose(model.weight.detach(), latent * mask, rtol=1e-12, atol=0)
        model.zero_grad()
        model(x).square().mean().backward()
        training.before_step()
        training.optimizer.step()
        training.after_step()
        gradient = 2 * (latent * mask) @ x.T @ x / 20
        latent = latent - rate * (gradient + decay * latent.masked_fill(mask, 0))
    assert torch.allclose(training.scheme.latent["weight"], latent, rtol=1e-12, atol=1e-15)  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", [1, 2, 3])
@pytest.mark.parametrize("normalised", [True, False])
def test_penalties_are_what_the_paper_writes(form: int, normalised: bool) -> None:
    gamma, alpha, beta, iota, density = torch.tensor([-0.3, 0.2, 0.9, 1.4], dtype=torch.float64), 100.0, 0.7, 0.01, 0.5
    lse = torch.log(torch.exp(alpha * gamma).sum()) / alpha
    least = -torch.log(torch.exp(-alpha * gamma).sum()) / alpha
    if normalised:
        rest = beta * (0.55 - density) ** 2 + iota * 0.7
        outside = 0.3 / 4 + 0.4 / 4
    else:
        rest = beta * sum((value - 2) ** 2 for value in gamma.tolist()) + iota * 2.8
        outside = 0.3 + 0.4
    expected = {1: -(lse - least) + rest, 2: -(lse - least) + rest + outside, 3: -least / lse + rest + outside}[form]
    assert abs(float(penalty(gamma, density, form, normalised, alpha, beta, iota)) - float(expected)) < 1e-12


def test_gamma_gets_the_gradient_of_the_product() -> None:
    """Against autograd on Γ ⊙ W: both gradients of the first step."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8, bias=False).double()
    start, x = model.weight.detach().clone(), torch.randn(5, 8).double()
    scheme = Penalty(strength=0.0)
    training = SparseTraining(model, scheme, Choice(model, Wish(Block(4, 4), 0.5)), torch.optim.SGD(model.parameters(), lr=1.0), 10)
    training.begin()
    scheme.gammas["weight"].copy_(torch.tensor([1.0, 0.5, 0.25, 2.0]))
    scheme._show(training)
    model(x).square().sum().backward()
    gamma = torch.tensor([1.0, 0.5, 0.25, 2.0], dtype=torch.float64, requires_grad=True)
    weight = start.clone().requires_grad_()
    product = weight * gamma.reshape(2, 1, 2, 1).expand(2, 4, 2, 4).reshape(8, 8)
    (x @ product.T).square().sum().backward()
    training.before_step()
    assert torch.equal(model.weight.detach(), start)
    assert torch.allclose(model.weight.grad, weight.grad, rtol=1e-12)
    assert torch.allclose(scheme.gammas["weight"].grad.double(), gamma.grad, rtol=1e-6)


def test_the_normalised_penalty_reaches_the_density_and_the_written_one_does_not() -> None:
    """Alone, without a loss: Γ of the first comes to a mean of 0.5, that of the second runs off towards the number of blocks."""
    means = {}
    for normalised in (True, False):
        gamma = torch.linspace(0.9, 1.1, 64).requires_grad_()
        adam = torch.optim.Adam([gamma], lr=1e-2)
        for _ in range(400):
            adam.zero_grad()
            penalty(gamma, 0.5, 2, normalised, 100.0, 1.0, 1e-3).backward()
            adam.step()
        means[normalised] = float(gamma.detach().mean())
    assert abs(means[True] - 0.5) < 0.05
    assert means[False] > 2


def test_scores_from_data_and_tables_of_sparsities() -> None:
    torch.manual_seed(0)
    model = Perceptron()
    data = Calibration([batch(step) for step in range(3)], lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]))
    reference = copy.deepcopy(model)
    zl.prune(reference, "block:4x4", 0.5, score="taylor", data=data.data, loss=data.loss)
    training = SparseTraining(model, Fixed(), Choice(model, Wish(Block(4, 4), 0.5, score="taylor"), calibration=data),
                              OPTIMIZERS["sgd"](model.parameters()), 3)
    training.begin()
    assert torch.equal(model.head.weight, reference.head.weight)
    table = training_of(Gradual(until=0.5), sparsity={"body.0": 0.25, "head": 0.75})
    run(table)
    assert sparsity_of(table) == {"body.0.weight": 0.25, "head.weight": 0.75}


@pytest.mark.parametrize("name, pattern, sparsity, said", [
    ("gradual", "nm:2:4", 0.5, "little by little"),
    ("penalty", "nm:2:4", 0.5, "every block by itself"),
    ("lasso", "tile:8", 0.5, "every block by itself"),
    ("regrow", "vnm:4:2:8", 0.75, "every block by itself"),
    ("penalty", "block:4x4", {"head": 0.5}, "one sparsity"),
    ("stages", "block:4x4", {"head": 0.5}, "one sparsity"),
])
def test_wishes_that_a_scheme_cant_have(name: str, pattern: str, sparsity: object, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        training_of(fresh(name), pattern, sparsity)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme, options", [
    (Gradual, {"shape": "square"}), (Gradual, {"until": 1.5}), (Gradual, {"cuts": 0}), (Gradual, {"rate": -1}),
    (Penalty, {"form": 4}), (Penalty, {"alpha": "large"}), (Stages, {"stages": [0.5, 0.25]}), (Stages, {"floor": 2}),
    (Ste, {"every": True}), (Regrow, {"share": float("nan")}),
])
def test_options_that_make_no_sense(scheme: type[Scheme], options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        scheme(**options)


def test_schemes_need_something_to_prune() -> None:
    for name in ("gradual", "penalty", "ste"):
        with pytest.raises(RecipeError, match="pattern and a sparsity"):
            training_of(fresh(name), pattern=None)
    with pytest.raises(RecipeError, match="prunes nothing"):
        training_of(Dense())
    with pytest.raises(PruneError, match="No layer is left"):
        Choice(Perceptron(), Wish(parse_pattern("block:64x64"), 0.5))


@pytest.mark.parametrize("scheme", [Lasso(), Penalty()])
def test_schemes_that_learn_what_goes_refuse_frozen_weights(scheme: Scheme) -> None:
    training = training_of(scheme)
    frozen = training.parameters()["head.weight"].requires_grad_(False)
    before = frozen.clone()
    with pytest.raises(TrainingError, match=r"'head\.weight' is frozen"):
        training.begin()
    assert torch.equal(frozen, before)
