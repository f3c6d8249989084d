"""How the ChatGLM generations that have no chat template write the first round of a dialogue. Data only."""

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


# Each is what the original code's `chat` builds for a first question.
CHATGLM_FORM = ChatForm((), (MESSAGE,), ("[gMASK]", "<sop>"))
CHATGLM2_FORM = ChatForm(("[gMASK]", "sop"), (f"[Round 1]\n\n问：{MESSAGE}\n\n答：",), ())
CHATGLM3_FORM = ChatForm(("[gMASK]", "sop", "<|user|>"), ("\n", MESSAGE), ("<|assistant|>",), answer_head="\n")
GLM4_FORM = ChatForm(("[gMASK]", "<sop>", "<|user|>"), ("\n", MESSAGE), ("<|assistant|>",), answer_head="\n")
