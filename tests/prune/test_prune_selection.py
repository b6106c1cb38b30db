"""Which layers are pruned, which stay dense, and what the report says of those."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from zellige.errors import PruneError
from zellige.patterns import Block
from zellige.prune import PruneReport, prune


class Net(nn.Module):
    """Defines its layers in another order than it runs them, and one that it never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Conv2d(3, 32, 3)
        self.body = nn.Sequential(nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 64, 1))
        self.depthwise = nn.Conv2d(64, 64, 3, groups=64)
        self.stem = nn.Conv2d(3, 32, 3)
        self.head = nn.Linear(64, 10)
        self.tiny = nn.Linear(10, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.depthwise(self.body(self.stem(image)))
        return self.tiny(self.head(features.mean((2, 3))))


IMAGE = torch.zeros(1, 3, 12, 12)


def reasons(report: PruneReport) -> dict[str, str]:
    return {row.name: str(row.reason) for row in report.skipped}


def pruned(report: PruneReport) -> list[str]:
    return [row.name for row in report.pruned]


def test_order_of_execution_finds_the_stem_and_the_unused() -> None:
    report = prune(Net(), Block(8, 8), 0.5, (IMAGE,))
    assert pruned(report) == ["body.0", "body.2", "head"]
    why = reasons(report)
    assert set(why) == {"extra", "depthwise", "stem", "tiny"}
    assert "unused" in why["extra"] and "depthwise" in why["depthwise"]
    assert "stem" in why["stem"] and "too small" in why["tiny"]


def test_order_of_definition_counts_without_inputs() -> None:
    report = prune(Net(), Block(8, 1), 0.5)
    assert pruned(report) == ["body.0", "body.2", "stem", "head"]  # three columns are enough for blocks one wide
    assert "stem" in reasons(report)["extra"]
    assert "too small" in reasons(prune(Net(), Block(8, 8), 0.5))["stem"]


def test_a_single_tensor_will_do_as_inputs() -> None:
    assert pruned(prune(Net(), Block(8, 8), 0.5, IMAGE)) == ["body.0", "body.2", "head"]


def test_full_names_force_what_stays_dense_by_default() -> None:
    report = prune(Net(), Block(8, 2), 0.5, (IMAGE,), targets=["stem", "extra", "tiny", "body"])
    assert pruned(report) == ["extra", "body.0", "body.2", "stem", "tiny"]
    assert reasons(report) == {"depthwise": "not among targets", "head": "not among targets"}


def test_patterns_and_module_names_select_without_forcing() -> None:
    report = prune(Net(), Block(8, 8), 0.5, (IMAGE,), targets=["re:st", "re:.*2", "head"])
    assert pruned(report) == ["body.2", "head"]
    assert "stem" in reasons(report)["stem"]


def test_ignore_wins_over_targets() -> None:
    report = prune(Net(), Block(8, 8), 0.5, targets=["re:body", "head"], ignore=["body.2", "re:h"])
    assert pruned(report) == ["body.0"]
    assert reasons(report)["head"] == "named in ignore"
    assert pruned(prune(Net(), Block(8, 8), 0.5, ignore="body")) == ["head"]


@pytest.mark.parametrize("argument", ["targets", "ignore"])
@pytest.mark.parametrize("entry", ["bod", "body.1", "Head", "re:.*norm", "re:0", "body.0.weight"])
def test_entries_that_match_nothing_are_errors(argument: str, entry: str) -> None:
    with pytest.raises(PruneError, match=rf"{argument} entry .* matches no"):
        prune(Net(), Block(8, 8), 0.5, **{argument: ["head", entry]})


def test_close_names_are_offered() -> None:
    with pytest.raises(PruneError, match=r"body\.2"):
        prune(Net(), Block(8, 8), 0.5, ignore=["body_2"])


@pytest.mark.parametrize("targets", ["re:(", [3], ["re:["]])
def test_entries_that_are_no_names_or_expressions_are_errors(targets: list[str]) -> None:
    with pytest.raises(PruneError, match="targets"):
        prune(Net(), Block(8, 8), 0.5, targets=targets)


def test_a_first_convolution_on_many_channels_is_no_stem() -> None:
    report = prune(nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3)), Block(8, 8), 0.5)
    assert pruned(report) == ["0", "1"]


def test_transposed_convolutions_are_listed() -> None:
    model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.ConvTranspose2d(32, 32, 3), nn.Conv3d(32, 32, 1))
    report = prune(model, Block(8, 8), 0.5)
    assert pruned(report) == ["0", "2"]
    assert "transposed" in reasons(report)["1"]


def test_subclasses_count_as_layers() -> None:
    class OwnLinear(nn.Linear):
        pass

    report = prune(nn.Sequential(OwnLinear(32, 32)), Block(8, 8), 0.5)
    assert [row.kind for row in report.pruned] == ["OwnLinear"]


def test_attention_uses_a_projection_that_it_never_calls() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.attend(tokens, tokens, tokens)[0]

    assert pruned(prune(Attention(), Block(8, 8), 0.5, (torch.zeros(1, 5, 32),))) == ["attend.out_proj"]


def test_asking_a_weight_for_its_dtype_is_no_use() -> None:
    class Curious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.busy = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.to(self.idle.weight.dtype) @ self.busy.weight.T

    assert pruned(prune(Curious(), Block(8, 8), 0.5, (torch.zeros(2, 32),))) == ["busy"]


def test_a_shared_weight_is_pruned_once() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    model[2].weight = model[0].weight
    report = prune(model, Block(8, 8), 0.5, scope="global")
    assert pruned(report) == ["0", "1"]
    assert reasons(report) == {"2": "shares its weight with 0"}
    assert report.totals.blocks == 128 and report.totals.removed == 64
    assert report.model_totals.weights == 2 * 64 * 64


def test_a_shared_weight_goes_by_all_its_names() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model.append(model[0])
    assert pruned(prune(model, Block(8, 8), 0.5, ignore=["2"])) == ["1"]
    assert pruned(prune(model, Block(8, 8), 0.5, targets=["2"])) == ["0"]


def test_a_weight_tied_to_an_embedding_is_warned_of() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(64, 32), "head": nn.Linear(32, 64)})
    model["head"].weight = model["embedding"].weight
    report = prune(model, Block(8, 8), 0.5)
    assert [warning for warning in report.warnings if "'embedding.weight'" in warning] == [report.warnings[-1]]


def test_computed_weights_are_left_alone() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(64, 64)), nn.Linear(64, 64))
    report = prune(model, Block(8, 8), 0.5)
    assert pruned(report) == ["1"]
    assert "parametrization" in reasons(report)["0"]


def test_a_weight_computed_from_what_it_learns_is_not_asked_for_in_training() -> None:
    """Spectral norm takes a step of its iteration whenever it gives a weight in training."""
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(64, 64)), nn.Linear(64, 64)).train()
    before = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("0")}
    assert pruned(prune(model, Block(8, 8), 0.5)) == ["1"]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("weight", [torch.rand(32, 1).expand(32, 32), torch.rand(63).as_strided((32, 32), (1, 1))])
def test_weights_that_share_numbers_among_themselves_are_left_alone(weight: torch.Tensor) -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[0].weight = nn.Parameter(weight)
    kept = weight.clone()
    report = prune(model, Block(8, 8), 0.5)
    assert pruned(report) == ["1"] and "expanded" in reasons(report)["0"] and torch.equal(weight, kept)


@pytest.mark.parametrize("weight", [torch.rand(32, 32).t(), torch.rand(64, 64)[::2, 16:48], torch.rand(32, 1).expand(32, 32) + 0])
def test_weights_may_lie_anyhow(weight: torch.Tensor) -> None:
    strewn, plain = (nn.Sequential(nn.Linear(32, 32)) for _ in range(2))
    strewn[0].weight, plain[0].weight = nn.Parameter(weight), nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    for model in (strewn, plain):
        assert prune(model, Block(8, 8), 0.5).totals.removed == 8
    assert torch.equal(strewn[0].weight, plain[0].weight)


def test_weights_that_are_no_floating_point_numbers_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model[0].weight = nn.Parameter(torch.ones(32, 32, dtype=torch.int8), requires_grad=False)
    report = prune(model, Block(8, 8), 0.5)
    assert pruned(report) == ["1"]
    assert "torch.int8" in reasons(report)["0"]


def test_mode_hooks_statistics_and_random_state_stay() -> None:
    model = Net().train()
    model.body.eval()
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    others = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith("weight")}
    state = torch.get_rng_state()
    prune(model, Block(8, 8), 0.5, (IMAGE,))
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(model.state_dict()[name], value) for name, value in others.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


class Counting(nn.Linear):
    """Counts its calls in a buffer, in evaluation mode as well."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if len(x) > 1:
            raise ValueError("one at a time")
        return super().forward(x)


@pytest.mark.parametrize("batch", [1, 2])
def test_buffers_stay_as_they_were(batch: int) -> None:
    model = Counting(32, 32)
    with nullcontext() if batch == 1 else pytest.raises(PruneError, match="can't run on example_inputs: ValueError: one at a time"):
        prune(model, Block(8, 8), 0.5, torch.zeros(batch, 32))
    assert model.calls == 0


def test_parameters_that_are_no_weights_may_be_made_in_inference_mode() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Identity()).eval()
    with torch.inference_mode():
        model[1] = nn.BatchNorm1d(32).eval()
    report = prune(model, Block(8, 8), 0.5, (torch.zeros(2, 32),))
    assert report.totals.removed == 8 and all(parameter.requires_grad for parameter in model.parameters())
