"""A row for every model family: what its adapters attach to and how its prompts open the answer. Loads nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """`target_modules` are PEFT's names for LoRA; `opens_answer` the tokens between prompt and answer, empty where the
    tokenizer's own special tokens lead; `start_bears_loss` whether predicting the last of them counts in training."""

    name: str
    target_modules: tuple[str, ...] = ("all-linear",)
    opens_answer: tuple[str, ...] = ()
    start_bears_loss: bool = False


CHATGLM = Family(
    "chatglm",
    target_modules=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    opens_answer=("[gMASK]", "<sop>"),
    start_bears_loss=True,
)
