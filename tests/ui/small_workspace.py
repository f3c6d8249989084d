"""A workspace for tests of single pages: the tiny base, a few rows of its own, and finished runs if wanted."""

import dataclasses
from pathlib import Path

import torch

from glmstudio.data.store import Store
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.settings import TrainingSettings
from glmstudio.workspace import Workspace
from tests.tiny_base import rows, tiny_model, tiny_tokenizer
from tests.train.runs import run_in

DATASET = "cities"
TRAIN_ROWS, DEV_ROWS = 60, 8
SETTINGS = TrainingSettings(num_train_epochs=6, learning_rate=2e-2, per_device_train_batch_size=4)


def prepare(root: Path, *, runs: int = 0) -> list[str]:
    """Fills `root` and gives the program's arguments for its base. `run-0001` … are there, trained."""
    workspace = Workspace(root).ensure()
    base = root / "tiny"
    endless_model().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    store = Store(workspace.database_url)
    for split, count in (("train", TRAIN_ROWS), ("dev", DEV_ROWS)):
        first = 0 if split == "train" else 300
        store.add_many(dataclasses.replace(row, dataset=DATASET) for row in rows(count, split=split, first=first))
    store.close()
    for number in range(1, runs + 1):
        run_in(workspace.run_folder(f"run-{number:04d}"), SETTINGS, train_rows=rows(40))
    return ["--base", str(base)]


def endless_model() -> ChatGLMForConditionalGeneration:
    """The tiny model with an end token that is never said, so that an answer goes on until it is stopped.

    With a bias of one the final layer norm's outputs sum to the width, whatever comes in: a row of -1 makes -32 of it.
    """
    model = tiny_model()
    with torch.no_grad():
        model.transformer.final_layernorm.bias.fill_(1.0)
        model.lm_head.weight[model.config.eos_token_id] = -1.0
    # Nor does it run out of positions.
    model.config.max_sequence_length = 2**20
    return model
