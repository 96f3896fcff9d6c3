"""A folder in an S3 bucket, or a compatible one, and what its servers answer, in words."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rltrainer.storage.paths import plain_uri
from rltrainer.storage.store import StorageError

DENIED = {
    *("AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "403"),
}
"""Codes of S3 for credentials that are wrong, or have no right to what was asked."""
MISPLACED = {
    *("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"),
    "InvalidRegion",
}
"""Codes of S3 for a bucket that is in another region."""
RIGHTS = "s3:ListBucket, s3:GetObject and s3:PutObject, and s3:DeleteObject for old checkpoints to be deleted"
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
"""Codes of S3 for an object that is there already, or that another request is just making."""


@dataclass(frozen=True)
class S3Address:
    """A place in a bucket."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> "S3Address":
        """Parse s3://bucket/prefix."""
        bucket, _, prefix = plain_uri(uri).removeprefix("s3://").partition("/")
        return cls(bucket, prefix)


class S3Store:
    """A folder in an S3 bucket. Credentials come from the environment, as boto3 finds them."""

    def __init__(self, uri: str, endpoint: str | None = None, region: str | None = None) -> None:
        self.uri, self.endpoint = plain_uri(uri), endpoint
        self.address = S3Address.parse(uri)
        self._region = region
        self._client: Any = None

    @property
    def where(self) -> str:
        """The bucket and the server that is really asked, for people: the environment may name it."""
        url = self.endpoint or (self._client.meta.endpoint_url if self._client else None)
        is_aws = url is None or url.endswith(".amazonaws.com")
        return f"bucket {self.address.bucket} at {'AWS S3' if is_aws else url}"

    @property
    def client(self) -> Any:
        """boto3's client, made when it is first needed; safe for several threads."""
        if self._client is None:
            self._client = s3_client(self.endpoint, self._region)
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        """Leave the client out: another process makes its own."""
        return {**self.__dict__, "_client": None}

    def _key(self, key: str) -> str:
        return f"{self.address.prefix}/{key}" if self.address.prefix else key

    def check(self) -> None:
        """List one key: a HEAD has no body, so it could not say why it was refused."""
        with self._errors():
            self.client.list_objects_v2(Bucket=self.address.bucket, Prefix=self._key(""), MaxKeys=1)

    def upload(self, path: Path, key: str) -> None:
        """Put the file in one request, or in parts where it is large."""
        with self._errors():
            config = TransferConfig(use_threads=False)
            self.client.upload_file(str(path), self.address.bucket, self._key(key), Config=config)

    def download(self, key: str, path: Path) -> bool:
        """Stream the object to `path`, if it is there."""
        with self._errors():
            body = self._get(key)
            if body is None:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)
        return True

    def read(self, key: str) -> bytes | None:
        """Return the object's content, or None."""
        with self._errors():
            body = self._get(key)
            return None if body is None else bytes(body.read())

    def _get(self, key: str) -> Any:
        try:
            return self.client.get_object(Bucket=self.address.bucket, Key=self._key(key))["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise

    def create(self, key: str, content: bytes) -> bool:
        """Put the object on the condition that there is none. Where the server knows no conditions, look first."""
        place = {"Bucket": self.address.bucket, "Key": self._key(key), "Body": content}
        with self._errors():
            try:
                self.client.put_object(**place, IfNoneMatch="*")
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in TAKEN:
                    return False
                if code != "NotImplemented":
                    raise
            else:
                return True
        if self.read(key) is not None:
            return False
        with self._errors():
            self.client.put_object(**place)
        return True

    def keys(self, prefix: str) -> list[str]:
        """List the objects, page by page."""
        keys: list[str] = []
        skip = len(self._key(""))
        with self._errors():
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.address.bucket, Prefix=self._key(prefix)):
                keys += [item["Key"][skip:] for item in page.get("Contents", ())]
        return sorted(keys)

    def delete(self, keys: list[str]) -> None:
        """Remove objects one by one: the order matters, and some servers refuse batches without an MD5 sum."""
        with self._errors():
            for key in keys:
                self.client.delete_object(Bucket=self.address.bucket, Key=self._key(key))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error, OSError, ValueError) as error:
            raise storage_error(error, self.where) from error


def s3_client(endpoint: str | None, region: str | None) -> Any:
    """Make a client that gives up on a silent server within seconds, and needs nothing special of a compatible one."""
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "max_attempts": 3},
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # signing needs a region, even where the server has none
    session = boto3.session.Session()
    region = region or session.region_name or ("us-east-1" if endpoint else None)
    return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)


def storage_error(error: Exception, where: str) -> StorageError:
    """Make what botocore or boto3 raised a StorageError about `where`, by what it was caused by."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ClientError | BotoCoreError):
        cause = cause.__context__
    if isinstance(cause, NO_CREDENTIALS):
        return StorageError(
            "AccessDenied", f"{where}: no credentials ({cause}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(cause, boto.NoRegionError):
        return StorageError("InvalidStorage", f"{where}: no region. Set storage.region, or AWS_REGION")
    if isinstance(cause, ClientError):
        return _answer(cause, where)
    if isinstance(cause, boto.SSLError):
        return _tls_error(cause, where)
    if isinstance(cause, boto.HTTPClientError | boto.ConnectionError):
        return StorageError("StorageUnreachable", f"{where} cannot be reached ({type(cause).__name__})")
    if isinstance(cause or error, ValueError | INVALID):
        return StorageError("InvalidStorage", f"{where}: {cause or error}")
    return StorageError("StorageFailed", f"{where}: {type(cause or error).__name__}: {cause or error}")


INVALID = boto.ParamValidationError | boto.ProfileNotFound | boto.EndpointProviderError
NO_CREDENTIALS = (
    *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
    *(boto.TokenRetrievalError, boto.UnauthorizedSSOTokenError, boto.SSOTokenLoadError),
)


def _answer(cause: ClientError, where: str) -> StorageError:
    """Make a server's refusal a StorageError, by its code."""
    code = str(cause.response.get("Error", {}).get("Code", ""))
    if code in ("NoSuchBucket", "404"):
        return StorageError("BucketNotFound", f"{where} does not exist: create it, or correct storage.uri")
    if code in DENIED:
        return StorageError(
            "AccessDenied",
            f"{where}: access denied ({code} to {cause.operation_name}). Check the credentials and their rights: "
            f"they need {RIGHTS}",
        )
    if code in MISPLACED:
        return StorageError("InvalidStorage", f"{where} is in another region ({code}): set storage.region")
    if code == "RequestTimeTooSkewed":
        return StorageError("InvalidStorage", f"{where}: the clock of this machine is wrong ({code})")
    return StorageError("StorageFailed", f"{where}: {code or type(cause).__name__}")


def _tls_error(cause: boto.SSLError, where: str) -> StorageError:
    """Make a failed TLS handshake a StorageError that says which setting mends it."""
    if "CERTIFICATE_VERIFY_FAILED" in str(cause):
        message = "its certificate is of a CA that is not known here. Set AWS_CA_BUNDLE to a file with that CA"
        return StorageError("InvalidStorage", f"{where}: {message}")
    if "WRONG_VERSION_NUMBER" in str(cause) or "RECORD_LAYER_FAILURE" in str(cause):
        return StorageError("InvalidStorage", f"{where} does not speak TLS: give the endpoint as http://")
    return StorageError("StorageUnreachable", f"{where} cannot be reached over TLS ({cause})")
