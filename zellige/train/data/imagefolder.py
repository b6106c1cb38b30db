"""Pictures in folders, one folder to a class, as ImageNet is kept: ``PATH/train/CLASS/….jpg`` and ``PATH/val/CLASS/….jpg``.

Without ``train`` and ``val`` (or ``validation``, ``test``) inside, about one picture of ten is kept for validation, by a hash of
its name. Training pictures are cut out at random and mirrored, as usual for ImageNet; others are scaled and cut out of the middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zellige.errors import TrainingError
from zellige.train.data.samples import Data, Samples, seed_of

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
KEPT_APART = ("val", "validation", "test")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST_AREA, SIDES = 0.08, (3 / 4, 4 / 3)
MARGIN = 256 / 224


@dataclass(frozen=True)
class Pictures(Samples):
    """Files and the numbers of their classes; batches are (samples, 3, size, size) in f32, standardised."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, numbers: Sequence[int], seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        images = [self._image(number, None if seed is None else seed_of(seed, number)) for number in numbers]
        return torch.stack(images), torch.tensor([self.labels[number] for number in numbers])

    def _image(self, number: int, seed: int | None) -> torch.Tensor:
        import torchvision.transforms.functional as functional
        from PIL import Image

        try:
            with Image.open(self.files[number]) as file:
                image: Any = file.convert("RGB")
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.files[number]} can't be read as a picture: {error}") from error
        if seed is None:
            image = functional.center_crop(functional.resize(image, round(self.size * MARGIN)), [self.size, self.size])
        else:
            draw = torch.Generator().manual_seed(seed)
            image = functional.resized_crop(image, *_cut(image.height, image.width, draw), [self.size, self.size])
            if float(torch.rand((), generator=draw)) < 0.5:
                image = functional.hflip(image)
        return functional.normalize(functional.to_tensor(image), list(MEAN), list(DEVIATION))


@dataclass(frozen=True)
class ImageFolder:
    """Options of ``imagefolder:PATH``: the side of the square that a model sees, in pixels."""

    size: int = 224

    def load(self, path: str) -> Data:
        """The pictures of a directory.

        Raises:
            TrainingError: there is no directory, or no picture in a class folder, or classes differ between the parts.
        """
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise TrainingError(f"size must be a whole number of pixels, at least 1; not {self.size!r}")
        root = Path(path)
        if not path or not root.is_dir():
            raise TrainingError(f"imagefolder:{path}: there is no such directory")
        apart = next((root / name for name in KEPT_APART if (root / name).is_dir()), None)
        if (root / "train").is_dir() and apart is not None:
            classes = _classes(root / "train")
            unknown = sorted(set(_classes(apart)) - set(classes))
            if unknown:
                raise TrainingError(f"imagefolder:{path}: {apart.name} has classes that train lacks, such as {unknown[0]}")
            training, validation = (_files(part, classes) for part in (root / "train", apart))
        else:
            found = _files(root, _classes(root))
            kept = [_share(file.relative_to(root).as_posix()) < 0.1 for file, _ in found]
            training, validation = ([pair for pair, is_kept in zip(found, kept, strict=True) if is_kept == wanted]
                                    for wanted in (False, True))
        for part, name in ((training, "train on"), (validation, "validate by")):
            if not part:
                raise TrainingError(f"imagefolder:{path} has no picture to {name}; expected {path}/CLASS/PICTURE, or train and val "
                                    "with these inside")
        return Data(f"imagefolder:{path}", self._pictures(training), self._pictures(validation))

    def _pictures(self, pairs: Sequence[tuple[Path, int]]) -> Pictures:
        return Pictures(tuple(file for file, _ in pairs), tuple(label for _, label in pairs), self.size)


def _classes(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if entry.is_dir())


def _files(directory: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    return [(file, number) for number, name in enumerate(classes) for file in sorted((directory / name).rglob("*"))
            if file.suffix.lower() in SUFFIXES]


def _share(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def _cut(height: int, width: int, draw: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part: 8 % of the picture or more, its sides between 3:4 and 4:3."""
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=draw))

    for _ in range(10):
        area, ratio = height * width * uniform(LEAST_AREA, 1), 2 ** uniform(*(torch.tensor(SIDES).log2().tolist()))
        rows, columns = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            top = int(uniform(0, height - rows + 1 - 1e-6))
            return top, int(uniform(0, width - columns + 1 - 1e-6)), rows, columns
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
