"""Names of parameters as the model itself has them, whatever it was wrapped in since.

Data-parallel and averaged models put ``module.`` in front of every name, adapters ``base_model.model.``; compiled, sharded and
checkpointed modules, and layers under an adapter, put a word in between. Masks are kept by the bare name.
"""

from __future__ import annotations

from torch import nn

IN_FRONT = ("module", "base_model.model")
IN_BETWEEN = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"})
WRAPPED_AS = ("_orig_mod", "_fsdp_wrapped_module", "module")


def bare_name(name: str) -> str:
    """The name without what wrappers added to it.

    >>> bare_name("_orig_mod.module.body._fsdp_wrapped_module.0.weight")
    'body.0.weight'
    """
    bare = ".".join(part for part in name.split(".") if part not in IN_BETWEEN)
    while True:
        front = next((front for front in IN_FRONT if bare.startswith(front + ".")), None)
        if front is None:
            return bare
        bare = bare.removeprefix(front + ".")


def bare_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by bare name, those with several names under each of them."""
    return {bare_name(name): parameter for name, parameter in model.named_parameters(remove_duplicate=False)}


def bare_module(model: nn.Module) -> nn.Module:
    """The model inside of what it was wrapped in as a whole.

    A module whose only child is called ``module`` and that has nothing of its own counts as a wrapper.
    """
    while True:
        children = dict(model.named_children())
        inner = next((children[name] for name in WRAPPED_AS if set(children) == {name}), None)
        if inner is None or next(model.parameters(recurse=False), None) is not None:
            return model
        model = inner
