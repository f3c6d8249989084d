"""ChatGLM2, ChatGLM3 and GLM-4 in their original form: it becomes transformers' GlmForCausalLM while loading."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.models.families.family import Family
from glmstudio.models.families.names import GLM_LINEAR, GLM_STOPS, is_original
from glmstudio.models.prompts.chat_forms import MESSAGE, ChatForm
from glmstudio.models.vocabularies.sentencepiece_words import CHATGLM2_WORDS, CHATGLM3_WORDS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glmstudio.models.quantisation.quantising import Shrink
    from glmstudio.models.stored_tensors import StoredTensors

# ChatGLM2 and ChatGLM3 have 65024 rows, GLM-4 151552.
GLM_4_VOCABULARY = 100_000


class OriginalGlm(Family):
    """Weights are renamed and split by `models.conversion`; a folder that was converted is read by transformers."""

    def form(self, config: Mapping[str, Any]) -> str:
        return "original" if is_original(config) else super().form(config)

    def load_model(
        self, folder: Path, config: Mapping[str, Any], device: "torch.device", dtype: "torch.dtype", shrink: "Shrink"
    ) -> "PreTrainedModel":
        if not is_original(config):
            return super().load_model(folder, config, device, dtype, shrink)
        from glmstudio.models.conversion import load_original

        return load_original(folder, config, self, device, dtype, shrink)

    def read_tokenizer(self, folder: Path) -> "PreTrainedTokenizerBase":
        from glmstudio.models.vocabularies.tokenization_glm import read_sentencepiece, read_tiktoken

        if self.words is not None:
            return read_sentencepiece(folder, self.words)
        if (folder / "tokenizer.json").is_file():
            return super().read_tokenizer(folder)
        return read_tiktoken(folder)

    def stored_tensors(self, folder: Path, config: Mapping[str, Any]) -> "StoredTensors":
        if not is_original(config):
            return super().stored_tensors(folder, config)
        from glmstudio.models.conversion import original_stored_tensors

        return original_stored_tensors(folder, config, self)


# The chat forms are what the original code's `chat` builds for a first question.
CHATGLM2 = OriginalGlm(
    "chatglm2",
    "ChatGLM2-6B",
    GLM_LINEAR,
    chat=ChatForm(("[gMASK]", "sop"), (f"[Round 1]\n\n问：{MESSAGE}\n\n答：",), ()),
    converted=True,
    stretches_positions=True,
    tokenizer_files=("tokenizer.model",),
    words=CHATGLM2_WORDS,
    published_as="chatglm2-?6b",
)
CHATGLM3 = OriginalGlm(
    "chatglm3",
    "ChatGLM3-6B",
    GLM_LINEAR,
    stop_tokens=("<|user|>", "<|observation|>"),
    chat=ChatForm(("[gMASK]", "sop", "<|user|>"), ("\n", MESSAGE), ("<|assistant|>",), answer_head="\n"),
    converted=True,
    tokenizer_files=("tokenizer.model",),
    words=CHATGLM3_WORDS,
    published_as="chatglm3-?6b",
)
GLM_4 = OriginalGlm(
    "glm-4",
    "GLM-4-9B",
    GLM_LINEAR,
    stop_tokens=GLM_STOPS,
    chat=ChatForm(("[gMASK]", "<sop>", "<|user|>"), ("\n", MESSAGE), ("<|assistant|>",), answer_head="\n"),
    converted=True,
)


def original_family(config: Mapping[str, Any], source: str) -> Family:
    """The family of a config in original form. `source` is the name that its folder goes by.

    GLM-4 has several end ids and a larger vocabulary; ChatGLM2 and ChatGLM3 differ in no key that changes
    numbers, but in the name they came under and in the transformers they were published with.
    """
    if isinstance(config.get("eos_token_id"), list) or config.get("padded_vocab_size", 0) > GLM_4_VOCABULARY:
        return GLM_4
    published = {"4.27.1": CHATGLM2.name, "4.30.2": CHATGLM3.name}.get(str(config.get("transformers_version")), "")
    for trace in (str(config.get("_name_or_path", "")), published, source):
        for family in (CHATGLM2, CHATGLM3):
            if family.name in trace.lower():
                return family
    return CHATGLM3
