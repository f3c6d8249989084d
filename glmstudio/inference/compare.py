"""One prompt, several models: their answers as text that grows, from one batch.

Knows prompts, tokenizer and engine; knows no page, no run folder and no verdict.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from glmstudio.inference.engine import generate
from glmstudio.inference.rows import Row
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.models.chat_format import render_prompt
from glmstudio.settings import GenerationSettings

if TYPE_CHECKING:
    from glmstudio.data.verdicts import Answerer
    from glmstudio.models.resident import Resident

HALF_CHARACTER = "\ufffd"


@dataclass(frozen=True)
class Answer:
    """What one model has said so far. `label` is the adapter's name or `"__base__"`; `tokens` leaves out the end token.

    `seconds` run from the question to the row's last token, waiting for turns included. `finish_reason` is "" while it
    goes on, then as in `engine.Column`.
    """

    label: str
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    finish_reason: str = ""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Comparison:
    """A snapshot of all answers. `cut_prompt` counts the tokens that a prompt that is too long has lost; `adapter`
    is the tuned row's checkpoint with digest and step, `answerer` what a verdict on its answer keeps, where somebody
    has filled them in."""

    rows: tuple[Answer, ...]
    prompt_tokens: int
    cut_prompt: int
    adapter: AdapterRef | None = None
    answerer: "Answerer | None" = None


def compare(
    resident: "Resident",
    adapters: Sequence[str],
    instruction: str,
    input: str,
    settings: GenerationSettings,
    *,
    max_source_length: int,
    style: str = "instruction",
    should_stop: Callable[[], bool],
) -> Iterator[Comparison]:
    """Asks every adapter the same prompt in one batch; one snapshot per token, the last one with all finish reasons.

    `style` and `max_source_length` are those of `render_prompt`. A text never ends in half a character.
    Raises StudioError as `render_prompt` and `engine.generate` do.
    """
    tokenizer, family = resident.base.tokenizer, resident.base.family
    started = time.perf_counter()
    prompt = render_prompt(tokenizer, family, instruction, input, max_source_length=max_source_length, style=style)
    ids: list[list[int]] = [[] for _ in adapters]
    answers = [Answer(name) for name in adapters]
    rows = [Row(prompt.ids, name) for name in adapters]
    with closing(generate(resident, rows, settings, should_stop=should_stop)) as columns:
        for column in columns:
            seconds = time.perf_counter() - started
            for row, (token, reason) in enumerate(zip(column.ids, column.finish_reasons, strict=True)):
                if answers[row].finish_reason:
                    continue
                answers[row] = replace(answers[row], seconds=seconds, finish_reason=reason)
                if token is not None:
                    ids[row].append(token)
                    text = answer_text(tokenizer, ids[row], prompt.answer_head)
                    answers[row] = replace(answers[row], text=text, tokens=len(ids[row]))
            yield Comparison(tuple(answers), prompt.prompt_length, prompt.cut_prompt)


def answer_text(tokenizer: Any, ids: list[int], head: Sequence[int] = ()) -> str:
    """The text of an answer without special tokens, without the half character that it may end in and without the
    `head` that its style puts in front."""
    said = ids[len(head) :] if ids[: len(head)] == list(head) else ids
    return tokenizer.decode(said, skip_special_tokens=True).rstrip(HALF_CHARACTER)
