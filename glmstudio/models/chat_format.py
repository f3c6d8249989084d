"""The one renderer of prompts: text to token ids and loss mask, for training, evaluation, comparison and preview.

Two styles: `instruction` is the project's own text around instruction and input, `chat` the base's own dialogue.
Knows a tokenizer and a family; knows no model, no batch and no file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glmstudio.data.example import join_context, join_message
from glmstudio.errors import StudioError
from glmstudio.models.families import Family
from glmstudio.models.prompts.dialogue import dialogue_of

CHAT = "chat"


@dataclass(frozen=True)
class Rendered:
    """Token ids of one row. `bears_loss[i]` says whether predicting `ids[i]` counts; the first `prompt_length` ids are
    what the model is given when it answers. `cut_prompt` and `cut_target` count the tokens that did not fit.
    `answer_head` are the ids that the style puts in front of every answer; they are no part of its text."""

    ids: list[int]
    bears_loss: list[bool]
    prompt_length: int
    cut_prompt: int = 0
    cut_target: int = 0
    answer_head: tuple[int, ...] = ()


def render_prompt(
    tokenizer: Any,
    family: Family,
    instruction: str,
    input: str,
    *,
    max_source_length: int,
    style: str = "instruction",
) -> Rendered:
    """The ids that the model is asked with; of a text that is too long the end is lost.

    `instruction`: `max_source_length` - 1 ids of the text at most, as in the original, then the family's opening.
    `chat`: instruction and input are one message of the user, of which as much stays as leaves the whole prompt at
    `max_source_length` ids; what the dialogue puts around it is never cut, so even a limit below that keeps it whole.
    Raises StudioError `no-tokenizer`, and for `chat` what `dialogue_of` raises.
    """
    if tokenizer is None:
        raise StudioError("no-tokenizer")
    if style == CHAT:
        dialogue, message = dialogue_of(tokenizer, family), join_message(instruction, input)
        whole = dialogue.prompt(message)
        ids = whole if len(whole) <= max_source_length else _fitting(dialogue.prompt, message, max_source_length)
        return Rendered(ids, [False] * len(ids), len(ids), len(whole) - len(ids), answer_head=dialogue.head)
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
    style: str = "instruction",
) -> Rendered:
    """Prompt, target and end token of a training row: at most `max_source_length` + `max_target_length` ids, unless a
    dialogue's own tokens alone are longer than `max_source_length`.

    The first `prompt_length` ids are those of `render_prompt`. At most `max_target_length` - 2 ids of the target, its
    head counted, stay, always closed: by the end token, in a dialogue by the token that ends a turn. For ChatGLM-6B
    predicting `<sop>` counts too, as in the original's loss. Raises StudioError as `render_prompt` does.
    """
    prompt = render_prompt(tokenizer, family, instruction, input, max_source_length=max_source_length, style=style)
    end = dialogue_of(tokenizer, family).end if style == CHAT else tokenizer.eos_token_id
    answer = [*prompt.answer_head, *tokenizer.encode(target, add_special_tokens=False)]
    kept = answer[: max_target_length - 2]
    ids = [*prompt.ids, *kept, end]
    bears_loss = [*prompt.bears_loss, *[True] * (len(kept) + 1)]
    if family.start_bears_loss:
        bears_loss[prompt.prompt_length - 1] = True
    cut_target = len(answer) - len(kept)
    return Rendered(ids, bears_loss, prompt.prompt_length, prompt.cut_prompt, cut_target, prompt.answer_head)


def _fitting(prompt: Callable[[str], list[int]], message: str, limit: int) -> list[int]:
    """The prompt of the longest start of a message that makes at most `limit` ids; without it where none does."""
    ids, fits, too_long = prompt(""), 0, len(message)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        tried = prompt(message[:middle])
        if len(tried) <= limit:
            ids, fits = tried, middle
        else:
            too_long = middle
    return ids


def _prompt_ids(tokenizer: Any, family: Family, text: str) -> tuple[list[int], list[int]]:
    """(ids of the text with what leads it, ids of the tokens that open the answer)."""
    if family.opens_answer:
        return tokenizer.encode(text, add_special_tokens=False), tokenizer.convert_tokens_to_ids(
            list(family.opens_answer)
        )
    ids = tokenizer.encode(text, add_special_tokens=True)
    # Some tokenizers also close a text; an answer that follows the end token would be a new text.
    return (ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids), []
