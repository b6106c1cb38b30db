"""Graph → kernels for NVIDIA GPUs. Nothing here is imported before it is asked for."""
