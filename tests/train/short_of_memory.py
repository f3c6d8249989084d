"""What `test_memory_shortage.py` runs in a process of its own: training in an address space too small for a step."""

import dataclasses
import resource
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil

from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training import train as training
from glmstudio.training import trainer
from glmstudio.training.runs import RunFolder
from tests.tiny_base import rows, tiny_base, tiny_model

LORA = LoraSettings(r=4)
# A step of 32 rows takes 510 MiB above what is there before it, half of them 260 MiB.
SETTINGS = TrainingSettings(num_train_epochs=1, per_device_train_batch_size=32, learning_rate=1e-3)
WIDE, MOST = 8192, 385 * 2**20


def wide_resident() -> Resident:
    """The tiny base, but each token leaves 32 KiB in every tensor of a layer's wide part."""
    config = tiny_model().config
    config.inner_hidden_size = WIDE
    return Resident(dataclasses.replace(tiny_base(), model=ChatGLMForConditionalGeneration(config)))


def main(place: Path) -> None:
    resident, folder, plain = wide_resident(), RunFolder(place), trainer.target_loss

    def limited(model: Any, batch: Any) -> Any:
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            most = psutil.Process().memory_info().vms + MOST
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        return plain(model, batch)

    trainer.target_loss = limited
    # Holes between blocks that are kept take address space, too, and how much hangs on chance.
    training.kept_memory = nullcontext
    folder.create(snapshot_id="x", dataset="x", base=resident.base, lora=LORA, settings=SETTINGS)
    training.train(resident, folder, rows(64), [], LORA, SETTINGS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
