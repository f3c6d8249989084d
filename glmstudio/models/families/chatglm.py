"""ChatGLM-6B: its own model class and tokenizer, files under the names that its authors gave them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.models.families.family import Family
from glmstudio.models.prompts.chat_forms import MESSAGE, ChatForm

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from glmstudio.models.quantisation.quantising import Shrink
    from glmstudio.models.stored_tensors import StoredTensors


class ChatGLM(Family):
    """Its weights and its tokenizer are read by `models.chatglm`."""

    def form(self, config: Mapping[str, Any]) -> str:
        return "official"

    def load_model(
        self, folder: Path, config: Mapping[str, Any], device: "torch.device", dtype: "torch.dtype", shrink: "Shrink"
    ) -> "PreTrainedModel":
        from glmstudio.models.chatglm.weights import load_chatglm

        return load_chatglm(folder, config, device, dtype, shrink)

    def read_tokenizer(self, folder: Path) -> "PreTrainedTokenizerBase":
        from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer

        return ChatGLMTokenizer.from_pretrained(folder)

    def stored_tensors(self, folder: Path, config: Mapping[str, Any]) -> "StoredTensors":
        from glmstudio.models.chatglm.weights import chatglm_stored_tensors

        return chatglm_stored_tensors(folder, config)


CHATGLM = ChatGLM(
    "chatglm",
    "ChatGLM-6B",
    target_modules=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    opens_answer=("[gMASK]", "<sop>"),
    start_bears_loss=True,
    chat=ChatForm((), (MESSAGE,), ("[gMASK]", "<sop>")),
    tied=True,
    # Without its config the tokenizer would take the first release's offset of 20000, and every id would be wrong.
    tokenizer_files=("ice_text.model", "tokenizer_config.json"),
    published_as="chatglm-?6b",
    import_line="import glmstudio.models.chatglm.registration  # ChatGLM-6B for the Auto classes\n",
    in_llama_cpp=False,
    export_forms=("native", "official"),
)
