"""Sparse products for NVIDIA GPUs: weights cut into tiles for tensor cores. Nothing here is imported before it is asked for."""
