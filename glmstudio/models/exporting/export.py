"""Every way out through one call, for the page and the command line: adapter, merged weights, GGUF with a Modelfile.

Knows which of them needs which; does none of the work.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import RECORD, record_of
from glmstudio.models.checkpoint_files import read_json
from glmstudio.models.exporting import gguf
from glmstudio.models.exporting.destinations import free_name, size_of, workplace
from glmstudio.models.exporting.export_adapter import export_adapter
from glmstudio.models.exporting.export_merged import Progress, Prompts, export_merged
from glmstudio.models.exporting.export_result import ExportResult
from glmstudio.models.exporting.ollama import modelfile
from glmstudio.models.families.table import family_of
from glmstudio.models.loading import load_tokenizer
from glmstudio.models.prompts.dialogue import trained_end
from glmstudio.models.prompts.prompt_style import CHAT
from glmstudio.models.sources import folder_of

KINDS = ("adapter", "merged", "gguf")
MODELFILE = "Modelfile"


def export(
    kind: str,
    destination: str | Path,
    *,
    base_source: str | None = None,
    adapter: str | Path | None = None,
    form: str = "native",
    dtype: str = "auto",
    device: str = "auto",
    outtype: str = "auto",
    scores: Mapping[str, Any] | None = None,
    prompts: Prompts | None = None,
    language: str = "en",
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ExportResult:
    """Writes `destination`: a folder for "adapter" and "merged", a .gguf file for "gguf" with its Modelfile beside it
    (`Modelfile-2` where another one is there).

    "adapter" and "merged" need `adapter`; "merged" needs `base_source`. "gguf" converts the model `base_source`, and
    with an `adapter` merges it first into a folder that is removed at the end. Raises StudioError as `export_adapter`,
    `export_merged` and `gguf.convert` do.
    """
    if kind == "adapter":
        return export_adapter(adapter, destination, base_source=base_source, scores=scores, language=language)
    wish: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "scores": scores,
        "prompts": prompts,
        "language": language,
        "on_progress": on_progress,
        "should_stop": should_stop,
    }
    if kind == "merged":
        return export_merged(base_source, adapter, destination, form=form, **wish)
    if kind != "gguf":
        raise StudioError("setting-choice", field="kind", value=kind, choices=", ".join(KINDS))
    destination = Path(destination)
    if adapter is None:
        return to_gguf(folder_of(base_source), destination, outtype, on_progress=on_progress, should_stop=should_stop)
    source = folder_of(base_source)
    config = read_json(source / "config.json")
    gguf.refuse_unsupported(config, family_of(config, str(source)))
    gguf.find_converter()
    with workplace(destination) as folder:
        merged = folder / destination.stem
        done = export_merged(base_source, adapter, merged, **wish)
        made = to_gguf(merged, destination, outtype, on_progress=on_progress, should_stop=should_stop)
    return ExportResult(made.path, made.bytes, done.check, done.doubt)


def to_gguf(
    folder: str | Path,
    destination: str | Path,
    outtype: str = "auto",
    *,
    style: str | None = None,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ExportResult:
    """The model of a folder as a .gguf file with a Modelfile beside it, whose template is the prompt style.

    `style` is the recorded one where it is not given. Raises StudioError as `gguf.convert` does.
    """
    folder, destination = Path(folder), Path(destination)
    config, record = read_json(folder / "config.json"), record_of(folder / RECORD)
    family, tokenizer = family_of(config, str(folder)), load_tokenizer(folder)
    style = style or record["prompt_style"]
    trained = trained_end(tokenizer, family, chat=style == CHAT)
    end = tokenizer.convert_ids_to_tokens(trained) if trained != tokenizer.eos_token_id else None
    path = gguf.convert(folder, destination, outtype, end=end, on_progress=on_progress, should_stop=should_stop)
    lengths = record["max_source_length"] + record["max_target_length"]
    text = modelfile(path, tokenizer, family, style, lengths)
    free_name(path.parent, MODELFILE).write_text(text, encoding="utf-8")
    return ExportResult(path, size_of(path))
