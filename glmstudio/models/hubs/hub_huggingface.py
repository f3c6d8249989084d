"""Downloads from Hugging Face into the cache of its own client, so that every other program finds them there.

The client begins a file anew when a download of it was broken off (huggingface_hub 2.4); large files are therefore
streamed here, into `blobs/<sha256>.part`, and go on where they stopped. Knows no model.
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status
from tqdm import tqdm

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

FILES_AT_ONCE = 4
CHUNK = 256 * 1024
TRIES_WITHOUT_A_BYTE = 5
SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_folder(name: str) -> Path:
    """Where the client keeps a model: `blobs/` by hash, `snapshots/<commit>/` of links, `refs/`."""
    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def download(name: str, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> Path:
    """The snapshot folder of the model `name` (owner/name), as `hub.fetch` says."""
    try:
        info = HfApi().model_info(name, files_metadata=True)
        listed = [HubFile(file.rfilename, file.size, file.lfs and file.lfs.sha256) for file in info.siblings]
        snapshot = _Snapshot(name, info.sha)
        files = wanted(name, listed, snapshot.link)
    except StudioError:
        raise
    except Exception as error:  # The client lets errors of its HTTP library through, whichever that is.
        if folder := kept_folder(name):
            return folder
        raise _refusal(name, error) from error
    absent = [file for file in files if not snapshot.has(file)]
    require_space(name, snapshot.blobs, total_size(absent) - sum(map(snapshot.came, absent)))
    transfer = Transfer(total_size(files), on_progress, should_stop)
    transfer.add(total_size(file for file in files if file not in absent), "")
    try:
        snapshot.fetch(absent, transfer)
        # Finds every file there; notes which commit is the newest and what belongs to it, for the next time offline.
        return Path(snapshot_download(name, allow_patterns=[file.name for file in files], tqdm_class=_NoBar))
    except StudioError:
        raise
    except GatedRepoError as error:
        raise _refusal(name, error) from error
    except Exception as error:
        reason = first_line(error)
        raise StudioError("download-broken", source=name, endpoint=constants.ENDPOINT, reason=reason) from error


def kept_folder(name: str) -> Path | None:
    """The newest snapshot that was downloaded whole, found without the network."""
    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _refusal(name: str, error: Exception) -> StudioError:
    where = {"source": name, "endpoint": constants.ENDPOINT}
    if isinstance(error, GatedRepoError):
        return StudioError("hub-gated", **where)
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return StudioError("hub-unknown", **where)
    return StudioError("hub-unreachable", **where, reason=first_line(error))


class _NoBar(tqdm):
    """In place of the client's bars, which say nothing of the whole."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options | {"disable": True})


class _Snapshot:
    """One commit of a model in the client's cache."""

    def __init__(self, name: str, commit: str) -> None:
        self._name, self._commit = name, commit
        self._folder = cache_folder(name) / "snapshots" / commit
        self.blobs = cache_folder(name) / "blobs"

    def link(self, file: str) -> Path:
        """The client's own way to a file: links it where its content is there, else fetches it."""
        return Path(hf_hub_download(self._name, file, revision=self._commit, tqdm_class=_NoBar))

    def has(self, file: HubFile) -> bool:
        """Whether the file is there in its full size; a shorter one is taken away, for it can only be damaged."""
        path = self._folder / file.name
        if file.size is not None and path.is_file() and path.stat().st_size != file.size:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
        return path.is_file()

    def came(self, file: HubFile) -> int:
        """The bytes of an absent file that an earlier download left."""
        part = self._part(file.sha256 or "none")
        return part.stat().st_size if part.is_file() else 0

    def fetch(self, files: list[HubFile], transfer: Transfer) -> None:
        self.blobs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            futures = [pool.submit(self._fetch, file, transfer) for file in files]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                transfer.halt()
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, file: HubFile, transfer: Transfer) -> None:
        transfer.add(0, file.name)
        if file.sha256 is None or file.size is None or file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            self.link(file.name)
            transfer.add(file.size or 0, file.name)
            return
        url = hf_hub_url(self._name, file.name, revision=self._commit)
        # The client names a blob by its etag, which is the sha256 here; a mirror may have its own idea.
        etag = get_hf_file_metadata(url).etag or file.sha256
        lock = Path(constants.HF_HUB_CACHE) / ".locks" / cache_folder(self._name).name / f"{etag}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if (self.blobs / etag).exists():
                transfer.add(file.size, file.name)
            else:
                part = self._part(file.sha256)
                _stream(url, part, file, transfer)
                self._refuse_other_content(part, file)
                part.replace(self.blobs / etag)
        self.link(file.name)

    def _part(self, name: str) -> Path:
        return self.blobs / f"{name}.part"

    def _refuse_other_content(self, part: Path, file: HubFile) -> None:
        with part.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != file.sha256:
            part.unlink()
            where = {"source": self._name, "endpoint": constants.ENDPOINT}
            reason = f"sha256 {actual} instead of {file.sha256}"
            raise StudioError("download-checksum", **where, file=file.name, reason=reason)


def _stream(url: str, part: Path, file: HubFile, transfer: Transfer) -> None:
    """Brings `part` to the file's full size, from where it is; a connection that breaks is taken up again."""
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    have = part.stat().st_size if part.is_file() else 0
    transfer.add(have, file.name)
    tries = 0
    while have != file.size:
        former = have
        transfer.add(0, file.name)
        try:
            headers = build_hf_headers() | {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
            request = {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
            with get_session().stream("GET", url, **request) as response:
                hf_raise_for_status(response)
                if response.status_code != 206:
                    transfer.add(-have, file.name)
                    former = have = 0
                with part.open("ab" if have else "wb") as target:
                    for chunk in response.iter_bytes(CHUNK):
                        target.write(chunk)
                        have += len(chunk)
                        transfer.add(len(chunk), file.name)
        except OSError:
            raise
        except Exception:  # Whatever the HTTP library calls a connection that broke.
            if have == former and tries == TRIES_WITHOUT_A_BYTE:
                raise
        tries = 0 if have > former else tries + 1
        transfer.pause(min(tries, 1))
