"""Reads the golden sets: models with random weights and what the original code made of them. See tests/golden."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CHATGLM = GOLDEN / "chatglm"
CHATGLM_FP16 = GOLDEN / "chatglm_fp16"
PAD = 3
# What separates right from wrong: a wrong epsilon already costs 2.6e-5 root mean square.
LOGITS_MAX, LOGITS_RMS, LOSS, GRADIENT = 1e-4, 1.2e-5, 1e-5, 1e-4


def official_tokenizer_folder() -> Path:
    """The folder of the official sentencepiece files, which do not come with the repository."""
    golden = os.environ.get("GLMSTUDIO_GOLDEN", "../shared/golden")
    return (Path(__file__).resolve().parents[2] / golden).resolve() / "tokenizers" / "chatglm"


@cache
def cases(folder: Path = CHATGLM) -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads((folder / "cases.json").read_text(encoding="utf-8"))["cases"]}


def names(kind: str, *, adapter: bool = False, ptuning: str | None = None) -> list[str]:
    """Names of the cases of one kind on the bare base, on the LoRA adapter, or on one P-Tuning folder."""
    chosen = [case for case in cases().values() if case["kind"] == kind]
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


def assert_close(actual: torch.Tensor, expected: torch.Tensor, *, worst=LOGITS_MAX, rms=LOGITS_RMS) -> None:
    difference = actual.detach().float() - expected.float()
    assert not difference.isnan().any()
    assert difference.abs().max() < worst
    assert difference.pow(2).mean().sqrt() < rms


def assert_forward(model: Any, case: dict[str, Any]) -> None:
    with torch.no_grad():
        logits = model(
            input_ids=tensor(case["input_ids"]),
            attention_mask=tensor(case["attention_mask"]),
            position_ids=tensor(case["position_ids"]),
        ).logits
    keep = valid_rows(case)
    assert_close(logits[keep], tensor(case["logits"])[keep])


def assert_trains(model: Any, case: dict[str, Any]) -> None:
    model.zero_grad()
    output = model(input_ids=tensor(case["input_ids"]), labels=tensor(case["labels"]))
    output.loss.backward()
    assert abs(output.loss.item() - case["loss"]) < LOSS
    assert_close(output.logits, tensor(case["logits"]))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, norm in case["grad_norms"].items():
        assert abs(gradients[name].norm().item() - norm) < GRADIENT * norm, name
    for name, stored in case.get("grads", {}).items():
        expected = tensor(stored)
        assert (gradients[name] - expected).norm() < GRADIENT * expected.norm(), name


def assert_generates(model: Any, case: dict[str, Any], **more: Any) -> None:
    ids = tensor(case["input_ids"])
    mask = {} if case["attention_mask"] is None else {"attention_mask": (ids != PAD).long()}
    output = model.generate(
        input_ids=ids,
        max_new_tokens=case["max_new_tokens"],
        do_sample=False,
        eos_token_id=case["eos_token_id"],
        pad_token_id=PAD,
        output_scores=True,
        return_dict_in_generate=True,
        **mask,
        **more,
    )
    assert output.sequences.tolist() == case["sequences"]
    ended = torch.tensor(case["new_tokens"]) == case["eos_token_id"]
    live = (ended.cumsum(-1) - ended.long()) == 0
    assert_close(torch.stack(output.scores, dim=1)[live], tensor(case["step_logits"])[live])
