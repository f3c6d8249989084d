"""Downloads from ModelScope through its own client, which is installed only where it is wanted. Knows no model.

The client resumes broken downloads and checks every sha256 itself; here its bytes are counted and its errors named.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError, first_line
from glmstudio.models.hubs.hub_transfer import (
    HubFile,
    OnProgress,
    ShouldStop,
    Transfer,
    require_space,
    total_size,
    wanted,
)


def download(name: str, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> Path:
    """The local folder of the model `name` (owner/name), as `hub.fetch` says."""
    try:
        import modelscope_hub as client
    except ImportError as error:
        raise StudioError("modelscope-missing", source=name) from error
    hub, kept = client.HubApi(), kept_folder(name)
    try:
        listed = [HubFile(file.path, file.size, file.sha256) for file in hub.list_repo_files(name, "model")]
        files = wanted(name, listed, lambda index: Path(hub.download_file(name, "model", index)))
    except StudioError:
        raise
    except Exception as error:  # The client lets errors of its HTTP library through.
        if kept is not None:
            return kept
        raise _refusal(client, name, error, "hub-unreachable") from error
    absent = [file for file in files if kept is None or not _has(kept, file)]
    if not absent:
        # The client would read every byte again to check it.
        return kept
    require_space(name, _cache(), total_size(absent))
    transfer = Transfer(total_size(files), on_progress, should_stop)
    transfer.add(total_size(file for file in files if file not in absent), "")
    names = [file.name for file in absent]
    try:
        return Path(hub.download_repo(name, "model", allow_patterns=names, progress_callbacks=[_counting(transfer)]))
    except Exception as error:
        raise _refusal(client, name, error, "download-broken") from error


def kept_folder(name: str) -> Path | None:
    """The folder of an earlier download, whole or not."""
    return kept_folders().get(name)


def kept_folders() -> dict[str, Path]:
    """owner/name -> folder of every model in the cache, as the client lays it out since 1.38 and as it did before."""
    found = {}
    for models in (_cache() / "hub" / "models", _cache() / "models"):
        for folder in models.glob("*/*"):
            if folder.is_dir() and (folder / "config.json").is_file():
                found[f"{folder.parent.name}/{folder.name.replace('___', '.')}"] = folder
        for snapshot in models.glob("*--*/snapshots/*"):
            owner, _, name = snapshot.parent.parent.name.partition("--")
            found[f"{owner}/{name}"] = snapshot
    return found


def _cache() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope")


def _has(folder: Path, file: HubFile) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size


def _counting(transfer: Transfer) -> type:
    """A class of which the client makes one object for every try at a file, and another one when it begins anew."""
    counted: Counter[str] = Counter()

    class Counting:
        def __init__(self, filename: str, file_size: int) -> None:
            self._file = filename
            self.update(-counted[filename])

        def update(self, size: int) -> None:
            counted[self._file] += size
            transfer.add(size, self._file)

        def end(self) -> None:
            pass

    return Counting


def _refusal(client: Any, name: str, error: Exception, otherwise: str) -> StudioError:
    where = {"source": name, "endpoint": client.get_default_config().endpoint}
    failed: dict[str, BaseException] = getattr(error, "failed_files", {})
    for file, cause in failed.items():
        if isinstance(cause, client.FileIntegrityError):
            return StudioError("download-checksum", **where, file=file, reason=first_line(cause))
    cause = next(iter(failed.values()), error)
    if isinstance(cause, client.AuthenticationError | client.PermissionDeniedError):
        return StudioError("hub-gated", **where)
    if isinstance(cause, client.NotExistError):
        return StudioError("hub-unknown", **where)
    return StudioError(otherwise, **where, reason=first_line(cause))
