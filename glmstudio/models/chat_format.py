"""The one renderer of prompts: text to token ids and loss mask, for training, evaluation, comparison and preview.

Knows a tokenizer and a family; knows no model, no batch and no file.
"""

from dataclasses import dataclass
from typing import Any

from glmstudio.data.example import join_context
from glmstudio.errors import StudioError
from glmstudio.models.families import Family


@dataclass(frozen=True)
class Rendered:
    """Token ids of one row. `bears_loss[i]` says whether predicting `ids[i]` counts; the first `prompt_length` ids are
    what the model is given when it answers. `cut_prompt` and `cut_target` count the tokens that did not fit."""

    ids: list[int]
    bears_loss: list[bool]
    prompt_length: int
    cut_prompt: int = 0
    cut_target: int = 0


def render_prompt(tokenizer: Any, family: Family, instruction: str, input: str, *, max_source_length: int) -> Rendered:
    """The ids that the model is asked with: `max_source_length` - 1 of the text at most, then the family's opening.

    A prompt that is too long loses its end, as in the original. Raises StudioError `no-tokenizer` where there is none.
    """
    text_ids, opening = _prompt_ids(tokenizer, family, join_context(instruction, input))
    kept = text_ids[: max_source_length - 1]
    ids = kept + opening
    return Rendered(ids, [False] * len(ids), len(ids), cut_prompt=len(text_ids) - len(kept))


def render_example(
    tokenizer: Any,
    family: Family,
    instruction: str,
    input: str,
    target: str,
    *,
    max_source_length: int,
    max_target_length: int,
) -> Rendered:
    """Prompt, target and end token of a training row: at most `max_source_length` + `max_target_length` ids.

    The first `prompt_length` ids are those of `render_prompt`. At most `max_target_length` - 2 ids of the target stay,
    always closed by the end token. For ChatGLM-6B predicting `<sop>` counts too, as in the original's loss.
    Raises StudioError `no-tokenizer`.
    """
    prompt = render_prompt(tokenizer, family, instruction, input, max_source_length=max_source_length)
    target_ids = tokenizer.encode(target, add_special_tokens=False)
    kept = target_ids[: max_target_length - 2]
    ids = [*prompt.ids, *kept, tokenizer.eos_token_id]
    bears_loss = [*prompt.bears_loss, *[True] * (len(kept) + 1)]
    if family.start_bears_loss:
        bears_loss[prompt.prompt_length - 1] = True
    return Rendered(ids, bears_loss, prompt.prompt_length, prompt.cut_prompt, len(target_ids) - len(kept))


def _prompt_ids(tokenizer: Any, family: Family, text: str) -> tuple[list[int], list[int]]:
    """(ids of the text with what leads it, ids of the tokens that open the answer)."""
    if tokenizer is None:
        raise StudioError("no-tokenizer")
    if family.opens_answer:
        return tokenizer.encode(text, add_special_tokens=False), tokenizer.convert_tokens_to_ids(
            list(family.opens_answer)
        )
    ids = tokenizer.encode(text, add_special_tokens=True)
    # Some tokenizers also close a text; an answer that follows the end token would be a new text.
    return (ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids), []
