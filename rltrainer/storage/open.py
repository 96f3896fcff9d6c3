"""Which store a URI names."""

from pathlib import Path

from rltrainer.api.experiment import Storage
from rltrainer.storage.s3 import S3Store
from rltrainer.storage.store import FolderStore, Store


def open_store(uri: str, storage: Storage | None = None) -> Store:
    """Return the store at `uri`, an s3:// URI or a folder. `storage` says how S3 is reached."""
    if uri.startswith("s3://"):
        return S3Store(uri, storage.endpoint if storage else None, storage.region if storage else None)
    return FolderStore(Path(uri.removeprefix("file://")).expanduser())
