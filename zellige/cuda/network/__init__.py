"""Whole networks: traced, rewritten, priced, decided, and put together again as one module that a CUDA graph captures."""
