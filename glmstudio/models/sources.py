"""From what people write for a base, "embedded", a folder or a hub's model, to its folder. Loads nothing."""

from pathlib import Path

from glmstudio.errors import StudioError
from glmstudio.models.base_names import EMBEDDED
from glmstudio.models.hubs import hub
from glmstudio.workspace import repository_root


def embedded_folder() -> Path:
    """The folder of the small base that ships with the program."""
    return repository_root() / "data" / "embedded"


def folder_of(
    source: str, on_download: hub.OnProgress | None = None, should_stop: hub.ShouldStop | None = None
) -> Path:
    """The folder of the model `source`, downloaded where it is a hub's. Raises as `local_folder` and a hub do."""
    return local_folder(source) or hub.fetch(source, on_progress=on_download, should_stop=should_stop)


def folder_here(source: str) -> Path | None:
    """The folder of the model `source` where it is on this machine, None for a hub's that was not downloaded; nothing
    is fetched. A folder of ModelScope may lack files. Raises as `local_folder` does."""
    return local_folder(source) or hub.kept(source)


def local_folder(source: str) -> Path | None:
    """The folder that `source` names, None for a hub's model.

    Raises StudioError `base-missing` for what is neither, and `base-not-in-folder` for `a/b` where a folder `a` is here
    without `b` in it and no such model was downloaded: a folder was meant that has moved, and no hub hears of it.
    """
    folder = embedded_folder() if source == EMBEDDED else Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source == EMBEDDED or folder.exists() or not hub.is_hub_id(source):
        raise StudioError("base-missing", source=str(folder))
    if ":" not in source and folder.parent.is_dir() and not hub.kept(source):
        raise StudioError("base-not-in-folder", source=source, folder=str(folder.parent.absolute()))
    return None
