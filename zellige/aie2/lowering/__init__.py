"""Lowering: from a quantised graph and an overlay to a tile program. ``lower.py`` is the way in."""
