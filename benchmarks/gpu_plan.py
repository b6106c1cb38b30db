"""The sections of ``gpu.py``: what is done side by side and what is timed, in which order and for how long."""

from __future__ import annotations

import gpu_backward
import gpu_block_convolution
import gpu_blocks
import gpu_compiled
import gpu_convolution
import gpu_correctness
import gpu_fp8
import gpu_layers
import gpu_networks
import gpu_preparation
import gpu_vectors
from gpu_run import Section

BUDGET = 465.0
"""Seconds for everything: less than eight minutes, with what Python takes to start."""

RIGHT: dict[str, Section] = {
    "compile": gpu_preparation.layers, "blocks correctness": gpu_blocks.correctness, "networks": gpu_networks.correctness,
    "compile networks": gpu_preparation.networks, "tile-vector-wise correctness": gpu_vectors.correctness,
    "fp8 correctness": gpu_fp8.correctness, "block convolution correctness": gpu_block_convolution.correctness,
    "correctness": gpu_correctness.correctness, "network kernels": gpu_networks.kernels, "compiled": gpu_compiled.compiled,
    "backward correctness": gpu_backward.correctness, "convolution correctness": gpu_convolution.correctness,
    "accesses": gpu_correctness.accesses, "compile max-autotune": gpu_preparation.tuning,
}
"""Is everything right? And what is timed later is compiled. All at once; whose jobs are done first comes first."""

RIGHT_SECONDS = 140.0

FAST: dict[str, tuple[Section, float]] = {
    "ceilings": (gpu_layers.ceilings, 4), "blocks": (gpu_layers.blocks, 12), "blocks 2:4": (gpu_layers.two_four, 18),
    "paired blocks": (gpu_layers.paired, 9), "large layers": (gpu_layers.large, 20), "tile-vector-wise": (gpu_layers.vectors, 15),
    "bert-base": (gpu_networks.bert, 80), "other sparsities": (gpu_layers.others, 14),
    "block convolution": (gpu_block_convolution.block_convolution, 15), "fp8": (gpu_fp8.fp8, 11), "vgg-16": (gpu_networks.vgg, 34),
    "resnet-50": (gpu_networks.resnet, 30), "linear": (gpu_layers.linears, 12), "backward": (gpu_backward.backward, 12),
    "convolution": (gpu_convolution.convolution, 15), "small layers": (gpu_layers.small, 10),
    "uneven tiles": (gpu_layers.uneven, 3), "max-autotune": (gpu_layers.autotuned, 11),
}
"""How fast is it? What it is, and seconds that it should have; one after another, what matters most first."""
