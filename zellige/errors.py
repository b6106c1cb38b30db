"""Every error that a user can cause.

A message says what was expected, what came, where (which layer, file or argument) and what to do about it.
"""


class ZelligeError(Exception):
    """The base of all errors that a user can cause."""


class PruneError(ZelligeError):
    """A pattern, a selection of layers or a sparsity that does not fit the model."""


class UnsupportedModelError(ZelligeError):
    """A model that can't be brought into the graph: dynamic control flow, or operators that are not known."""


class GraphError(ZelligeError):
    """A graph that breaks its own rules: unknown names, wrong shapes, an operator without a definition."""


class CompileError(ZelligeError):
    """A graph that can't be compiled for the asked target, dtype or instruction set."""


class InputError(ZelligeError):
    """Inputs to a compiled network that do not match what it was compiled for."""


class FileFormatError(ZelligeError):
    """A ``.zlg`` file that is truncated, altered, inconsistent, or of a newer version."""


class CacheError(ZelligeError):
    """A machine code cache that can't be trusted or written."""


class VerificationError(ZelligeError):
    """A compiled network whose answers differ from the reference by more than allowed."""


class BenchmarkError(ZelligeError):
    """A comparison that can't be made: a rival is missing, or its answers are wrong."""
