"""Data by name, as the command line writes it. A new source is a file with a dataclass of its options, and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from torch.utils.data import Dataset

from zellige.errors import RecipeError, TrainingError
from zellige.train.data.digits import Digits
from zellige.train.data.hub import HubDataset
from zellige.train.data.imagefolder import ImageFolder
from zellige.train.data.samples import Data, DatasetSamples, Samples
from zellige.train.data.text import Text

__all__ = ["SOURCES", "Data", "DatasetSamples", "Samples", "find_data"]


class Source(Protocol):
    """Options of a kind of data, and what loads it."""

    def load(self, path: str) -> Data: ...


SOURCES: dict[str, type[Any]] = {"digits": Digits, "imagefolder": ImageFolder, "text": Text, "hf": HubDataset}
EXAMPLES = "digits, imagefolder:PATH, text:PATH, hf:NAME_OR_DIRECTORY"


def find_data(wanted: Any, options: Mapping[str, Any] | None = None) -> Data:
    """Data by name, with the options of its kind; datasets as they are, one to train on or a pair with one to validate by.

    Raises:
        TrainingError: there is no such data.
        RecipeError: it has no such option.
    """
    options = options or {}
    if not isinstance(wanted, str):
        if options:
            raise TrainingError(f"options of data go with a name, such as digits; these have no meaning here: {', '.join(options)}")
        return _given(wanted)
    kind, _, path = wanted.partition(":")
    if kind not in SOURCES:
        raise TrainingError(f"unknown data {wanted!r}: expected {EXAMPLES}")
    known = [field.name for field in fields(SOURCES[kind])]
    for name in options:
        if name not in known:
            raise RecipeError(f"data '{kind}' has no option {name!r}; it has {', '.join(known)}", name)
    source: Source = SOURCES[kind](**options)
    return source.load(path)


def _given(wanted: Any) -> Data:
    if isinstance(wanted, Data):
        return wanted
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    if not 1 <= len(parts) <= 2:
        raise TrainingError(f"data is a dataset, or a pair of one to train on and one to validate by; not {len(parts)} of them")
    return Data("given", _samples(parts[0]), _samples(parts[1]) if len(parts) == 2 else None)


def _samples(part: Any) -> Samples:
    if isinstance(part, Samples):
        return part
    if not hasattr(part, "__getitem__") or not hasattr(part, "__len__"):
        raise TrainingError(f"expected the name of data ({EXAMPLES}), or a dataset with a length that gives samples by number, not "
                            f"{type(part).__name__}; of a loader, give the dataset")
    return DatasetSamples(part if isinstance(part, Dataset) else _Listed(part))


class _Listed(Dataset[Any]):
    """A sequence of samples as a dataset."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Any:
        return self._samples[number]
