"""Passes: Graph → Graph, one idea a file, none changes its argument. `pipeline.optimize` runs them all."""
