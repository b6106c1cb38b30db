"""What a run is to do, from beginning to end: a dataclass, or a YAML file with the same keys.

    pattern: block:8x8
    sparsity: 0.75
    scheme: {name: gradual, shape: cubic, until: 0.6}
    epochs: 8
    optimizer: {name: adamw, learning_rate: 2e-3}

Everything is checked before anything is trained; what is wrong in a file is named with its line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from zellige.errors import PruneError, RecipeError
from zellige.patterns import Pattern, parse_pattern
from zellige.prune.scores import DATA_SCORES, SCORES
from zellige.train.choice import Wish
from zellige.train.distillation import Distillation
from zellige.train.fields import filled, fitted, options_of, plain
from zellige.train.optimizers import OPTIMIZERS, OptimizerOptions
from zellige.train.precision import AUTOCAST
from zellige.train.recipe_file import RecipeFile
from zellige.train.schemes import SCHEMES, Scheme
from zellige.train.schemes.scheme import check_count, check_share, name_of

__all__ = ["OPTIMIZERS", "Distillation", "OptimizerOptions", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Pattern and sparsity as ``zl.prune`` takes them, the scheme by which they come about, and how to train.

    One of ``epochs`` and ``steps`` says how long. A step sees ``batch`` samples, of all processes together, in ``accumulate``
    parts. ``average`` is the decay of a moving average of the weights, which then is the result. ``clip`` is the most that the
    gradients' norm may be. ``calibration`` is how many batches scores that look at data see. ``data`` has options for data
    that are given by name. Evaluations and checkpoints come once an epoch where no number of steps is given.

    >>> recipe = Recipe(pattern="block:8x8", sparsity=0.5, epochs=4, scheme="gradual")
    >>> recipe.scheme.until
    0.6

    Raises:
        RecipeError: something in it is impossible.
    """

    pattern: str | Pattern | None = None
    sparsity: float | dict[str, float] | None = None
    scheme: Any = "fixed"
    score: str = "l1"
    scope: str = "layer"
    targets: str | list[str] | None = None
    ignore: str | list[str] | None = None
    calibration: int = 8
    epochs: int | None = None
    steps: int | None = None
    batch: int = 64
    accumulate: int = 1
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    label_smoothing: float = 0.0
    clip: float | None = None
    average: float | None = None
    precision: str = "f32"
    distillation: Distillation | None = None
    data: dict[str, Any] = field(default_factory=dict)
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    workers: int = 0
    seed: int = 0
    file: RecipeFile | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", _scheme(self.scheme))
        for name, hint in (("optimizer", OptimizerOptions), ("distillation", Distillation | None), ("data", dict[str, Any])):
            object.__setattr__(self, name, fitted(getattr(self, name), hint, name))
        if isinstance(self.pattern, Pattern):
            object.__setattr__(self, "pattern", str(self.pattern))
        for name in options_of(type(self)):
            object.__setattr__(self, name, plain(getattr(self, name)))
        for name in ("calibration", "batch", "accumulate"):
            check_count(name, getattr(self, name))
        for name in ("epochs", "steps", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_count("workers", self.workers, least=0)
        check_count("seed", self.seed, least=0)
        check_share("label_smoothing", self.label_smoothing)
        if self.average is not None:
            check_share("average", self.average)
        if self.clip is not None:
            check_share("clip", self.clip, most=float("inf"))
        if (self.epochs is None) == (self.steps is None):
            raise RecipeError("one of epochs and steps says how long to train: give one, and not both", "steps")
        if self.precision not in AUTOCAST:
            raise RecipeError(f"precision must be one of {', '.join(AUTOCAST)}, not {self.precision!r}", "precision")
        if self.score not in {**SCORES, **DATA_SCORES}:
            raise RecipeError(f"score must be one of {', '.join({**SCORES, **DATA_SCORES})}, not {self.score!r}", "score")
        self.scheme.check(self.wish)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe in a YAML file.

        Raises:
            RecipeError: it can't be read, or something in it is impossible; with the line.
        """
        file = RecipeFile.read(os.fspath(path))
        try:
            recipe = cls.of(file.content)
        except RecipeError as error:
            raise located(error, file) from error
        object.__setattr__(recipe, "file", file)
        return recipe

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Recipe:
        """The recipe in plain data, as ``as_dict`` gives it.

        Raises:
            RecipeError: something in it is impossible.
        """
        made: Recipe = filled(cls, content, "a recipe")
        return made

    @property
    def wish(self) -> Wish | None:
        """What is to be zero in the end; None if that is left to the model as it is.

        Raises:
            RecipeError: pattern and sparsity don't make one.
        """
        if (self.pattern is None) != (self.sparsity is None):
            given, lacking = ("pattern", "sparsity") if self.sparsity is None else ("sparsity", "pattern")
            raise RecipeError(f"{given} needs {lacking} beside it", given)
        if self.pattern is None or self.sparsity is None:
            return None
        try:
            pattern = parse_pattern(str(self.pattern))
        except PruneError as error:
            raise RecipeError(str(error), "pattern") from error
        wish = Wish(pattern, self.sparsity, self.score, self.scope, self.targets, self.ignore)
        try:
            wish.check()
        except PruneError as error:
            raise RecipeError(str(error), "sparsity") from error
        return wish

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """What goes wrong in here is this recipe's fault: it is named with its line, where the recipe comes from a file."""
        try:
            yield
        except (PruneError, RecipeError) as error:
            raise located(error, self.file) from error

    def as_dict(self) -> dict[str, Any]:
        """All of it as resolved, in plain data."""
        options = {name: getattr(self.scheme, name) for name in options_of(type(self.scheme))}
        whole = {name: getattr(self, name) for name in options_of(type(self))}
        plain = {"optimizer": asdict(self.optimizer), "distillation": self.distillation and asdict(self.distillation)}
        return {**whole, **plain, "scheme": {"name": name_of(self.scheme), **options}}

    def __str__(self) -> str:
        """As YAML: reading it gives the same recipe."""
        import yaml

        text: str = yaml.safe_dump(self.as_dict(), sort_keys=False, default_flow_style=None, width=120)
        return text.rstrip()


def located(error: Exception, file: RecipeFile | None) -> RecipeError:
    """The error with the line of what it is about, if there is a file."""
    if file is None:
        return error if isinstance(error, RecipeError) else RecipeError(str(error))
    way = tuple((getattr(error, "option", None) or "").split("."))
    known = [way[:length] for length in range(len(way), 0, -1) if way[:length] in file.keys]
    known += [path for path in file.keys if path[-1] == way[-1]]
    line = file.line(str(error), known[0] if known else ())
    return RecipeError(f"{file.name}{f', line {line}' if line else ''}: {error}")


def _scheme(given: Any) -> Scheme:
    """A scheme by its name, or by a mapping that has a name and options, or as it is."""
    if isinstance(given, Scheme):
        return given
    content = {"name": given} if isinstance(given, str) else given
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise RecipeError(f"scheme must be the name of one, or keys with a name among them; not {given!r}", "scheme")
    if content["name"] not in SCHEMES:
        raise RecipeError(f"scheme must be one of {', '.join(SCHEMES)}, not {content['name']!r}", "scheme")
    options = {name: value for name, value in content.items() if name != "name"}
    try:
        made: Scheme = filled(SCHEMES[content["name"]], options, f"scheme '{content['name']}'")
    except RecipeError as error:
        raise error.within("scheme") from error
    return made
