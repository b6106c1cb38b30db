"""The account of what is about to be cut: a row for every name that a layer goes by, and what a user should be warned of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from zellige.patterns import Pattern
from zellige.prune.cut import Cut, measure
from zellige.prune.layers import Choice, Layer, last_layer
from zellige.prune.report import Amounts, LayerReport
from zellige.prune.request import Chosen
from zellige.prune.solvers import Reconstruction
from zellige.prune.usage import place

NEARLY_EMPTY = 0.95


def rows_of(
    chosen: Chosen, cuts: Mapping[Layer, Cut], pattern: Pattern, solved: Mapping[Layer, Reconstruction]
) -> tuple[LayerReport, ...]:
    """What becomes of each layer of the model, in the order of definition. Reads the weights as they are before the cut."""
    return tuple(row for choice in chosen.choices
                 for row in _rows(choice, cuts.get(choice.layer), pattern, solved.get(choice.layer)))


def warnings_of(
    rows: Sequence[LayerReport], chosen: Chosen, cuts: Mapping[Layer, Cut], model: nn.Module, alike: bool
) -> tuple[str, ...]:
    """What a user may not have meant. ``alike``: every layer loses what was written."""
    last = cuts.get(last_layer(chosen.layers, chosen.in_use))
    return (*(() if alike else _emptied(rows)), *_silenced(last), *_tied(model, chosen.pruned))


def _rows(choice: Choice, cut: Cut | None, pattern: Pattern, solved: Reconstruction | None) -> Iterator[LayerReport]:
    """The report on a layer, then on the other names that its weight goes by."""
    layer, shape = choice.layer, choice.layer.shape
    amounts = measure(layer, cut)
    name = str(pattern) if cut else None
    yield LayerReport(layer.name, layer.kind, shape.dims, shape.groups, name, amounts, choice.reason,
                      None if solved is None else solved.errors)
    for alias in layer.aliases:
        reason = f"shares its weight with {layer.name}"
        yield LayerReport(alias, layer.kind, shape.dims, shape.groups, None, Amounts(), reason)


def _emptied(rows: Sequence[LayerReport]) -> Iterator[str]:
    """Under one threshold, say, a layer may come out far sparser than what was asked."""
    for row in rows:
        if row.pruned and row.sparsity > NEARLY_EMPTY:
            yield f"layer '{row.name}' is {row.sparsity:.2%} zero; to spare it, name it in ignore or take scope 'layer'"


def _silenced(cut: Cut | None) -> Iterator[str]:
    """Outputs of the network itself, classes say, may be among the rows that went."""
    if cut and (gone := int((~cut.mask.flatten(1).any(1)).sum())):
        yield (f"{gone} of {len(cut.mask)} outputs of layer '{cut.layer.name}', the last one, don't depend on the input any more; "
               "to spare them, name it in ignore")


def _tied(model: nn.Module, pruned: Sequence[Layer]) -> Iterator[str]:
    """A weight may also serve where no layer is in sight, as an output projection tied to its embedding does."""
    owners = {place(layer.weight): layer for layer in pruned}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer = owners.get(place(parameter))
        if layer and name.rpartition(".")[0] not in layer.names:
            yield f"'{name}' is the weight of layer '{layer.name}': its values changed, too"
