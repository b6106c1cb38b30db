"""What may be zero: scores go in, masks come out. Pure functions on tensors."""

from zellige.patterns.block import Block
from zellige.patterns.block_vector_wise import BlockVectorWise
from zellige.patterns.channel import Channel
from zellige.patterns.nm import NM
from zellige.patterns.parse import PATTERNS, parse_pattern
from zellige.patterns.partition import Partition
from zellige.patterns.pattern import Census, Pattern
from zellige.patterns.scored import Scored
from zellige.patterns.shape import WeightShape
from zellige.patterns.tile_element_wise import TileElementWise
from zellige.patterns.tile_vector_wise import TileVectorWise
from zellige.patterns.tile_wise import TileWise
from zellige.patterns.unstructured import Unstructured
from zellige.patterns.vector_wise import VectorWise
from zellige.patterns.vnm import VNM

__all__ = [
    "NM", "PATTERNS", "VNM", "Block", "BlockVectorWise", "Census", "Channel", "Partition", "Pattern", "Scored", "TileElementWise",
    "TileVectorWise", "TileWise", "Unstructured", "VectorWise", "WeightShape", "parse_pattern",
]
