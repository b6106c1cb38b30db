"""Every error that a user can cause.

A message says what was expected, what came, where (which layer, file or argument) and what to do about it.
"""

from __future__ import annotations

FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model's own code may raise while it runs or is traced."""


def in_one_line(error: BaseException) -> str:
    """What an error of somebody else's code says: its kind, and the first line that is not empty.

    >>> in_one_line(KeyError(101)), in_one_line(EOFError())
    ('KeyError: 101', 'EOFError: no message')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


class ZelligeError(Exception):
    """The base of all errors that a user can cause."""


class PruneError(ZelligeError):
    """A pattern, a selection of layers or a sparsity that does not fit the model."""


class NothingToPruneError(PruneError):
    """A model of which a pattern, or a selection, takes no layer at all."""


class RecipeError(ZelligeError):
    """A training recipe that says something impossible or unknown; with the line, where it came from a file.

    ``option`` is the key that is at fault, where it is known; with the keys around it, and dots between.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option

    def within(self, key: str) -> RecipeError:
        """The same error, of an option under that key."""
        return RecipeError(str(self), f"{key}.{self.option}" if self.option else key)


class TrainingError(ZelligeError):
    """Training that can't begin or go on: masks, data or a checkpoint that don't fit, or a loss that is not finite."""


class UnsupportedModelError(ZelligeError):
    """A model that can't be brought into the graph: dynamic control flow, or operators that are not known."""


class GraphError(ZelligeError):
    """A graph that breaks its own rules: unknown names, wrong shapes, an operator without a definition."""


class QuantizationError(ZelligeError):
    """A network that has no int8 form, or data that its scales can't be found from."""


class CompileError(ZelligeError):
    """A graph that can't be compiled for the asked target, dtype or instruction set."""


class SimulationError(CompileError):
    """A tile program that would go wrong on a chip: what happened, to whom, and where in memory or in the sequence."""


class DeadlockError(SimulationError):
    """Nothing can go on although something is left to do; with the cycle of waits."""


class RaceError(SimulationError):
    """Two accesses to the same bytes, one of them a write, that nothing puts in an order."""


class InputError(ZelligeError):
    """Inputs to a compiled network that do not match what it was compiled for."""


class FileFormatError(ZelligeError):
    """A ``.zlg`` file, or an emitted one, that is truncated, altered, inconsistent, or of a newer version."""


class CacheError(ZelligeError):
    """A machine code cache that can't be trusted or written."""


class UnsavedEngineError(ZelligeError):
    """An engine for a GPU that was to be written to a file."""

    def __init__(self, path: object) -> None:
        super().__init__(f"an engine for target cuda can't be written to {path}: what was chosen depends on the GPU. "
                         "Keep the model; compiling it again takes the choices from the cache")


class VerificationError(ZelligeError):
    """A compiled network whose answers differ from the reference by more than allowed."""


class BenchmarkError(ZelligeError):
    """A comparison that can't be made: a rival is missing, or its answers are wrong."""
