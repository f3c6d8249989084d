"""Finished adapters from files onto a base: PEFT folders and P-Tuning v2 folders. Knows no training and no gate."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftConfig, PeftModelForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.chatglm.weights import with_prefix
from glmstudio.models.checkpoint_files import first_line
from glmstudio.models.families import CHATGLM

if TYPE_CHECKING:
    from glmstudio.models.loading import Base


def load_adapter(base: "Base", folder: str | Path) -> torch.nn.Module:
    """The base with an adapter: a PEFT folder (peft 0.3 or later), or a P-Tuning v2 folder of ChatGLM-6B.

    Raises StudioError `adapter-missing` for a folder that is neither, `adapter-unfit` where it is not for this base,
    which is then as it was before.
    """
    folder = Path(folder)
    try:
        if (folder / "adapter_config.json").is_file():
            return _with_peft(base, folder)
        if base.family is CHATGLM and (folder / "config.json").is_file():
            return with_prefix(base.model, folder)
    except StudioError:
        raise
    except Exception as error:  # A folder may hold anything, and every library in between has errors of its own.
        raise StudioError("adapter-unfit", folder=str(folder), source=base.source, reason=first_line(error)) from error
    raise StudioError("adapter-missing", folder=str(folder))


def _with_peft(base: "Base", folder: Path) -> PeftModelForCausalLM:
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    model = PeftModelForCausalLM(base.model, config)
    try:
        found = model.load_adapter(str(folder), "default", torch_device=str(base.device))
        if found.missing_keys:
            raise ValueError(f"{len(found.missing_keys)} weights are not in the file")
    except Exception:
        model.unload()
        raise
    return model.eval()
