"""Kernels as operators of PyTorch's, under ``torch.ops.zellige``: checked arguments, fake and autograd implementations."""
