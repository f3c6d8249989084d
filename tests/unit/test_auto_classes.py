"""ChatGLM-6B through transformers' Auto classes, once this package is imported; in a process of its own."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from glmstudio.embedded.vocabulary import build_model
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer
from glmstudio.models.loading import load_base
from tests.unit.golden_cases import CHATGLM, CHATGLM2, assert_forward, assert_generates, cases

# What the official folder says besides; code that a folder names is never run.
OFFICIAL_TOKENIZER = {
    "tokenizer_class": "ChatGLMTokenizer",
    "num_image_tokens": 0,
    "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
}


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM])
def test_a_saved_model_is_found(auto, tmp_path):
    load_base(CHATGLM, device="cpu", dtype="fp32").model.save_pretrained(tmp_path)
    for folder in (CHATGLM, tmp_path):
        model = auto.from_pretrained(folder)
        assert type(model) is ChatGLMForConditionalGeneration
        assert model.lm_head.weight is model.transformer.word_embeddings.weight
        assert_forward(model, cases()["b1_gmask"])
        assert_generates(model, cases()["gen_b1_ids_only"])


def test_configs_and_tokenizers_are_found(tmp_path):
    config = AutoConfig.from_pretrained(CHATGLM)
    assert type(config) is ChatGLMConfig
    config.save_pretrained(tmp_path)
    (tmp_path / "ice_text.model").write_bytes(build_model())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(OFFICIAL_TOKENIZER), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path / "again")
    config.save_pretrained(tmp_path / "again")
    for found in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "again")):
        assert type(found) is ChatGLMTokenizer
        assert found("你好")["input_ids"][-2:] == [found.gmask_token_id, found.bos_token_id]


def test_the_later_generations_are_not_taken_for_it():
    for auto in (AutoConfig, AutoModelForCausalLM, AutoModel):
        with pytest.raises(ValueError, match="ChatGLM2, ChatGLM3 or GLM-4"):
            auto.from_pretrained(CHATGLM2)


def test_one_import_is_enough():
    code = (
        "import sys, glmstudio.models.loading; from transformers import AutoModelForCausalLM;"
        "print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__module__)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(CHATGLM)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "glmstudio.models.chatglm.modeling_chatglm"


def test_half_precision_is_kept(tmp_path):
    model = load_base(CHATGLM, device="cpu", dtype="fp16").model
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.float16
