"""Hugging Face datasets: by name, which downloads, or from a directory that ``save_to_disk`` wrote or that holds data files.

A dataset with pictures and one column of class labels gives pairs; one with ``input_ids`` and ``labels`` gives dicts, for models of
transformers, which know their own loss.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from zellige.errors import FAILURES, TrainingError, in_one_line
from zellige.train.data.imagefolder import DEVIATION, MEAN
from zellige.train.data.samples import Data, Samples

KEPT_APART = ("validation", "test", "val")


@dataclass(frozen=True)
class Tokens(Samples):
    """Rows of numbers, as a tokenizer made them, all of one length: dicts of tensors."""

    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: Sequence[int], seed: int | None) -> dict[str, torch.Tensor]:
        try:
            rows = [self.rows[number] for number in numbers]
            return default_collate([{name: torch.as_tensor(value) for name, value in row.items()} for row in rows])
        except (RuntimeError, TypeError, ValueError) as error:
            raise TrainingError(f"rows can't be put into a batch: {in_one_line(error)}; keep columns of numbers, all padded to one "
                                "length") from error


@dataclass(frozen=True)
class HubPictures(Samples):
    """Pictures and class labels of a dataset, scaled to ``size`` × ``size``."""

    rows: Any
    image: str
    label: str
    size: int

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: Sequence[int], seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        import torchvision.transforms.functional as functional

        rows = [self.rows[number] for number in numbers]
        images = [functional.to_tensor(functional.resize(row[self.image].convert("RGB"), [self.size, self.size])) for row in rows]
        normal = [functional.normalize(image, list(MEAN), list(DEVIATION)) for image in images]
        return torch.stack(normal), torch.tensor([row[self.label] for row in rows])


@dataclass(frozen=True)
class HubDataset:
    """Options of ``hf:NAME_OR_DIRECTORY``: the configuration of a dataset that has several, and the side of its pictures."""

    configuration: str | None = None
    size: int = 224

    def load(self, path: str) -> Data:
        """The dataset's training part, and what it keeps apart.

        Raises:
            TrainingError: there is no such dataset, or none that a network could be trained on.
        """
        splits = self._splits(path)
        if "train" not in splits:
            raise TrainingError(f"hf:{path} has no part 'train', but {', '.join(splits)}")
        apart = next((splits[name] for name in KEPT_APART if name in splits), None)
        return Data(f"hf:{path}", self._samples(path, splits["train"]), None if apart is None else self._samples(path, apart))

    def _splits(self, path: str) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise TrainingError("datasets is not installed: pip install datasets") from error
        try:
            if os.path.isfile(os.path.join(path, "dataset_dict.json")):
                return datasets.load_from_disk(path)
            return datasets.load_dataset(path, self.configuration)
        except (*FAILURES, OSError) as error:
            raise TrainingError(f"hf:{path} can't be loaded, neither as a dataset of the hub nor as a directory with one: "
                                f"{in_one_line(error)}") from error

    def _samples(self, path: str, rows: Any) -> Samples:
        kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
        images = [name for name, kind in kinds.items() if kind == "Image"]
        labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
        if len(images) == len(labels) == 1:
            return HubPictures(rows, images[0], labels[0], self.size)
        if {"input_ids", "labels"} <= kinds.keys():
            return Tokens(rows)
        raise TrainingError(f"hf:{path} has columns {', '.join(kinds)}; expected a picture and a class label, or input_ids and "
                            "labels, as a tokenizer's map gives them")
