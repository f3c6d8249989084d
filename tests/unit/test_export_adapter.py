"""An exported adapter: others can load it, nothing of this machine is in it, and its card says what is true."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import about_adapter, dev_prompts
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base_names import public_name
from glmstudio.models.chat_format import render_prompt
from glmstudio.models.exporting.export import export
from glmstudio.models.exporting.model_card import EXAMPLE
from glmstudio.models.families.chatglm import CHATGLM as CHATGLM_FAMILY
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_base
from glmstudio.models.prompts.prompt_text import filled, prompt_text, seen_text
from tests import tiny_base, tiny_families
from tests.unit.export_cases import chatglm_folder, logits, random_adapter
from tests.unit.golden_cases import CHATGLM, CHATGLM2

SCORES = {
    "base": {"exact_match": 0.25, "rows": 4, "triple_f1": None},
    "tuned": {"exact_match": 0.75, "rows": 4, "triple_f1": 0.5},
    "rows": [{}] * 4,
}
IDS = [20, 31, 42, 53, 64, 75, 86]


@pytest.fixture(scope="module")
def glm(tmp_path_factory) -> tuple[Path, Path]:
    """A base and a run's best adapter on it, as training leaves them."""
    root = tmp_path_factory.mktemp("glm")
    base = tiny_families.native_folder("glm4", root / "base")
    best = random_adapter(base, root / "run-0003" / "best", style="chat")
    record = json.loads((best / "glmstudio.json").read_text())
    more = {"run": "run-0003", "step": 40, "max_target_length": 32, "snapshot_id": "abc"}
    (best / "glmstudio.json").write_text(json.dumps(record | more))
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt"):
        (best / name).touch()
    settings = {"learning_rate": 0.0002, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05, "num_train_epochs": 2.0}
    run = {"lora": {"r": 4, "lora_alpha": 8}, "settings": settings | {"per_device_train_batch_size": 4, "seed": 42}}
    run |= {"dataset": "cities", "total": 60, "best_eval_loss": 0.12345678901234567}
    (root / "run-0003" / "run.json").write_text(json.dumps(run))
    return base, best


def test_plain_peft_loads_what_is_exported(glm, tmp_path):
    base, best = glm
    result = export("adapter", tmp_path / "gift", adapter=best, scores=SCORES)
    assert sorted(path.name for path in result.path.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "glmstudio.json",
    ]
    assert len({path.stat().st_mode for path in result.path.iterdir()}) == 1
    assert result.bytes == sum(path.stat().st_size for path in result.path.iterdir())
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (best, result.path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), result.path)
    ours = load_adapter(load_base(base, device="cpu", dtype="fp32"), best)
    assert torch.equal(logits(plain, IDS), logits(ours, IDS))


def test_no_path_of_this_machine_is_in_it(glm, tmp_path):
    export("adapter", tmp_path / "gift", adapter=glm[1])
    for path in (tmp_path / "gift").iterdir():
        assert str(glm[0].parent).encode() not in path.read_bytes(), path.name
    assert json.loads((tmp_path / "gift" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"


def test_the_card_says_settings_scores_and_the_prompt(glm, tmp_path):
    best = glm[1]
    card = (export("adapter", tmp_path / "gift", adapter=best, scores=SCORES).path / "README.md").read_text("utf-8")
    assert card.startswith("---\nbase_model: base\nlibrary_name: peft\n")
    for row in ("| prompt_style | chat |", "| r | 4 |", "| learning_rate | 0.0002 |", "| dataset | cities |",
                "| lr_scheduler_type | cosine |", "| warmup_ratio | 0.05 |", "| num_train_epochs | 2 |",
                "| per_device_train_batch_size | 4 |", "| step | 40 of 60 |", "| dev loss | 0.1235 |"):  # fmt: skip
        assert row in card
    assert "| exact_match | 0.2500 | 0.7500 |\n| triple_f1 | - | 0.5000 |" in card
    assert "[gMASK]<sop><|user|>\n" + "\n".join(EXAMPLE) + "<|assistant|>" in card
    tokenizer = tiny_families.tiny_tokenizer()
    ids = render_prompt(tokenizer, FAMILIES["glm4"], *EXAMPLE, max_source_length=999, style="chat").ids
    assert f"```text\n{ids}\n```" in card
    chinese = export("adapter", tmp_path / "zh", adapter=best, scores=SCORES, language="zh").path / "README.md"
    assert "4 条验证数据。\n" in chinese.read_text("utf-8")
    stopped = SCORES | {"cancelled": True, "total": 80, "settings": {"temperature": 0.5}}
    partial = export("adapter", tmp_path / "partial", adapter=best, scores=stopped).path / "README.md"
    assert "**4 of 80 dev rows**" in partial.read_text("utf-8")
    assert "temperature 0.5" in partial.read_text("utf-8")


def test_a_base_from_modelscope_shows_its_prompt_on_the_card(glm, tmp_path, monkeypatch):
    base, best = glm
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    shutil.copytree(base, tmp_path / "models" / "owner--glm" / "snapshots" / "master")
    adapter = shutil.copytree(best, tmp_path / "best")
    record = json.loads((adapter / "glmstudio.json").read_text()) | {"base": "modelscope:owner/glm"}
    (adapter / "glmstudio.json").write_text(json.dumps(record))
    card = (export("adapter", tmp_path / "gift", adapter=adapter).path / "README.md").read_text("utf-8")
    assert "[gMASK]<sop><|user|>" in card
    assert card.startswith("---\nbase_model: owner/glm\n")


@pytest.mark.parametrize("style", ["instruction", "chat"])
@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_the_code_of_the_card_runs_and_asks_what_training_asked(glm, tmp_path, monkeypatch, style, kind):
    base, best = glm
    adapter = shutil.copytree(best, tmp_path / "best")
    record = json.loads((adapter / "glmstudio.json").read_text()) | {"prompt_style": style}
    (adapter / "glmstudio.json").write_text(json.dumps(record))
    result = export(kind, tmp_path / "gift", adapter=adapter, base_source=str(base), device="cpu")
    (code,) = re.findall(r"```python\n(.+?)\n```", (result.path / "README.md").read_text("utf-8"), re.DOTALL)
    assert "glmstudio" not in code
    monkeypatch.chdir(base.parent)
    spoken = io.StringIO()
    with redirect_stdout(spoken):
        names: dict = {}
        exec(code.replace("path/of/this/folder", str(result.path)).replace("=300", "=8"), names)
    tokenizer, family = tiny_families.tiny_tokenizer(), FAMILIES["glm4"]
    ids = render_prompt(tokenizer, family, *EXAMPLE, max_source_length=999, style=style).ids
    assert names["inputs"]["input_ids"].tolist() == [ids]
    tuned = load_adapter(load_base(base, device="cpu", dtype="fp32"), best)
    first = int(logits(tuned, ids)[-1].argmax())
    assert names["answer"][0, len(ids)] == first


def test_chatglm_is_loaded_by_the_cards_code(tmp_path, monkeypatch):
    base = chatglm_folder(tmp_path / "base")
    adapter = random_adapter(base, tmp_path / "adapter", style="instruction")
    result = export("merged", tmp_path / "gift", adapter=adapter, base_source=str(base), device="cpu")
    (code,) = re.findall(r"```python\n(.+?)\n```", (result.path / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec(code.replace("path/of/this/folder", str(result.path)).replace("=300", "=4"), names)
    expected = render_prompt(tiny_base.tiny_tokenizer(), CHATGLM_FAMILY, *EXAMPLE, max_source_length=999).ids
    assert names["inputs"]["input_ids"].tolist() == [expected]


def test_old_forms_become_todays(tmp_path):
    """peft 0.3's pickled weights, which today's PEFT reads, and a file of ChatGLM-Tuning, which it does not."""
    result = export("adapter", tmp_path / "gift", adapter=CHATGLM / "lora_adapter", base_source=str(CHATGLM))
    assert (result.path / "adapter_model.safetensors").is_file()
    single = tmp_path / "chatglm-lora.pt"
    state = load_file(result.path / "adapter_model.safetensors")
    torch.save({name.replace(".weight", ".default.weight"): value for name, value in state.items()}, single)
    again = export("adapter", tmp_path / "again", adapter=single, base_source=str(CHATGLM)).path
    ids = list(range(20, 30))
    models = [
        PeftModel.from_pretrained(load_base(CHATGLM, device="cpu", dtype="fp32").model, folder)
        for folder in (CHATGLM / "lora_adapter", result.path, again)
    ]
    assert torch.equal(logits(models[0], ids), logits(models[1], ids))
    assert json.loads((again / "adapter_config.json").read_text())["target_modules"] == ["query_key_value"]
    assert not torch.equal(logits(models[2], ids), logits(load_base(CHATGLM, device="cpu").model, ids))


def test_a_prefix_is_copied_in_its_official_form(tmp_path):
    path = export("adapter", tmp_path / "gift", adapter=CHATGLM2 / "ptuning", base_source=str(CHATGLM2)).path
    for name in ("config.json", "pytorch_model.bin"):
        assert (path / name).read_bytes() == (CHATGLM2 / "ptuning" / name).read_bytes()
    card = (path / "README.md").read_text("utf-8")
    assert "P-Tuning v2 prefix for ChatGLM2-6B (`THUDM/chatglm2-6b`)" in card
    assert "PeftModel" not in card


def test_an_adapter_that_names_no_base_is_asked_for_it(glm, tmp_path):
    folder = shutil.copytree(glm[1], tmp_path / "adapter")
    (folder / "glmstudio.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(StudioError) as error:
        export("adapter", tmp_path / "gift", adapter=folder)
    assert error.value.code == "export-base-unknown"
    card = (
        export("adapter", tmp_path / "gift", adapter=folder, base_source="THUDM/glm-x").path / "README.md"
    ).read_text()
    assert "`THUDM/glm-x`" in card
    assert "## Prompt" not in card


def test_what_is_known_about_an_adapter(glm):
    about = about_adapter(glm[1])
    assert (about["prompt_style"], about["dataset"], about["kind"], about["recorded"]) == (
        "chat",
        "cities",
        "peft",
        True,
    )
    foreign = about_adapter(CHATGLM / "lora_adapter")
    assert (foreign["prompt_style"], foreign["max_source_length"], foreign["recorded"]) == ("instruction", 400, False)
    assert dev_prompts(glm[1], about) == []


def test_names_that_mean_something_elsewhere(tmp_path):
    for source, name in [
        ("THUDM/chatglm-6b", "THUDM/chatglm-6b"),
        ("modelscope:ZhipuAI/chatglm3-6b", "ZhipuAI/chatglm3-6b"),
        ("embedded", "embedded"),
        ("/home/a/.cache/huggingface/hub/models--THUDM--glm-4-9b/snapshots/0123", "THUDM/glm-4-9b"),
        ("/home/a/.cache/modelscope/hub/models/ZhipuAI/chatglm3-6b", "ZhipuAI/chatglm3-6b"),
        (str(tmp_path / "my-model"), "my-model"),
        (str(CHATGLM2), "THUDM/chatglm2-6b"),
    ]:
        assert public_name(source) == name


def test_text_of_prompts():
    found = prompt_text(tiny_families.tiny_tokenizer(), FAMILIES["glm4"], "chat")
    assert (found.exact, found.by_itself) == (True, False)
    assert filled(found.text, "A {input}", "B") == "[gMASK]<sop><|user|>\nA {input}\nB<|assistant|>"
    found = prompt_text(tiny_base.tiny_tokenizer(), CHATGLM_FAMILY, "instruction")
    assert (found.exact, found.by_itself) == (False, True)
    assert filled(found.bare, "A {input}", "B") == "Instruction: A {input}\nInput: B\nAnswer: "
    with_start = PreTrainedTokenizerFast(
        tokenizer_object=tiny_families.tiny_tokenizer().backend_tokenizer, eos_token="<|endoftext|>"
    )
    assert seen_text(with_start, [*with_start("Rome").input_ids, 0]) == "Rome<|endoftext|>"
