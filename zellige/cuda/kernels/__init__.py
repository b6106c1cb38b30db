"""What runs on the GPU: Triton's kernels, CUDA C++ with its headers, how they may be configured, compiled and launched."""
