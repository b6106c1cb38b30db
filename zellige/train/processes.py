"""The processes that train together, as Hugging Face Accelerate knows them: ``accelerate launch`` or ``torchrun`` starts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zellige.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """This process among them, and where it computes."""

    accelerator: Any
    rank: int
    count: int
    device: torch.device

    @classmethod
    def started(cls) -> Processes:
        """Those that the launcher started; one without a launcher.

        Raises:
            TrainingError: accelerate is missing, or set up to shard the model.
        """
        try:
            from accelerate import Accelerator, DistributedType
        except ImportError as error:
            raise TrainingError("accelerate is not installed: pip install 'zellige[train]'") from error
        accelerator = Accelerator(mixed_precision="no")  # a recipe says which precision
        replicating = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}
        if accelerator.distributed_type not in replicating:
            raise TrainingError(f"finetune keeps a whole copy of the model in every process, and accelerate is set to "
                                f"{accelerator.distributed_type.value}; to shard a model, use SparseTraining in a loop of your own")
        return cls(accelerator, accelerator.process_index, accelerator.num_processes, accelerator.device)

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model as every process trains it: gradients are those of all."""
        prepared: nn.Module = self.accelerator.prepare_model(model)
        return prepared

    def summed(self, numbers: list[float]) -> list[float]:
        """The sums over all processes, the same in each; exact for whole numbers."""
        if self.count == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float32 if self.device.type == "mps" else torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        sums: list[float] = tensor.tolist()
        return sums

    def wait(self) -> None:
        """Until all are here."""
        self.accelerator.wait_for_everyone()
