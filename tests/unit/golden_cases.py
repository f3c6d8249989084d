"""Reads the golden sets: models with random weights and what the original code made of them. See tests/golden."""

import json
import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GlmForCausalLM

from glmstudio.models.conversion import GlmNames

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CHATGLM = GOLDEN / "chatglm"
CHATGLM_FP16 = GOLDEN / "chatglm_fp16"
CHATGLM2, CHATGLM3, GLM_4 = (GOLDEN / name for name in ("chatglm2", "chatglm3", "glm4_text"))
FIRST, SECOND = (f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2))
INDEX = "pytorch_model.bin.index.json"
PAD = 3
# What separates right from wrong: a wrong epsilon already costs 2.6e-5 root mean square.
LOGITS_MAX, LOGITS_RMS, LOSS, GRADIENT = 1e-4, 1.2e-5, 1e-5, 1e-4


def chatglm_copy(folder: Path) -> Path:
    """A ChatGLM-6B folder below `folder`, whole and to be damaged."""
    copy = folder / "chatglm"
    copy.mkdir()
    for name in ("config.json", INDEX, FIRST, SECOND):
        shutil.copy(CHATGLM / name, copy)
    return copy


def official_tokenizer_folder(family: str = "chatglm") -> Path:
    """The folder of the official sentencepiece files, which do not come with the repository."""
    golden = os.environ.get("GLMSTUDIO_GOLDEN", "../shared/golden")
    return (Path(__file__).resolve().parents[2] / golden).resolve() / "tokenizers" / family


@cache
def cases(folder: Path = CHATGLM) -> dict[str, dict[str, Any]]:
    """The cases of a set by name; each also carries its "folder" and the "pad" id."""
    stored = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    more = {"folder": folder, "pad": stored["meta"].get("special_ids", {}).get("pad", PAD)}
    return {case["name"]: case | more for case in stored["cases"]}


def names(kind: str, folder: Path = CHATGLM, *, adapter: bool = False, ptuning: str | None = None) -> list[str]:
    """Names of the cases of one kind on the bare base, on the LoRA adapter, or on one P-Tuning folder."""
    chosen = [case for case in cases(folder).values() if case["kind"] == kind]
    chosen = [case for case in chosen if ("adapter" in case) == adapter and case.get("ptuning") == ptuning]
    return [case["name"] for case in chosen]


@cache
def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "tensors.safetensors")


def tensor(value: Any, folder: Path = CHATGLM) -> torch.Tensor | None:
    """A field of a case: None, a list in place, or the name of a stored tensor."""
    if value is None:
        return None
    return _tensors(folder)[value] if isinstance(value, str) else torch.tensor(value)


def valid_rows(case: dict[str, Any]) -> torch.Tensor:
    """(b, s) bool: True where an id is a token."""
    return torch.tensor(case["valid"]).bool() if "valid" in case else torch.tensor(case["input_ids"]) >= 0


def inputs_of(case: dict[str, Any]) -> dict[str, torch.Tensor | None]:
    """What the original's forward got besides labels."""
    return {key: tensor(case[key], case["folder"]) for key in ("input_ids", "attention_mask", "position_ids")}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Gradients under the original's names: those of q, k and v are one tensor again, LoRA's too."""
    found: dict[str, list[torch.Tensor]] = {}
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    official = GlmNames.of(base.config).official if isinstance(base, GlmForCausalLM) else str
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            prefix, path = re.fullmatch(r"(base_model\.model\.)?(.+)", name).groups("")
            module, kind = re.fullmatch(r"(.+?)\.(lora_.+|\w+)", path).groups()
            found.setdefault(f"{prefix}{official(module)}.{kind}", []).append(parameter.grad)
    return {name: torch.cat(parts) for name, parts in found.items()}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, *, worst=LOGITS_MAX, rms=LOGITS_RMS) -> None:
    difference = actual.detach().float() - expected.float()
    assert not difference.isnan().any()
    assert difference.abs().max() < worst
    assert difference.pow(2).mean().sqrt() < rms


def assert_forward(model: Any, case: dict[str, Any]) -> None:
    with torch.no_grad():
        logits = model(**inputs_of(case)).logits
    keep = valid_rows(case)
    assert_close(logits[keep], tensor(case["logits"], case["folder"])[keep])


def assert_trains(model: Any, case: dict[str, Any]) -> None:
    model.zero_grad()
    output = model(**inputs_of(case), labels=tensor(case["labels"]))
    output.loss.backward()
    assert abs(output.loss.item() - case["loss"]) < LOSS
    keep = valid_rows(case)
    assert_close(output.logits[keep], tensor(case["logits"], case["folder"])[keep])
    found = gradients(model)
    for name, norm in case.get("grad_norms", {}).items():
        assert abs(found[name].norm().item() - norm) < GRADIENT * norm, name
    for name, stored in case.get("grads", {}).items():
        expected = tensor(stored, case["folder"])
        assert (found[name] - expected).norm() < GRADIENT * expected.norm(), name


def assert_generates(model: Any, case: dict[str, Any], **more: Any) -> None:
    ids = tensor(case["input_ids"])
    mask = {} if case["attention_mask"] is None else {"attention_mask": (ids != case["pad"]).long()}
    output = model.generate(
        input_ids=ids,
        max_new_tokens=case["max_new_tokens"],
        do_sample=False,
        eos_token_id=case["eos_token_id"],
        pad_token_id=case["pad"],
        output_scores=True,
        return_dict_in_generate=True,
        **mask,
        **more,
    )
    assert output.sequences.tolist() == case["sequences"]
    ended = torch.isin(torch.tensor(case["new_tokens"]), torch.tensor(case["eos_token_id"]))
    live = (ended.cumsum(-1) - ended.long()) == 0
    assert_close(torch.stack(output.scores, dim=1)[live], tensor(case["step_logits"], case["folder"])[live])
