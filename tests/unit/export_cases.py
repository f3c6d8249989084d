"""Bases and adapters for the tests of what leaves the program: tiny, random, every weight of the adapter non-zero."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from glmstudio.models.loading import load_base
from glmstudio.models.resident import lora_targets
from glmstudio.settings import LoraSettings
from tests import tiny_base

ROWS = [("Name it.", "7 Rome is green. red"), ("Name it.", "Oslo"), ("Be brief.", "")]


def chatglm_folder(folder: Path) -> Path:
    """The tiny ChatGLM-6B with its tokenizer, as a folder with official names."""
    tiny_base.tiny_model().save_pretrained(folder)
    tiny_base.tiny_tokenizer().save_pretrained(folder)
    return folder


def random_adapter(base: Path, folder: Path, *, style: str = "", **more: object) -> Path:
    """A LoRA on every layer of the base's own list; with `style` also the record that training writes."""
    loaded = load_base(base, device="cpu", dtype="float32")
    targets = lora_targets(loaded, LoraSettings())
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **more)
    model = get_peft_model(loaded.model, config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    if style:
        record = {"prompt_style": style, "base": str(base), "family": loaded.family.name, "max_source_length": 64}
        (folder / "glmstudio.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].float()
