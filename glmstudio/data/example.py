"""One instruction example and the prompt text made from it. Pure: knows no file, no database, no tokenizer."""

from dataclasses import dataclass, field

DEFAULT_DATASET = "default"
SPLITS = ("train", "dev")
STATUSES = ("draft", "done", "discarded")
SOURCES = ("manual", "import", "feedback", "demo")

# The words that people call a split by.
SPLIT_NAMES = {
    "train": ("train", "training", "训练集", "训练"),
    "dev": (
        "dev", "val", "valid", "validation", "test", "testing", "eval", "evaluation",
        "验证集", "验证", "测试集", "测试", "开发集", "评测集", "评估集",
    ),
}  # fmt: skip
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_INSTRUCTION, _INPUT, _ANSWER = "Instruction: ", "\nInput: ", "\nAnswer: "


@dataclass(frozen=True)
class Example:
    """A row of a dataset. `id` and `revision` are given by the store; times are ISO 8601 in UTC."""

    instruction: str
    input: str = ""
    target: str = ""
    dataset: str = DEFAULT_DATASET
    split: str = "train"
    status: str = "done"
    source: str = "manual"
    annotator: str = ""
    tags: tuple[str, ...] = field(default=())
    id: int | None = None
    revision: int = 0
    created_at: str = ""
    updated_at: str = ""


@dataclass(frozen=True)
class Reject:
    """A row of a file that could not become an example: `code` names the reason, `params` its details. `line` and `row`
    are 1-based, 0 where there is none; `file` is that of several read at once."""

    line: int
    code: str
    params: dict[str, object] = field(default_factory=dict)
    row: int = 0
    file: str = ""


def split_of_name(name: str) -> str:
    """`train` or `dev` for a word that people call one of them by, else nothing."""
    return _SPLIT_OF.get(name.strip().lower(), "")


def join_context(instruction: str, input: str) -> str:
    """The prompt text of the `instruction` style, as the model sees it in training and in use."""
    return f"{_INSTRUCTION}{instruction}{_INPUT}{input}{_ANSWER}"


def join_message(instruction: str, input: str) -> str:
    """What the user says in the `chat` style: the instruction, and on the next line the input where both are there."""
    return f"{instruction}\n{input}" if instruction and input else instruction or input


def split_context(context: str) -> tuple[str, str] | None:
    """(instruction, input) such that `join_context` gives `context` back exactly; None where no such pair exists."""
    if not context.startswith(_INSTRUCTION) or not context.endswith(_ANSWER):
        return None
    head, separator, tail = context[len(_INSTRUCTION) : -len(_ANSWER)].partition(_INPUT)
    return (head, tail) if separator else None
