"""Making a bucket with nothing but the standard library: AWS Signature Version 4 of one PUT request.

Source: AWS General Reference, "Create a signed AWS API request".
"""

import hashlib
import hmac
import urllib.error
import urllib.request
from datetime import UTC, datetime

from hack.cluster.console import Failure
from hack.cluster.local_http import send

_REGION = "us-east-1"
_EMPTY = hashlib.sha256(b"").hexdigest()


def make_bucket(endpoint: str, bucket: str, access_key: str, secret_key: str) -> None:
    """Make the bucket unless it is there. `endpoint` is host:port of a server that speaks plain HTTP."""
    headers = signed_headers("PUT", endpoint, f"/{bucket}", access_key, secret_key, datetime.now(UTC))
    request = urllib.request.Request(f"http://{endpoint}/{bucket}", method="PUT", headers=headers)
    try:
        send(request).close()
    except urllib.error.HTTPError as error:
        answer = error.read().decode(errors="replace")
        if "BucketAlreadyOwnedByYou" not in answer:
            raise Failure(f"the S3 server did not make the bucket {bucket}: {error.code} {answer}") from error


def signed_headers(
    method: str, host: str, path: str, access_key: str, secret_key: str, now: datetime
) -> dict[str, str]:
    """The headers that authorize a request without query and body."""
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    names = ";".join(headers)
    listed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join([method, path, "", listed, names, _EMPTY])
    scope = f"{moment[:8]}/{_REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
