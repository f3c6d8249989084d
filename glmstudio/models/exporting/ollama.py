"""An Ollama Modelfile beside a GGUF file, whose template is the prompt that the model was trained with.

Writes text from a tokenizer and a family; knows no weights.
"""

from pathlib import Path
from typing import Any

from glmstudio.models.families.family import Family
from glmstudio.models.prompts.chat_forms import MESSAGE
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.prompts.prompt_style import CHAT
from glmstudio.models.prompts.prompt_text import prompt_text

FEWEST_TOKENS = 2048


def modelfile(gguf: Path, tokenizer: Any, family: Family, style: str, context: int) -> str:
    """The text of a Modelfile: `gguf` by its name, the template of `style`, greedy answers, `context` tokens at most.

    In the instruction style a system message is the instruction and the prompt the input; alone the prompt is the
    instruction. Ollama's own repetition penalty is taken out. Raises StudioError as `prompt_text` does.
    """
    text = prompt_text(tokenizer, family, style).text
    if hasattr(tokenizer, "written"):
        # Only what is written for plain transformers calls it so; the file keeps the original name.
        text = text.replace("<sop>", "sop")
    if tokenizer.bos_token_id is not None and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]:
        # The file tells Ollama to put this token in front by itself.
        text = text.removeprefix(tokenizer.bos_token)
    stops = [tokenizer.convert_ids_to_tokens(index) for index in sorted(end_ids(tokenizer, family, None))]
    return "\n".join(
        [
            f"FROM ./{gguf.name}",
            f'TEMPLATE """{_template(text, style)}"""',
            *(f'PARAMETER stop "{stop}"' for stop in stops),
            "PARAMETER temperature 0",
            "PARAMETER repeat_penalty 1",
            f"PARAMETER num_ctx {max(FEWEST_TOKENS, context)}",
            "",
        ]
    )


def _template(text: str, style: str) -> str:
    if style == CHAT:
        message = "{{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}"
        return text.replace(MESSAGE, message) + "{{ .Response }}"
    asked = text.replace("{instruction}", "{{ .System }}").replace("{input}", "{{ .Prompt }}")
    alone = text.replace("{instruction}", "{{ .Prompt }}").replace("{input}", "")
    return f"{{{{ if .System }}}}{asked}{{{{ else }}}}{alone}{{{{ end }}}}{{{{ .Response }}}}"
