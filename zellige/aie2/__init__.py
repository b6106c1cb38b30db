"""Networks on AMD AI Engines: a quantised graph → a tile program, its code, a simulator that runs it, and estimates of its time.

Nothing here has been accepted by a vendor's tool or run on a chip: times are estimates, from a model.
"""
