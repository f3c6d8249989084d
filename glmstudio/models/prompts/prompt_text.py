"""A prompt style as text with places to fill, for programs that know neither our renderer nor our tokenizers.

Knows a tokenizer and a family; knows no model and no file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glmstudio.data.example import join_context, join_message
from glmstudio.models.chat_format import render_prompt
from glmstudio.models.families.family import Family
from glmstudio.models.prompts.chat_forms import MESSAGE
from glmstudio.models.prompts.dialogue import templated
from glmstudio.models.prompts.prompt_style import CHAT

# Longer than any prompt that is rendered here.
LIMIT = 32768
_MARK = "glmstudio question"
_TRIALS = (("Name it.", "Oslo is grey."), ("抽取实体", "《红楼梦》\n第一回"), ("Be brief.", ""))


@dataclass(frozen=True)
class PromptText:
    """`text` holds the special tokens by name and the places `{instruction}` and `{input}`, or `{message}` for a chat.

    `exact`: the tokenizer that plain transformers loads makes the ids that the model was trained with from the filled
    text, without adding special tokens. `by_itself`: it makes them from the filled `bare` text with the special tokens
    that it adds. Where both are false only our renderer gives them.
    """

    text: str
    bare: str
    style: str
    exact: bool
    by_itself: bool


def prompt_text(tokenizer: Any, family: Family, style: str) -> PromptText:
    """The style as text. Raises StudioError `no-tokenizer`, and for a chat what `dialogue_of` raises."""
    ids = _ids(tokenizer, family, style, (_MARK, "" if style == CHAT else _MARK))
    # ChatGLM2's and ChatGLM3's own tokenizers read no special token from text; those that they save do.
    plain = getattr(tokenizer, "written", tokenizer)
    wanted = [_ids(tokenizer, family, style, trial) for trial in _TRIALS]
    bare = MESSAGE if style == CHAT else join_context("{instruction}", "{input}")
    texts = list(_chat_texts(tokenizer, family, ids) if style == CHAT else _context_texts(tokenizer, plain, ids))
    right = [text for text in texts if _encoded(plain, text, special=False) == wanted]
    by_itself = _encoded(plain, bare, special=True) == wanted
    return PromptText((right or texts)[0], bare, style, bool(right), by_itself)


def filled(text: str, instruction: str, input: str) -> str:
    """A prompt's text with a row in its places."""
    if MESSAGE in text:
        return text.replace(MESSAGE, join_message(instruction, input))
    before, _, rest = text.partition("{instruction}")
    between, _, behind = rest.partition("{input}")
    return f"{before}{instruction}{between}{input}{behind}"


def seen_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The ids as a person reads them: text decoded, special tokens by their names where they stand."""
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    parts: list[str] = []
    run: list[int] = []
    for index in ids:
        token = tokenizer.convert_ids_to_tokens(index)
        # Control pieces of a sentencepiece model have a name but no text.
        silent = index in special or (not tokenizer.decode([index]) and token.strip("\u2581"))
        if silent:
            parts += [_decoded(tokenizer, run), token]
            run = []
        else:
            run.append(index)
    return "".join([*parts, _decoded(tokenizer, run)])


def _context_texts(tokenizer: Any, plain: Any, ids: list[int]) -> Iterator[str]:
    context = tokenizer.encode(join_context(_MARK, _MARK), add_special_tokens=False)
    start = next(place for place in range(len(ids)) if ids[place : place + len(context)] == context)
    around = (ids[:start], ids[start + len(context) :])
    before, behind = ("".join(plain.convert_ids_to_tokens(part)) for part in around)
    yield before + join_context("{instruction}", "{input}") + behind


def _chat_texts(tokenizer: Any, family: Family, ids: list[int]) -> Iterator[str]:
    if getattr(tokenizer, "chat_template", None):
        yield templated(tokenizer, _MARK).replace(_MARK, MESSAGE)
    if family.chat is not None:
        yield "".join((*family.chat.before, *family.chat.texts, *family.chat.after))
    yield seen_text(tokenizer, ids).replace(_MARK, MESSAGE)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False) if ids else ""


def _ids(tokenizer: Any, family: Family, style: str, trial: tuple[str, str]) -> list[int]:
    return render_prompt(tokenizer, family, *trial, max_source_length=LIMIT, style=style).ids


def _encoded(plain: Any, text: str, *, special: bool) -> list[list[int]]:
    return [plain.encode(filled(text, *trial), add_special_tokens=special) for trial in _TRIALS]
