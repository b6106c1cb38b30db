"""The simulator against what a layer made by hand should compute."""

import numpy as np
import pytest
from hand_made import Layer, cycles, step

from zellige.aie2.simulate import simulate


@pytest.mark.parametrize("layer", [
    Layer(1, 1), Layer(), Layer(4, 4, steps=2), Layer(3, 1), Layer(4, 2, groups=3, height=1, width=5), Layer(6, 2, device="paper"), Layer(5, 3, device="paper"), Layer(8, 2, device="paper"),
    Layer(2, 3, device="ve2802"),
], ids=str)  # fmt: skip
def test_a_layer_made_by_hand(layer: Layer) -> None:
    run = simulate(layer.program(), {"x": layer.x()}, step, cycles)
    assert np.array_equal(run.host["y"].view(np.int8).reshape(layer.result().shape), layer.result())
