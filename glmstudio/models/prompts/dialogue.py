"""A base's own dialogue: what stands around a message, what an answer begins and ends with.

Knows a tokenizer, its chat template and a family's form; cuts nothing and knows no training row.
"""

import datetime
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.families.family import Family
from glmstudio.models.prompts.chat_forms import MESSAGE, ChatForm
from glmstudio.models.prompts.encoding import encoded

# Plain words: no template trims, splits or rewrites them, and no person sees them.
QUESTION, ANSWER = "glmstudio question", "glmstudio answer"
# The day that Llama 3's own templates take where they are told none, and one of which no part is the same.
TEMPLATE_DATE, OTHER_DATE = datetime.datetime(2024, 7, 26), datetime.datetime(1999, 12, 31, 23, 59, 59)
# A template that draws lots can draw the same one twice.
RENDERED_AGAIN = 3


@dataclass(frozen=True)
class Dialogue:
    """`prompts` gives the ids that ask for an answer to each message. The model begins an answer with the ids `head`,
    which are no part of what it says, and ends it with `end`. `dated`: the template writes the time, which is always
    `TEMPLATE_DATE` here."""

    prompts: Callable[[Sequence[str]], list[list[int]]]
    head: tuple[int, ...]
    end: int
    dated: bool = False


@functools.lru_cache(maxsize=4)
def dialogue_of(tokenizer: Any, family: Family) -> Dialogue:
    """The family's own form, else the tokenizer's chat template, without thinking where it can be left out.

    Raises StudioError `no-chat-template` where there is neither, `chat-template-unfit` for a template that breaks off,
    `chat-template-rewrites` and `chat-template-varies` for one that loses what is said or is another one each time, and
    `no-end-token`.
    """
    if family.chat is not None:
        form, head = family.chat, tokenizer.encode(family.chat.answer_head, add_special_tokens=False)
        return Dialogue(lambda messages: _form_ids(tokenizer, form, messages), tuple(head), text_end(tokenizer))
    if not getattr(tokenizer, "chat_template", None):
        raise StudioError("no-chat-template")
    asked, whole = templated(tokenizer, QUESTION), templated(tokenizer, QUESTION, ANSWER)
    if any(templated(tokenizer, QUESTION) != asked for _ in range(RENDERED_AGAIN)):
        raise StudioError("chat-template-varies")
    if QUESTION not in asked or QUESTION not in whole or ANSWER not in whole:
        raise StudioError("chat-template-rewrites")
    before, _, behind = whole.rpartition(ANSWER)
    dated = templated(tokenizer, QUESTION, date=OTHER_DATE) != asked
    end = _end_id(tokenizer, behind)
    if before.startswith(asked):
        head = tokenizer.encode(before.removeprefix(asked), add_special_tokens=False)
        return Dialogue(lambda messages: _written(tokenizer, messages, templated), tuple(head), end, dated)
    # The template opens an answer with thinking that an answer of a dialogue does not have: ask without it.
    return Dialogue(lambda messages: _written(tokenizer, messages, _before_answer), (), end, dated)


def text_end(tokenizer: Any) -> int:
    """The token that ends a text. Raises StudioError `no-end-token` where no file of the base names one."""
    if tokenizer.eos_token_id is None:
        raise StudioError("no-end-token")
    return tokenizer.eos_token_id


def trained_end(tokenizer: Any, family: Family, *, chat: bool) -> int:
    """The token that training rows end with: of a dialogue the end of a turn, else the end of the text.

    Raises StudioError `no-end-token`, and for a dialogue what `dialogue_of` raises."""
    return dialogue_of(tokenizer, family).end if chat else text_end(tokenizer)


def end_ids(tokenizer: Any, family: Family, stated: int | Sequence[int] | None) -> list[int]:
    """Every token that ends an answer, each once: those that a model's files have `stated`, the end of the text, and
    the stops. Where an answer ends here it ends wherever the model goes."""
    ids = list(stated) if isinstance(stated, Sequence) else [stated]
    if tokenizer is not None:
        ids += [tokenizer.eos_token_id, *sorted(stop_ids(tokenizer, family))]
    return [index for index in dict.fromkeys(ids) if index is not None]


def stop_ids(tokenizer: Any, family: Family) -> set[int]:
    """Ids that end an answer beside the end of the text: other roles' tokens and the end of a turn."""
    found = {tokenizer.convert_tokens_to_ids(token) for token in family.stop_tokens if _has(tokenizer, token)}
    try:
        return found | {dialogue_of(tokenizer, family).end}
    except StudioError:  # Without a usable template there are no turns.
        return found


def _form_ids(tokenizer: Any, form: ChatForm, messages: Sequence[str]) -> list[list[int]]:
    before, after = (tokenizer.convert_tokens_to_ids(list(tokens)) for tokens in (form.before, form.after))
    parts = [encoded(tokenizer, [text.replace(MESSAGE, message) for message in messages]) for text in form.texts]
    return [[*before, *chain(*ids), *after] for ids in zip(*parts, strict=True)]


def templated(
    tokenizer: Any, message: str, answer: str | None = None, *, date: datetime.datetime = TEMPLATE_DATE
) -> str:
    """The template's text up to where an answer begins, or with the answer and what closes it. Where it writes the time
    that is `date`: with a clock a run's prompts would be others today than tomorrow.

    Raises StudioError `chat-template-unfit`.
    """
    messages = [{"role": "user", "content": message}]
    messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    try:
        template = tokenizer.get_chat_template()
        # transformers gives a template its own clock, and takes no other one from a caller.
        own = {"chat_template": _clock(date) + template} if "strftime_now" in template else {}
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer is None, enable_thinking=False, **own
        )
    except Exception as error:  # A template is a program of its own and may raise anything.
        reason = str(error).strip().partition("\n")[0]
        raise StudioError("chat-template-unfit", reason=reason or type(error).__name__) from error


def _clock(date: datetime.datetime) -> str:
    """A macro in place of the function `strftime_now` that templates call."""
    parts = [f"%{letter}" for letter in "aAbBcdfGHIjmMpSuUVwWxXyYzZ"] + [f"%-{letter}" for letter in "dHIjmMSUWy"]
    filters = "".join(f" | replace({part!r}, {date.strftime(part)!r})" for part in parts)
    return f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}"


def _before_answer(tokenizer: Any, message: str) -> str:
    return templated(tokenizer, message, ANSWER).rpartition(ANSWER)[0]


def _written(tokenizer: Any, messages: Sequence[str], write: Callable[[Any, str], str]) -> list[list[int]]:
    # The template has written the special tokens already.
    return encoded(tokenizer, [write(tokenizer, message) for message in messages])


def _end_id(tokenizer: Any, behind: str) -> int:
    """The special token that a template puts right behind an answer, else the end of the text."""
    ids: Sequence[int] = tokenizer.encode(behind.strip(), add_special_tokens=False)
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else text_end(tokenizer)


def _has(tokenizer: Any, token: str) -> bool:
    """Whether a token is in the vocabulary; an unknown one gives the id of the unknown token, or none."""
    index = tokenizer.convert_tokens_to_ids(token)
    return index is not None and tokenizer.convert_ids_to_tokens(index) == token
