"""How one style asks one tokenizer's model: whole prompts, many at once, and one that is cut to its limit.

Knows a tokenizer and a family; knows no target and no training row.
"""

from collections.abc import Sequence
from typing import Any

from glmstudio.data.example import join_context, join_message
from glmstudio.errors import StudioError
from glmstudio.models.families.family import Family
from glmstudio.models.prompts.dialogue import dialogue_of
from glmstudio.models.prompts.encoding import encoded

CHAT = "chat"
# Where a text has many more characters than tokens may stay, its end is left alone while it is cut.
CHARACTERS_A_TOKEN = 64


class PromptStyle:
    """`instruction` is the project's own text around instruction and input, `chat` the base's own dialogue.

    `head` are the ids that the style puts in front of every answer; they are no part of its text. Raises StudioError
    `no-tokenizer`, and for `chat` what `dialogue_of` raises.
    """

    def __init__(self, tokenizer: Any, family: Family, name: str) -> None:
        if tokenizer is None:
            raise StudioError("no-tokenizer")
        self._tokenizer, self._family = tokenizer, family
        self._dialogue = dialogue_of(tokenizer, family) if name == CHAT else None
        self.head: tuple[int, ...] = self._dialogue.head if self._dialogue is not None else ()

    def limit(self, max_source_length: int) -> int:
        """The most ids that a prompt may have."""
        return max_source_length + (len(self._family.opens_answer) - 1 if self._dialogue is None else 0)

    def whole(self, rows: Sequence[tuple[str, str]]) -> list[list[int]]:
        """The prompts of rows (instruction, input), nothing cut."""
        if self._dialogue is not None:
            return self._dialogue.prompts([join_message(*row) for row in rows])
        contexts = [join_context(*row) for row in rows]
        if self._family.opens_answer:
            opening = self._tokenizer.convert_tokens_to_ids(list(self._family.opens_answer))
            return [[*ids, *opening] for ids in encoded(self._tokenizer, contexts)]
        # Some tokenizers also close a text; an answer that follows the end token would be a new text.
        end = self._tokenizer.eos_token_id
        return [ids[:-1] if ids and ids[-1] == end else ids for ids in encoded(self._tokenizer, contexts, special=True)]

    def fitting(self, instruction: str, input: str, max_source_length: int) -> list[int]:
        """The prompt of as many characters of a row that is too long as fit into the limit. Raises StudioError
        `prompt-frame` where not even that of none does."""
        limit = self.limit(max_source_length)
        if self._dialogue is not None:
            instruction, input = join_message(instruction, input), ""

        def prompt(kept: int) -> list[int]:
            return self.whole([(instruction[:kept], input[: max(0, kept - len(instruction))])])[0]

        ids, fits, too_long = prompt(0), 0, len(instruction) + len(input)
        if len(ids) > limit:
            raise StudioError("prompt-frame", limit=max_source_length, least=max_source_length + len(ids) - limit)
        while too_long - fits > 1:
            tried = prompt(middle := min((fits + too_long) // 2, fits + CHARACTERS_A_TOKEN * limit))
            if len(tried) <= limit:
                ids, fits = tried, middle
            else:
                too_long = middle
        return ids
