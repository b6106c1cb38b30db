"""Sparse products for NVIDIA GPUs: weights cut into tiles for tensor cores. Needs torch and triton, loaded with what uses them."""
