"""Every setting, declared once with its bounds and choices: form, command line, README and checks read it from here.

Labels and help are words, so they live in the word lists (`setting.<name>.label`, `setting.<name>.help`).
"""

from dataclasses import dataclass, field, fields
from typing import Any

from glmstudio.errors import StudioError

DTYPES = ("auto", "bf16", "fp16", "fp32")
METHODS = ("lora", "ptuning")
PROMPT_STYLES = ("instruction", "chat")
# In the place of a base: none until one is needed.
NO_BASE = "none"
QUANTIZATIONS = ("none", "8bit", "4bit")
EXPORT_FORMS = ("native", "official")
# What the page writes a checkpoint as.
EXPORT_KINDS = ("adapter", "merged", "official", "gguf")
GGUF_TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
SCHEDULERS = ("linear", "cosine", "constant")
TRACKERS = ("none", "tensorboard", "swanlab", "trackio", "wandb")
SWITCHES = ("auto", "on", "off")
PRESETS = ("quick", "standard", "thorough")


def setting(default: Any, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with inclusive bounds or a closed list of choices."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class LoraSettings:
    """PEFT's names. `target_modules` empty means the family's own list."""

    r: int = setting(8, 1, 256)
    lora_alpha: int = setting(16, 1, 1024)
    lora_dropout: float = setting(0.0, 0.0, 0.9)
    target_modules: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class TrainingSettings:
    """TrainingArguments' names. Lengths are tokens, rates are per optimizer step; `eval_steps` 0 means each epoch,
    `save_steps` 0 means together with each evaluation. `early_stopping_patience` counts evaluations in a row without a
    better dev loss, 0 never ends a run for them. `method` ptuning is P-Tuning v2, whose `pre_seq_len` virtual
    tokens and `prefix_projection` are under their official names; LoRA leaves both alone. An optimizer step is
    `per_device_train_batch_size` * `gradient_accumulation_steps` rows in each of `num_processes` processes, computed in
    micro-batches of at most `token_budget` tokens; 0: of a batch each."""

    prompt_style: str = setting("instruction", choices=PROMPT_STYLES)
    method: str = setting("lora", choices=METHODS)
    pre_seq_len: int = setting(128, 1, 2048)
    prefix_projection: bool = setting(False)
    num_train_epochs: float = setting(3.0, 0.01, 1000)
    learning_rate: float = setting(2e-4, 1e-7, 1.0)
    per_device_train_batch_size: int = setting(8, 1, 512)
    gradient_accumulation_steps: int = setting(1, 1, 512)
    max_source_length: int = setting(400, 8, 32768)
    max_target_length: int = setting(300, 4, 32768)
    eval_steps: int = setting(0, 0, 1_000_000)
    early_stopping_patience: int = setting(0, 0, 1000)
    save_steps: int = setting(0, 0, 1_000_000)
    logging_steps: int = setting(1, 1, 100_000)
    warmup_ratio: float = setting(0.05, 0.0, 1.0)
    weight_decay: float = setting(0.0, 0.0, 1.0)
    max_grad_norm: float = setting(1.0, 0.0, 1000.0)
    lr_scheduler_type: str = setting("linear", choices=SCHEDULERS)
    save_total_limit: int = setting(3, 1, 1000)
    gradient_checkpointing: str = setting("auto", choices=SWITCHES)
    token_budget: int = setting(0, 0, 10_000_000)
    seed: int = setting(42, 0, 2**31 - 1)
    report_to: str = setting("none", choices=TRACKERS)
    num_processes: int = setting(1, 1, 1024)

    def __post_init__(self) -> None:
        # Older runs wrote true or false.
        if isinstance(self.gradient_checkpointing, bool):
            object.__setattr__(self, "gradient_checkpointing", "on" if self.gradient_checkpointing else "off")

    @property
    def rows_in_step(self) -> int:
        """Training rows of one optimizer step, of all processes together."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_processes


@dataclass(frozen=True)
class GenerationSettings:
    """`temperature` 0 is greedy. `max_new_tokens` 0 stands for the length that was trained, which an `AdapterPrompt`
    fills in; else for `TrainingSettings`' own. `repetition_stop` ends an answer that repeats a phrase that often; 0
    never does."""

    temperature: float = setting(0.0, 0.0, 5.0)
    top_p: float = setting(1.0, 0.01, 1.0)
    max_new_tokens: int = setting(0, 0, 32768)
    repetition_stop: int = setting(8, 0, 1000)
    seed: int = setting(42, 0, 2**31 - 1)

    @property
    def limit(self) -> int:
        """How many tokens an answer has at most."""
        return self.max_new_tokens or TrainingSettings.max_target_length


# (method, whether the base is the demonstration one) → the rate to start from. A plain prefix moves very little at
# LoRA's rates; 2e-2 is the rate of the original P-Tuning v2 scripts.
RATES = {("lora", False): 2e-4, ("lora", True): 2e-3, ("ptuning", False): 2e-2, ("ptuning", True): 0.2}
EPOCHS = {"quick": 1.0, "standard": 3.0, "thorough": 6.0}
DEMONSTRATION_EPOCHS = {"quick": 3.0, "standard": 8.0, "thorough": 16.0}


def recommended(preset: str = "standard", *, demonstration: bool = False, method: str = "lora") -> TrainingSettings:
    """What to start from. The small demonstration base needs a higher rate and more epochs than a real one."""
    epochs = (DEMONSTRATION_EPOCHS if demonstration else EPOCHS)[preset]
    return TrainingSettings(num_train_epochs=epochs, learning_rate=RATES[method, demonstration], method=method)


def out_of_bounds(settings: Any) -> list[StudioError]:
    """Every field of a settings dataclass that breaks its bounds or choices, as errors with the field and the bound."""
    found = []
    for item in fields(settings):
        value, bounds = getattr(settings, item.name), item.metadata
        if not bounds:
            continue
        if bounds["choices"] and value not in bounds["choices"]:
            choices = ", ".join(bounds["choices"])
            found.append(StudioError("setting-choice", field=item.name, value=value, choices=choices))
        elif bounds["low"] is not None and not bounds["low"] <= value <= bounds["high"]:
            found.append(
                StudioError("setting-bounds", field=item.name, value=value, low=bounds["low"], high=bounds["high"])
            )
    return found


def switch(text: str) -> str:
    """One of `SWITCHES` for what people write of it, whatever is not one as it is."""
    return {"true": "on", "false": "off"}.get(text.lower(), text)


def flag_name(field_name: str) -> str:
    """The command line's flag of a field: hyphens, and PEFT's bare `r` as `--lora-rank`."""
    return "--lora-rank" if field_name == "r" else f"--{field_name.replace('_', '-')}"


def flag_value(value: Any) -> str:
    """A value as it is typed behind its flag; a list is joined by commas."""
    return ",".join(value) if isinstance(value, tuple) else str(value)
