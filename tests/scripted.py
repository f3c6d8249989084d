"""A resident base that answers from a script, and a tokenizer of bytes: what text code needs, without a model."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.models.slots import Entering, Step

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

    What was said so far is read back from the slots, so slots that got mixed up give wrong answers.
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
        self._prompts: set[tuple[int, ...]] = set()

    def prefixes(self, adapter_names: Sequence[str]) -> list[None]:
        return [None] * len(adapter_names)

    def forward_slots(self, adapter_names: Sequence[str], packing: Entering | Step, **inputs: Any) -> SimpleNamespace:
        ids = inputs["input_ids"]
        stored = ids[:, None, :, None].float()
        keys = packing.update(stored, stored, 0)[0][:, 0, :, 0].long()
        if isinstance(packing, Entering):
            histories = [part.tolist() for part in keys[0].split(packing.lengths)]
            self._prompts |= set(map(tuple, histories))
        else:
            histories = [row[: length + 1].tolist() for row, length in zip(keys, packing.lengths, strict=True)]
        packing.done()
        assert len(adapter_names) == len(histories)
        self.batch_sizes.append(len(histories))
        logits = torch.zeros(len(histories), VOCABULARY)
        for row, (adapter, history) in enumerate(zip(adapter_names, histories, strict=True)):
            said = next(n for n in range(len(history)) if tuple(history[: len(history) - n]) in self._prompts)
            prompt = history[: len(history) - said]
            answer = [*self._script(adapter, prompt), SPECIAL["<eop>"]]
            assert history[len(prompt) :] == answer[:said]
            logits[row, answer[said]] = 1.0
        return SimpleNamespace(logits=logits[None] if isinstance(packing, Entering) else logits[:, None])
