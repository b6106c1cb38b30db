"""Estimates: what a program should take, phase by phase, and what bounds it. A model's numbers, from no chip."""

from zellige.aie2.estimate.phases import PhaseTime, phase_times
from zellige.aie2.estimate.picture import timeline_figure

__all__ = ["PhaseTime", "phase_times", "timeline_figure"]
