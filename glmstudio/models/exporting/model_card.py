"""README.md of what is exported: base, prompt as the model sees it, settings, scores, merge check, how to load it.

Writes text from facts; reads no weight and loads no model.
"""

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glmstudio.models.chat_format import render_prompt
from glmstudio.models.exporting.card_words import WORDS
from glmstudio.models.exporting.merge_check import MergeCheck
from glmstudio.models.families.family import Family
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.prompts.prompt_text import LIMIT, PromptText, filled, prompt_text, seen_text

EXAMPLE = ("Name the city in the text.", "Oslo is the capital of Norway.")
SETTINGS = (
    "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm",
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_processes", "seed",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "peft", "safetensors")
PLACE = "path/of/this/folder"


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from. `base` is a name that others know; `about` is that of `about_adapter`; `tokenizer` None
    leaves the prompt out; `scores` is the JSON of an evaluation; `check` is there for merged weights only, which tells
    the two kinds of card apart."""

    name: str
    base: str
    family: Family
    about: Mapping[str, Any]
    tokenizer: Any
    scores: Mapping[str, Any] | None = None
    check: MergeCheck | None = None


def card(facts: CardFacts, language: str = "en") -> str:
    """The whole README.md, in `language` "en" or "zh"."""
    words = WORDS[language]
    kind = words["kind-ptuning" if facts.about.get("kind") == "ptuning" else "kind-lora"].strip(" ")
    form = "merged" if facts.check else "adapter"
    fill = {"name": facts.name, "base": facts.base, "family": facts.family.title, "kind": kind}
    parts = [
        _front_matter(facts, fill["base"]),
        "# " + words[f"title-{form}"].format(**fill),
        words[f"intro-{form}"].format(**fill),
        *_section(words["training"], _training(facts)),
        *(_section(words["prompt"], _prompt(facts, words)) if facts.tokenizer else ()),
        *(_section(words["scores"], _scores(facts.scores, words)) if facts.scores else ()),
        *(_section(words["check"], _check(facts.check, words)) if facts.check else ()),
        *_section(words["loading"], _loading(facts, words, fill["base"])),
        *_section(words["versions"], [_versions(facts.about)]),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, parts: Iterable[str]) -> list[str]:
    return [f"## {title}", *parts]


def _front_matter(facts: CardFacts, base: str) -> str:
    library = "transformers" if facts.check else "peft"
    lines = [f"base_model: {base}", f"library_name: {library}", "pipeline_tag: text-generation", "tags: [glm-studio]"]
    return "\n".join(["---", *lines, "---"])


def _training(facts: CardFacts) -> list[str]:
    about = facts.about
    lora, settings = about.get("lora", {}), about.get("settings", {})
    rows = {
        "base": f"`{facts.base}`",
        "family": facts.family.title,
        "prompt_style": about["prompt_style"],
        "max_source_length": about["max_source_length"],
        "max_target_length": about.get("max_target_length"),
        **{name: lora.get(name) for name in ("r", "lora_alpha", "lora_dropout")},
        "target_modules": ", ".join(lora.get("target_modules") or ()) or None,
        **{name: settings.get(name) for name in SETTINGS},
        "dataset": about.get("dataset"),
        "from_adapter": about.get("from_adapter") or None,
        "step": " of ".join(str(about[name]) for name in ("step", "total") if about.get(name)) or None,
        "dev loss": about.get("best_eval_loss"),
    }
    return [_table(("", ""), ((name, _short(value)) for name, value in rows.items() if value is not None))]


def _prompt(facts: CardFacts, words: Mapping[str, str]) -> list[str]:
    style = facts.about["prompt_style"]
    ids = render_prompt(facts.tokenizer, facts.family, *EXAMPLE, max_source_length=LIMIT, style=style).ids
    parts = [words[f"prompt-{style}"]] + ([] if facts.about["recorded"] else [words["prompt-default"]])
    return [*parts, words["prompt-seen"], _code(seen_text(facts.tokenizer, ids), "text"), _code(str(ids), "text")]


def _scores(scores: Mapping[str, Any], words: Mapping[str, str]) -> list[str]:
    columns = [name for name in ("base", "tuned") if scores.get(name)]
    rows = [
        (key, *(_number(scores[name].get(key)) for name in columns))
        for key in scores[columns[0]]
        if any(isinstance(scores[name].get(key), float) for name in columns)
    ]
    done = len(scores.get("rows", ()))
    counts = {"rows": done, "total": scores.get("total", done)}
    said = words["scores-partial" if scores.get("cancelled") else "scores-rows"].format(**counts)
    temperature = scores.get("settings", {}).get("temperature")
    if temperature is not None:
        said += words["scores-drawn" if temperature else "scores-greedy"].format(temperature=temperature)
    return [said, _table(("", *columns), rows)]


def _check(check: MergeCheck, words: Mapping[str, str]) -> list[str]:
    values = check.as_json() | {"agreement": check.argmax_agreement}
    said = [words["check-words"].format(**values)]
    return said if check.carries_adapter else [*said, words["check-lost"].format(**values)]


def _loading(facts: CardFacts, words: Mapping[str, str], base: str) -> list[str]:
    parts = []
    prefix = facts.about.get("kind") == "ptuning"
    found = prompt_text(facts.tokenizer, facts.family, facts.about["prompt_style"]) if facts.tokenizer else None
    if found is not None and (found.exact or found.by_itself) and not prefix:
        parts += [words["with-transformers-merged" if facts.check else "with-transformers"]]
        parts += [_code(_transformers_code(facts, base, found), "python")]
        if facts.family.converted and not facts.check:
            parts += [words["convert-first"].format(base=base)]
    source = f"--base {PLACE}" if facts.check else f"--base {base} --adapter {PLACE}"
    command = f'python -m glmstudio compare {source} --instruction "{EXAMPLE[0]}" --input "{EXAMPLE[1]}"'
    return [*parts, words["with-studio"], _code(command, "sh")]


def _transformers_code(facts: CardFacts, base: str, found: PromptText) -> str:
    source = PLACE if facts.check else base
    prompt, add = (found.bare, "") if found.by_itself else (found.text, "add_special_tokens=False, ")
    length = facts.about.get("max_target_length") or 300
    # Merged files name their ends themselves.
    ends = "" if facts.check else f", eos_token_id={end_ids(facts.tokenizer, facts.family, None)}"
    return (
        f"{facts.family.import_line}"
        f"{'' if facts.check else 'from peft import PeftModel' + chr(10)}"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{source}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{source}", dtype="auto")\n'
        f"{'' if facts.check else f'model = PeftModel.from_pretrained(model, {PLACE!r})' + chr(10)}"
        f"prompt = {filled(prompt, *EXAMPLE)!r}\n"
        f'inputs = tokenizer(prompt, {add}return_tensors="pt")\n'
        f"answer = model.generate(**inputs, max_new_tokens={length}, do_sample=False{ends})\n"
        'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'
    )


def _versions(about: Mapping[str, Any]) -> str:
    made_with = {name: importlib.metadata.version(name) for name in PACKAGES}
    return _table(("", ""), (about.get("versions") or made_with).items())


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, ["---"] * len(tuple(head)), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _code(text: str, kind: str) -> str:
    return f"```{kind}\n{text}\n```"
