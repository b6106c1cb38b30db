"""One-shot pruning by layer-wise reconstruction: what stays gets new values, such that outputs on calibration data change least."""

from zellige.prune.arguments import named
from zellige.prune.solvers.admm import ADMM
from zellige.prune.solvers.fixed_order import FixedOrder
from zellige.prune.solvers.obs import OBS
from zellige.prune.solvers.problem import Problem, Solution, Solver
from zellige.prune.solvers.reconstruct import Reconstruction, Task, reconstruct

__all__ = ["ADMM", "OBS", "SOLVERS", "FixedOrder", "Problem", "Reconstruction", "Solution", "Solver", "Task", "reconstruct",
           "solver_named"]

SOLVERS: dict[str, Solver] = {"obs": OBS(), "fixed-order": FixedOrder(), "admm": ADMM()}
"""Name → the solver at its defaults. A new one is a file beside these, and a row here."""


def solver_named(solver: str | Solver) -> Solver:
    """The solver of that name; one that is given as an object is itself.

    Raises:
        PruneError: there is none.
    """
    return solver if isinstance(solver, Solver) else named("solver", SOLVERS, solver)
