"""Which axes of a network's constants may be permuted, and together with which others."""

from zellige.graph.axes.groups import Axes, AxisGroup, FixedLines, Part, find_axes
from zellige.graph.axes.permute import Orders, permute_graph, sources

__all__ = ["Axes", "AxisGroup", "FixedLines", "Orders", "Part", "find_axes", "permute_graph", "sources"]
