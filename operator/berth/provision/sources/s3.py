"""`s3://bucket/prefix`, or a single key: objects of S3, or of what speaks like it (`AWS_ENDPOINT_URL`).

botocore finds credentials (environment, web identity, roles of containers and instances), lists, and signs one address
for each object, which the same downloader fetches as any other. An address that ran out is signed anew by the next run.
Whoever refuses or cannot be reached is told in the words of the other sources.
"""

import base64
import binascii
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import httpx2

from berth import __version__
from berth.provision.answers import Origin
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile, select
from berth.provision.manifest import Request
from berth.provision.retrying import retry_after
from berth.provision.sources import SourceSettings

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.exceptions import ClientError

_SECRET = "the Secret in source.secretRef (keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"  # noqa: S105
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]*$")
_VALID_FOR = 7 * 24 * 3600
"""Seconds; no signature may last longer."""
_MOST_KEYS = 10_000
_CODES = {
    "NoSuchBucket": Reason.NOT_FOUND,
    "SlowDown": Reason.TOO_MANY_REQUESTS,
    "ExpiredToken": Reason.TOKEN_REFUSED,
    "InvalidToken": Reason.TOKEN_REFUSED,
}
_STATUSES = {
    401: Reason.TOKEN_REFUSED,
    403: Reason.TOKEN_REFUSED,
    404: Reason.NOT_FOUND,
    429: Reason.TOO_MANY_REQUESTS,
}


class S3Source:
    """The objects below a prefix, or one of them."""

    def __init__(self, request: Request, settings: SourceSettings) -> None:
        self._bucket, _, path = request.uri.removeprefix("s3://").partition("/")
        if not _BUCKET.match(self._bucket):
            raise ProvisionError(Reason.INVALID_SOURCE, "the uri names no bucket: write s3://bucket/prefix")
        self._path, self._include, self._settings = path.strip("/"), request.include, settings
        self._clients: dict[str, BaseClient] = {}
        self.origin = Origin(request.uri, has_token=True, needs="keys that may read it", secret=_SECRET, signed=True)

    def list(self, client: httpx2.Client, revision: str | None) -> Listing:
        """Every object with its size, its ETag, and its SHA-256 where S3 keeps one of the whole object."""
        with self._failures():
            s3 = self._connect(None)
            found, region = self._objects(s3)
            if region and region != s3.meta.region_name:
                s3 = self._connect(region)  # a signature is good for one region only
            names = select(list(found), self._include)
            return Listing(tuple(self._file(s3, name, found[name]) for name in names))

    def _connect(self, region: str | None) -> "BaseClient":
        import botocore.session
        from botocore.config import Config

        for name in ("botocore", "urllib3"):  # they would log what they sign
            logging.getLogger(name).setLevel(logging.WARNING)
        timeout = self._settings.timeout
        region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        if region in self._clients:
            return self._clients[region]
        self._clients[region] = botocore.session.Session().create_client(
            "s3",
            region_name=region,
            endpoint_url=self._settings.endpoint,
            verify=_trusted(self._settings.ca_files),
            config=Config(
                connect_timeout=min(timeout, 15.0),
                read_timeout=timeout,
                retries={"total_max_attempts": 1},  # patience is ours
                signature_version="s3v4",
                user_agent_extra=f"berth/{__version__}",
            ),
        )
        return self._clients[region]

    def _objects(self, s3: "BaseClient") -> tuple[dict[str, Mapping[str, Any]], str | None]:
        """The objects by the name that they get on the volume, and the region that the bucket is in."""
        from botocore.exceptions import ClientError

        name, below = self._path.rpartition("/")[2], f"{self._path}/" if self._path else ""
        if self._path:
            try:  # of all keys that begin alike, the very one comes first
                first = s3.list_objects_v2(Bucket=self._bucket, Prefix=self._path, MaxKeys=1)
            except ClientError as error:
                if _status(error) != 403:
                    raise
                return {name: self._head(s3, self._path, error)}, None
            if [one["Key"] for one in _contents(first)] == [self._path]:
                return {name: first["Contents"][0]}, _region(first)
        found: dict[str, Mapping[str, Any]] = {}
        region = None
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below):
            region = _region(page)
            for one in _contents(page):
                if not one["Key"].endswith("/"):  # a folder that some tool drew
                    found[one["Key"].removeprefix(below)] = one
            if len(found) > _MOST_KEYS:
                raise ProvisionError(
                    Reason.INVALID_SOURCE,
                    f"{self.origin.name} has more than {_MOST_KEYS} objects: name a longer prefix",
                )
        if not found:
            raise ProvisionError(Reason.NOT_FOUND, f"{self.origin.name} has no objects: check bucket and prefix")
        return found, region

    def _head(self, s3: "BaseClient", key: str, refused: "ClientError") -> Mapping[str, Any]:
        """An object that may be read although its bucket may not be listed."""
        from botocore.exceptions import ClientError

        try:
            answer = s3.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError:
            raise refused from None
        return {**answer, "Key": key, "Size": answer["ContentLength"]}

    def _file(self, s3: "BaseClient", name: str, one: Mapping[str, Any]) -> RemoteFile:
        where = {"Bucket": self._bucket, "Key": one["Key"]}
        if "SHA256" in one.get("ChecksumAlgorithm", ["SHA256"]) and "ChecksumSHA256" not in one:
            one = {**one, **s3.head_object(**where, ChecksumMode="ENABLED")}
        etag = str(one.get("ETag", ""))
        return RemoteFile(
            path=name,
            url=s3.generate_presigned_url("get_object", Params=where, ExpiresIn=_VALID_FOR),
            size=int(one["Size"]),
            sha256=_sha256(one),
            validator=etag if etag.startswith('"') and len(etag) > 2 else None,
        )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what botocore raises into sentences."""
        from botocore import exceptions as botocore

        name = self.origin.name
        try:
            yield
        except (botocore.NoCredentialsError, botocore.PartialCredentialsError) as error:
            raise ProvisionError(
                Reason.TOKEN_MISSING,
                f"there are no keys for {name}: put them into {_SECRET}, or give the Pod's ServiceAccount a role",
            ) from error
        except botocore.ClientError as error:
            raise self._refused(error) from error
        except botocore.SSLError as error:
            raise ProvisionError(
                Reason.CERTIFICATE_REFUSED,
                f"the certificate of the server of {name} is not trusted: "
                "name the file with your CA in --ca-file or SSL_CERT_FILE",
            ) from error
        except botocore.ReadTimeoutError as error:
            raise ProvisionError(Reason.STALLED, f"the server of {name} sends nothing any more") from error
        except (botocore.ConnectionError, botocore.HTTPClientError) as error:
            raise ProvisionError(
                Reason.CONNECTION_FAILED, f"the server of {name} cannot be reached: {error}"
            ) from error
        except (botocore.CredentialRetrievalError, botocore.MetadataRetrievalError) as error:
            raise ProvisionError(Reason.TOKEN_REFUSED, f"no keys could be had for {name}: {error}") from error
        except botocore.ParamValidationError as error:
            raise ProvisionError(Reason.INVALID_SOURCE, f"{name} names no bucket or key: {error}") from error
        except (botocore.BotoCoreError, KeyError, ValueError, TypeError) as error:
            raise ProvisionError(
                Reason.UNEXPECTED_CONTENT,
                f"what came about {name} is no listing of S3: a proxy wants a login, or the endpoint is wrong",
            ) from error

    def _refused(self, error: "ClientError") -> ProvisionError:
        code, status = str(error.response.get("Error", {}).get("Code", "")), _status(error)
        said = f"{self.origin.name}: {code} ({status})"
        usual = Reason.SERVER_ERROR if status >= 500 else Reason.REQUEST_REFUSED
        reason = _CODES.get(code) or _STATUSES.get(status, usual)
        if reason is Reason.TOKEN_REFUSED:
            return ProvisionError(reason, f"{said}: what is in {_SECRET} is wrong, expired or may not list and read it")
        if reason is Reason.NOT_FOUND:
            return ProvisionError(reason, f"{self.origin.name} does not exist: check bucket, prefix and region")
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return ProvisionError(reason, said, retry_after=retry_after(headers))


def _status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _contents(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The objects of a page. Something else, such as a web page, has none either and must not be taken for one."""
    if "Name" not in answer:
        raise ValueError("no listing")
    found: Sequence[Mapping[str, Any]] = answer.get("Contents", ())
    return found


def _region(answer: Mapping[str, Any]) -> str | None:
    region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return str(region) if region else None


def _sha256(one: Mapping[str, Any]) -> str | None:
    """The digest of the whole object; that of an object in parts is one of digests, and no use."""
    found = str(one.get("ChecksumSHA256", ""))
    in_parts = "-" in found or "-" in str(one.get("ETag", ""))
    if in_parts or one.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    try:
        digest = base64.b64decode(found, validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == 32 else None


def _trusted(ca_files: tuple[Path, ...]) -> str:
    """A file with all certificate authorities, which is all that botocore takes. It is kept in memory only."""
    if not ca_files:
        return certifi.where()
    content = b"\n".join(file.read_bytes() for file in (Path(certifi.where()), *ca_files))
    descriptor = os.memfd_create("certificate-authorities")
    with os.fdopen(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
    return f"/proc/{os.getpid()}/fd/{descriptor}"
