"""Layers in tiles as modules, and the races against the dense layer that choose how each runs."""
