"""The graph: the intermediate representation, its rules, its reference, and the ways in."""
