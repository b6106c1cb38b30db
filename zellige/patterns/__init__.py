"""What may be zero: patterns cut weights into blocks; scores go in, masks come out. Pure functions on tensors."""

from zellige.patterns.block import Block
from zellige.patterns.parse import PATTERNS, parse_pattern
from zellige.patterns.pattern import Census, Pattern
from zellige.patterns.shape import WeightShape

__all__ = ["PATTERNS", "Block", "Census", "Pattern", "WeightShape", "parse_pattern"]
