"""The one renderer of prompts: text to token ids and loss mask, for training, evaluation, comparison and preview.

Two styles: `instruction` is the project's own text around instruction and input, `chat` the base's own dialogue.
Knows a tokenizer and a family; knows no model, no batch and no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glmstudio.models.families.family import Family
from glmstudio.models.prompts.dialogue import trained_end
from glmstudio.models.prompts.encoding import encoded
from glmstudio.models.prompts.prompt_style import CHAT, PromptStyle


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
    asking, row = PromptStyle(tokenizer, family, style), (instruction, input)
    return _cut(asking, row, asking.whole([row])[0], max_source_length)


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
    """As `render_examples`, one row."""
    limits = {"max_source_length": max_source_length, "max_target_length": max_target_length}
    return render_examples(tokenizer, family, [(instruction, input, target)], style=style, **limits)[0]


def render_examples(
    tokenizer: Any,
    family: Family,
    rows: Sequence[tuple[str, str, str]],
    *,
    max_source_length: int,
    max_target_length: int,
    style: str = "instruction",
) -> list[Rendered]:
    """Of each row (instruction, input, target) the prompt, the target and the end token: at most `max_source_length` +
    `max_target_length` ids.

    The first `prompt_length` ids are those of `render_prompt`. At most `max_target_length` - 2 ids of the target, its
    head counted, stay, always closed: by the end token, in a dialogue by the token that ends a turn. For ChatGLM-6B
    predicting `<sop>` counts too, as in the original's loss. Raises StudioError as `render_prompt` does, and
    `no-end-token`.
    """
    asking = PromptStyle(tokenizer, family, style)
    asked = [row[:2] for row in rows]
    prompts = [
        _cut(asking, row, whole, max_source_length) for row, whole in zip(asked, asking.whole(asked), strict=True)
    ]
    end = trained_end(tokenizer, family, chat=style == CHAT)
    rendered = []
    for prompt, target in zip(prompts, encoded(tokenizer, [target for _, _, target in rows]), strict=True):
        answer = [*asking.head, *target]
        kept = answer[: max_target_length - 2]
        ids = [*prompt.ids, *kept, end]
        bears_loss = [*prompt.bears_loss, *[True] * (len(kept) + 1)]
        if family.start_bears_loss:
            bears_loss[prompt.prompt_length - 1] = True
        cut_target = len(answer) - len(kept)
        rendered.append(
            Rendered(ids, bears_loss, prompt.prompt_length, prompt.cut_prompt, cut_target, prompt.answer_head)
        )
    return rendered


def _cut(asking: PromptStyle, row: tuple[str, str], whole: list[int], max_source_length: int) -> Rendered:
    """The prompt of a row, of which `whole` are the ids, at its limit."""
    fits = len(whole) <= asking.limit(max_source_length)
    ids = whole if fits else asking.fitting(*row, max_source_length)
    return Rendered(ids, [False] * len(ids), len(ids), len(whole) - len(ids), answer_head=asking.head)
