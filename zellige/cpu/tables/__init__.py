"""The tables that kernels walk, computed with numpy from layouts: one file a kernel family."""
