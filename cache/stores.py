"""Stores of objects below a URL: S3, Google's and Azure's by obstore, whatever else fsspec opens by fsspec.

obstore's requests run outside of Python, so that its other threads go on meanwhile. Nothing is asked for twice here:
`cache.objects` does that, for all stores alike.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol

from cache.errors import DptrError

CLOUDS = ("s3", "gs", "az")
SILENT = timedelta(seconds=60)  # no byte for so long is an error
LONGEST = timedelta(hours=1)  # of one request
_opener = 0  # the process that opened a bucket


class Store(Protocol):
    """Objects by their names relative to a URL. What goes wrong raises whatever the store's package raises."""

    def sizes(self) -> dict[str, int]:
        """The bytes of every object; empty if nothing is there."""
        ...

    def range(self, name: str, start: int, size: int) -> bytes:
        """Some bytes of an object, perhaps fewer. FileNotFoundError or PermissionError if asking again is vain."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make an object, or another of the same name."""
        ...

    def size(self, name: str) -> int:
        """The bytes of an object."""
        ...


class Cloud:
    """A bucket, or a folder in one, by obstore."""

    def __init__(self, url: str) -> None:
        """ImportError without obstore or boto3, OSError if the URL or the environment makes no sense.

        This and all else raises DptrError after a fork of a process that has opened a bucket.
        """
        from obstore.store import from_url

        patience = {"connect_timeout": SILENT, "read_timeout": SILENT, "timeout": LONGEST}
        options: dict[str, Any] = {
            "client_options": {"allow_http": True, **patience},
            "retry_config": {"max_retries": 0},
            **(_s3(url.split("/")[2]) if url.startswith("s3:") else {}),
        }
        with _plain_errors():
            self._store = from_url(url, **options)

    def sizes(self) -> dict[str, int]:
        """As `Store.sizes`."""
        with _plain_errors():
            return {about["path"]: about["size"] for some in self._store.list() for about in some}

    def range(self, name: str, start: int, size: int) -> bytes:
        """As `Store.range`."""
        with _plain_errors():
            return bytes(self._store.get_range(name, start=start, length=size))

    def write(self, name: str, data: bytes) -> None:
        """As `Store.write`, in one request."""
        with _plain_errors():
            self._store.put(name, data, use_multipart=False)

    def size(self, name: str) -> int:
        """As `Store.size`."""
        with _plain_errors():
            return int(self._store.head(name)["size"])


class Other:
    """Whatever fsspec opens."""

    def __init__(self, url: str) -> None:
        """ImportError or ValueError if no installed package knows such URLs."""
        from fsspec.core import url_to_fs

        self._files, self._root = url_to_fs(url, **({"auto_mkdir": True} if url.startswith("file:") else {}))

    def sizes(self) -> dict[str, int]:
        """As `Store.sizes`."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {path[len(self._root) :].lstrip("/"): int(about["size"]) for path, about in found.items()}

    def range(self, name: str, start: int, size: int) -> bytes:
        """As `Store.range`."""
        more = {} if self._files.async_impl else {"cache_type": "none"}  # or fsspec reads megabytes ahead
        return bytes(self._files.cat_file(f"{self._root}/{name}", start=start, end=start + size, **more))

    def write(self, name: str, data: bytes) -> None:
        """As `Store.write`."""
        self._files.pipe_file(f"{self._root}/{name}", data)

    def size(self, name: str) -> int:
        """As `Store.size`."""
        return int(self._files.size(f"{self._root}/{name}"))


def open_store(url: str) -> Store:
    """The store of a URL. ImportError, ValueError or OSError if no installed package opens it."""
    return Cloud(url) if url.split(":")[0] in CLOUDS else Other(url)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Around what obstore does: its errors become Python's, in a line. DptrError after a fork, where it would hang."""
    global _opener
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    _opener = _opener or os.getpid()
    if _opener != os.getpid():
        raise DptrError(
            "a bucket cannot be read in a process that was forked from one that has read a bucket: start such "
            "processes anew, as DataLoader(multiprocessing_context='spawn') does."
        )
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            kind = PermissionError
        raise kind(re.split(r"\n\nDebug source|: <", str(error))[0].rstrip(": ")) from error  # without its XML


def _s3(bucket: str) -> dict[str, Any]:
    """Credentials, region and endpoint as boto3 finds them, for obstore; without credentials, anonymous requests.

    DptrError for settings that make no sense.
    """
    from boto3 import Session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session, found = Session(), dict[str, Any]()
        if session.get_credentials():
            client, found["credential_provider"] = session.client("s3"), Boto3CredentialProvider(session)
        else:
            client, found["skip_signature"] = session.client("s3", config=Config(signature_version=UNSIGNED)), True
    except BotoCoreError as error:
        raise DptrError(f"s3://{bucket} cannot be opened ({error}): check AWS_PROFILE and ~/.aws.") from error
    if ".amazonaws." not in client.meta.endpoint_url:
        return {**found, "endpoint": client.meta.endpoint_url, "region": client.meta.region_name}
    with suppress(BotoCoreError, ClientError):  # a bucket need not be where the user's others are
        found["region"] = client.head_bucket(Bucket=bucket)["BucketRegion"]
    return found
