"""A resident base that answers from a script, and a tokenizer of bytes: what text code needs, without a model."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.families import CHATGLM

SPECIAL = {"<pad>": 1, "[MASK]": 2, "[gMASK]": 3, "<sop>": 4, "<eop>": 5}
FIRST_BYTE = 10
VOCABULARY = FIRST_BYTE + 256


class ByteTokenizer:
    """A token is a UTF-8 byte, so every Chinese character is three of them."""

    eos_token_id = SPECIAL["<eop>"]

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [FIRST_BYTE + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        return bytes(token - FIRST_BYTE for token in ids if token >= FIRST_BYTE).decode(errors="replace")

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [SPECIAL[token] for token in tokens]


class ScriptedResident:
    """Row by row, `script(adapter, prompt ids)` is the answer, after which it makes the end token.

    What was said so far is read back from the cache, so a cache whose rows got mixed up gives wrong answers.
    """

    def __init__(self, script: Callable[[str, list[int]], list[int]]) -> None:
        config = ChatGLMConfig(
            vocab_size=VOCABULARY, hidden_size=8, num_layers=1, num_attention_heads=2,
            bos_token_id=4, eos_token_id=5, mask_token_id=2, gmask_token_id=3, pad_token_id=1,
        )  # fmt: skip
        model = SimpleNamespace(config=config, generation_config=SimpleNamespace(eos_token_id=5))
        self.base = SimpleNamespace(
            model=model, tokenizer=ByteTokenizer(), family=CHATGLM, device=torch.device("cpu"), dtype=torch.float32
        )
        self.batch_sizes: list[int] = []
        self._script = script
        self._prompt_length = 0

    def prefixes(self, adapter_names: Sequence[str]) -> list[None]:
        return [None] * len(adapter_names)

    def forward(self, adapter_names: Sequence[str], **inputs: Any) -> SimpleNamespace:
        ids, mask, cache = inputs["input_ids"], inputs["attention_mask"], inputs["past_key_values"]
        if cache.get_seq_length() == 0:
            self._prompt_length = ids.shape[1]
        stored = ids[:, None, :, None].float()
        history = cache.update(stored, stored, 0)[0][:, 0, :, 0].long()
        assert mask is None or mask.shape == history.shape
        assert len(adapter_names) == len(ids)
        self.batch_sizes.append(len(ids))
        logits = torch.zeros(len(ids), 1, VOCABULARY)
        for row, adapter in enumerate(adapter_names):
            valid = slice(None) if mask is None else mask[row].bool()
            said = history.shape[1] - self._prompt_length
            prompt = history[row][valid].tolist()[: -said or None]
            answer = [*self._script(adapter, prompt), SPECIAL["<eop>"]]
            logits[row, 0, answer[said]] = 1.0
        return SimpleNamespace(logits=logits)
