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
from glmstudio.models.prompts.dialogue import dialogue_of, trained_end

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
    """The ids that the model is asked with.

    `instruction`: `max_source_length` - 1 ids of the text at most, as in the original, then the family's opening.
    `chat`: instruction and input are one message of the user; `max_source_length` ids at most. Of a row that is too
    long the end is lost, the input's before the instruction's; what the style puts around them stays as it is.
    Raises StudioError `no-tokenizer`, `prompt-frame` where not even that fits, for `chat` what `dialogue_of` raises.
    """
    if tokenizer is None:
        raise StudioError("no-tokenizer")
    head: tuple[int, ...] = ()
    if style == CHAT:
        dialogue, message = dialogue_of(tokenizer, family), join_message(instruction, input)
        length, limit, head = len(message), max_source_length, dialogue.head

        def prompt(kept: int) -> list[int]:
            return dialogue.prompt(message[:kept])
    else:
        length, limit = len(instruction) + len(input), max_source_length - 1 + len(family.opens_answer)

        def prompt(kept: int) -> list[int]:
            context = join_context(instruction[:kept], input[: max(0, kept - len(instruction))])
            return _context_ids(tokenizer, family, context)

    whole = prompt(length)
    ids = whole if len(whole) <= limit else _fitting(prompt, length, limit)
    if len(ids) > limit:
        least = max_source_length + len(ids) - limit
        raise StudioError("prompt-frame", limit=max_source_length, least=least)
    return Rendered(ids, [False] * len(ids), len(ids), len(whole) - len(ids), answer_head=head)


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
    """Prompt, target and end token of a training row: at most `max_source_length` + `max_target_length` ids.

    The first `prompt_length` ids are those of `render_prompt`. At most `max_target_length` - 2 ids of the target, its
    head counted, stay, always closed: by the end token, in a dialogue by the token that ends a turn. For ChatGLM-6B
    predicting `<sop>` counts too, as in the original's loss. Raises StudioError as `render_prompt` does, and
    `no-end-token`.
    """
    prompt = render_prompt(tokenizer, family, instruction, input, max_source_length=max_source_length, style=style)
    end = trained_end(tokenizer, family, chat=style == CHAT)
    answer = [*prompt.answer_head, *tokenizer.encode(target, add_special_tokens=False)]
    kept = answer[: max_target_length - 2]
    ids = [*prompt.ids, *kept, end]
    bears_loss = [*prompt.bears_loss, *[True] * (len(kept) + 1)]
    if family.start_bears_loss:
        bears_loss[prompt.prompt_length - 1] = True
    cut_target = len(answer) - len(kept)
    return Rendered(ids, bears_loss, prompt.prompt_length, prompt.cut_prompt, cut_target, prompt.answer_head)


def _fitting(prompt: Callable[[int], list[int]], length: int, limit: int) -> list[int]:
    """The prompt of as many of `length` characters as make at most `limit` ids; that of none where none does."""
    ids, fits, too_long = prompt(0), 0, length
    while too_long - fits > 1 and len(ids) <= limit:
        middle = (fits + too_long) // 2
        tried = prompt(middle)
        if len(tried) <= limit:
            ids, fits = tried, middle
        else:
            too_long = middle
    return ids


def _context_ids(tokenizer: Any, family: Family, text: str) -> list[int]:
    """The ids of the text with what leads it and what opens the answer."""
    if family.opens_answer:
        opening = tokenizer.convert_tokens_to_ids(list(family.opens_answer))
        return [*tokenizer.encode(text, add_special_tokens=False), *opening]
    ids = tokenizer.encode(text, add_special_tokens=True)
    # Some tokenizers also close a text; an answer that follows the end token would be a new text.
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
