"""Tile programs as files, and back: MLIR-AIE text, the kernel's C++, data and a manifest."""
