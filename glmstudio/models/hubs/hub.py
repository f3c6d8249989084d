"""Model folders from a hub: Hugging Face, or ModelScope where it is asked for. Knows no family and loads nothing.

Only data is fetched: no code that a repository carries. The settings of the hubs' own clients hold (HF_ENDPOINT,
HF_HUB_OFFLINE, HF_HOME; MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE).
"""

import os
import re
from pathlib import Path

from glmstudio.errors import StudioError
from glmstudio.models.hubs.hub_transfer import OnProgress, ShouldStop, Stopped

HUGGINGFACE, MODELSCOPE = HUBS = ("huggingface", "modelscope")
HUB_ID = re.compile(r"(?:(huggingface|modelscope):)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")


def is_hub_id(source: str) -> bool:
    """Whether `source` has the form of a hub's model: `owner/name`, or `modelscope:owner/name`."""
    return HUB_ID.fullmatch(source) is not None


def hub_and_name(source: str) -> tuple[str, str]:
    """(hub, owner/name) of a source that `is_hub_id`. Without a prefix the environment chooses: GLMSTUDIO_HUB, or
    USE_MODELSCOPE_HUB=1 as LLaMA-Factory has it; else Hugging Face."""
    hub, name = HUB_ID.fullmatch(source).groups()
    if hub is None:
        asked = os.environ.get("GLMSTUDIO_HUB", "").lower()
        legacy = os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "yes")
        hub = asked if asked in HUBS else MODELSCOPE if legacy else HUGGINGFACE
    return hub, name


def fetch(source: str, *, on_progress: OnProgress | None = None, should_stop: ShouldStop | None = None) -> Path:
    """The local folder of the hub model `source`, whole: safetensors weights, or else pickled ones, and its data files.

    `on_progress(done, total, file)` hears of every few hundred kilobytes, from several threads but one at a time; what
    was here before counts as done. A stop, or a connection that breaks, leaves what came, and the next call goes on
    from it. Every file that the hub knows a sha256 of is checked against it before it gets its name.

    Raises StudioError `hub-gated`, `hub-unknown`, `hub-unreachable`, `disk-small`, `base-no-weights`,
    `base-incomplete`, `download-broken`, `download-checksum`, `download-stopped`, `modelscope-missing`.
    """
    hub, name = hub_and_name(source)
    if hub == MODELSCOPE:
        from glmstudio.models.hubs.hub_modelscope import download
    else:
        from glmstudio.models.hubs.hub_huggingface import download
    try:
        return download(name, on_progress, should_stop)
    except Stopped as stop:
        raise StudioError("download-stopped", source=source) from stop


def kept(source: str) -> Path | None:
    """The folder of a hub's model as an earlier download left it, found without the network; None where there is none.

    A model of Hugging Face is there only whole; a folder of ModelScope may lack files.
    """
    hub, name = hub_and_name(source)
    if hub == MODELSCOPE:
        from glmstudio.models.hubs.hub_modelscope import kept_folder
    else:
        from glmstudio.models.hubs.hub_huggingface import kept_folder
    return kept_folder(name)
