"""How a family whose tokenizer has no chat template writes the first round of a dialogue. Data only."""

from dataclasses import dataclass

MESSAGE = "{message}"


@dataclass(frozen=True)
class ChatForm:
    """One round: the special tokens `before`, then `texts`, then the special tokens `after`, then the answer.

    Each text is encoded by itself; `{message}` in one of them is what the user says. `answer_head` is written by the
    model in front of every answer and is no part of it.
    """

    before: tuple[str, ...]
    texts: tuple[str, ...]
    after: tuple[str, ...]
    answer_head: str = ""
