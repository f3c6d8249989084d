"""Model folders from the Hugging Face hub, through its own client (HF_ENDPOINT, HF_HUB_OFFLINE and HF_HOME hold).

Knows no model and no family. Only data is fetched: no code that a repository carries.
"""

import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import first_line

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DATA = ["*.json", "*.model", "*.txt", "*.jinja"]


def fetch(source: str) -> Path:
    """The local folder of the hub model `source` (owner/name), with its safetensors weights or else its pickled ones.

    Raises StudioError `hub-gated`, `hub-unknown` or `hub-unreachable`; what has come is kept for the next try.
    """
    try:
        folder = Path(snapshot_download(source, allow_patterns=[*DATA, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(source, allow_patterns=[*DATA, "pytorch_model*.bin"]))
    except GatedRepoError as error:
        raise StudioError("hub-gated", source=source, endpoint=constants.ENDPOINT) from error
    except RepositoryNotFoundError as error:
        raise StudioError("hub-unknown", source=source, endpoint=constants.ENDPOINT) from error
    except OSError as error:
        reason = first_line(error)
        raise StudioError("hub-unreachable", source=source, endpoint=constants.ENDPOINT, reason=reason) from error
    return folder
