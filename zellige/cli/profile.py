"""``zellige profile``: where the time goes, layer by layer."""

from __future__ import annotations

from zellige.cli.arguments import (
    Batch,
    Dtype,
    Json,
    ModelOrFile,
    PatternText,
    Scope,
    Score,
    Shape,
    Sparsity,
    Target,
    Threads,
    Tune,
    Weights,
    Winograd,
)
from zellige.cli.network import EngineChoice, NetworkChoice
from zellige.terminal import working, write_json


def profile(
    model: ModelOrFile,
    weights: Weights = None,
    pattern: PatternText = None,
    sparsity: Sparsity = None,
    scope: Scope = "layer",
    score: Score = "l1",
    batch: Batch = 1,
    shape: Shape = None,
    target: Target = "cpu",
    dtype: Dtype = None,
    threads: Threads = None,
    winograd: Winograd = True,
    tune: Tune = "model",
    json: Json = None,
) -> None:
    """Time every layer of MODEL once compiled: µs, beside the model's and the least possible; GFLOP/s, share of peak, GB/s, what
    bounds it; path and reason. On a GPU: µs in its place, beside what it took alone when its way was chosen."""
    network = NetworkChoice(model, weights, batch, shape, pattern, sparsity, scope, score)
    engine = EngineChoice(target, dtype, threads, winograd, tune).engine(network)
    with working("timing layers"):
        timed = engine.profile()
    write_json(json, {"model": model, **timed.to_json()})
    print(timed)
