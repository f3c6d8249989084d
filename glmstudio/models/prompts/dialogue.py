"""A base's own dialogue: what stands around a message, what an answer begins and ends with.

Knows a tokenizer, its chat template and a family's form; cuts nothing and knows no training row.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.families import Family
from glmstudio.models.prompts.chat_forms import MESSAGE, ChatForm

# Plain words: no template trims, splits or rewrites them, and no person sees them.
QUESTION, ANSWER = "glmstudio question", "glmstudio answer"


@dataclass(frozen=True)
class Dialogue:
    """`prompt` gives the ids that ask for an answer to a message. The model begins an answer with the ids `head`, which
    are no part of what it says, and ends it with `end`."""

    prompt: Callable[[str], list[int]]
    head: tuple[int, ...]
    end: int


@functools.lru_cache(maxsize=4)
def dialogue_of(tokenizer: Any, family: Family) -> Dialogue:
    """The family's own form, else the tokenizer's chat template, without thinking where it can be left out.

    Raises StudioError `no-chat-template` where there is neither, `chat-template-unfit` for a template that breaks off.
    """
    if family.chat is not None:
        form, head = family.chat, tokenizer.encode(family.chat.answer_head, add_special_tokens=False)
        return Dialogue(lambda message: _form_ids(tokenizer, form, message), tuple(head), tokenizer.eos_token_id)
    if not getattr(tokenizer, "chat_template", None):
        raise StudioError("no-chat-template")
    asked = _templated(tokenizer, QUESTION)
    before, _, behind = _templated(tokenizer, QUESTION, ANSWER).rpartition(ANSWER)
    end = _end_id(tokenizer, behind)
    if before.startswith(asked):
        head = tokenizer.encode(before.removeprefix(asked), add_special_tokens=False)
        return Dialogue(lambda message: _encoded(tokenizer, _templated(tokenizer, message)), tuple(head), end)
    # The template opens an answer with thinking that an answer of a dialogue does not have: ask without it.
    return Dialogue(lambda message: _encoded(tokenizer, _before_answer(tokenizer, message)), (), end)


def trained_end(tokenizer: Any, family: Family, *, chat: bool) -> int:
    """The token that training rows end with: of a dialogue the end of a turn, else the end of the text."""
    return dialogue_of(tokenizer, family).end if chat else tokenizer.eos_token_id


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


def _form_ids(tokenizer: Any, form: ChatForm, message: str) -> list[int]:
    ids = tokenizer.convert_tokens_to_ids(list(form.before))
    for text in form.texts:
        ids = ids + tokenizer.encode(text.replace(MESSAGE, message), add_special_tokens=False)
    return ids + tokenizer.convert_tokens_to_ids(list(form.after))


def _templated(tokenizer: Any, message: str, answer: str | None = None) -> str:
    """The template's text up to where an answer begins, or with the answer and what closes it."""
    messages = [{"role": "user", "content": message}]
    messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer is None, enable_thinking=False
        )
    except Exception as error:  # A template is a program of its own and may raise anything.
        reason = str(error).strip().partition("\n")[0]
        raise StudioError("chat-template-unfit", reason=reason or type(error).__name__) from error


def _before_answer(tokenizer: Any, message: str) -> str:
    return _templated(tokenizer, message, ANSWER).rpartition(ANSWER)[0]


def _encoded(tokenizer: Any, text: str) -> list[int]:
    # The template has written the special tokens already.
    return tokenizer.encode(text, add_special_tokens=False)


def _end_id(tokenizer: Any, behind: str) -> int:
    """The special token that a template puts right behind an answer, else the end of the text."""
    ids: Sequence[int] = tokenizer.encode(behind.strip(), add_special_tokens=False)
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else tokenizer.eos_token_id


def _has(tokenizer: Any, token: str) -> bool:
    """Whether a token is in the vocabulary; an unknown one gives the id of the unknown token, or none."""
    index = tokenizer.convert_tokens_to_ids(token)
    return index is not None and tokenizer.convert_ids_to_tokens(index) == token
