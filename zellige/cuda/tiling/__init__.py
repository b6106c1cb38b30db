"""Weights as data: which tiles are left of them, rows and columns in which order, who computes which part. No GPU is needed."""
