"""Graph → LLVM IR → machine code for CPUs."""
