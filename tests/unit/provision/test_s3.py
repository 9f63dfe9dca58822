"""`s3://` against a server that speaks S3, and against one that misbehaves."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.session
import pytest
from downloading import Downloads, wait_for
from test_sources import _authority, _free_port
from tiny_models import gguf

from berth.provision.__main__ import DONE, FINAL, PASSING
from support.misbehaving_server import Fault, MisbehavingServer

CONTENT = os.urandom(200_000)
SECRET = "unlikely/Secret+0123456789"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A server of S3 in a process of its own."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        from urllib.request import urlopen

        try:
            with urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5):
                return True
        except OSError:
            return False

    wait_for(answers, "moto")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def storage(moto: str) -> Any:
    """The way in for those who put something there."""
    return botocore.session.Session().create_client(
        "s3", "us-east-1", endpoint_url=moto, aws_access_key_id="another", aws_secret_access_key="another"
    )


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, downloads: Downloads) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nothing leaves the machine
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unlikely-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def s3(moto: str, storage: Any, keys: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A bucket of the test's own, whose name is `s3.bucket`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    storage.bucket = f"test-{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"
    storage.create_bucket(Bucket=storage.bucket)
    return storage


def put(s3: Any, key: str, content: bytes = CONTENT, algorithm: str = "SHA256") -> None:
    s3.put_object(Bucket=s3.bucket, Key=key, Body=content, ChecksumAlgorithm=algorithm)


def names(downloads: Downloads) -> list[str]:
    every = (path.relative_to(downloads.destination) for path in downloads.destination.rglob("*") if path.is_file())
    return sorted(str(path) for path in every if path.parts[0] not in (".berth", "manifest.json"))


@pytest.mark.slow
class TestObjects:
    def test_below_a_prefix_are_all_taken(self, s3: Any, downloads: Downloads) -> None:
        put(s3, "models/qwen/model.safetensors")
        put(s3, "models/qwen/sub dir/tokenizer+#1.json", b"{}")
        put(s3, "models/qwen/", b"")
        put(s3, "models/qwen2/other", b"x")
        run = downloads.run(f"s3://{s3.bucket}/models/qwen")
        assert run.code == DONE, run.log
        assert names(downloads) == ["model.safetensors", "sub dir/tokenizer+#1.json"]
        assert (downloads.destination / "model.safetensors").read_bytes() == CONTENT
        assert (run.message["verified"], run.message["bytesTotal"]) == (True, len(CONTENT) + 2)

    @pytest.mark.parametrize("prefix", ["", "/"])
    def test_of_a_whole_bucket(self, s3: Any, downloads: Downloads, prefix: str) -> None:
        put(s3, "a.bin")
        assert downloads.run(f"s3://{s3.bucket}{prefix}").code == DONE
        assert names(downloads) == ["a.bin"]

    def test_a_single_key_is_a_single_file(self, s3: Any, downloads: Downloads, tmp_path: Path) -> None:
        model = gguf(tmp_path)
        put(s3, "models/tiny.gguf", model)
        put(s3, "models/tiny.gguf.sha256", b"x")
        run = downloads.run(f"s3://{s3.bucket}/models/tiny.gguf", "--for", '{"backend":"llamacpp","gpus":0}')
        assert run.code == DONE, run.log
        assert names(downloads) == ["tiny.gguf"]
        assert (run.message["file"], run.message["figures"]["layers"]) == ("tiny.gguf", 2)

    def test_are_chosen_by_globs(self, s3: Any, downloads: Downloads) -> None:
        for name in ("a.Q4.gguf", "a.Q8.gguf", "config.json"):
            put(s3, f"m/{name}", b"x")
        assert downloads.run(f"s3://{s3.bucket}/m/", "--include", "*Q4.gguf", "*.json").code == DONE
        assert names(downloads) == ["a.Q4.gguf", "config.json"]
        assert downloads.run(f"s3://{s3.bucket}/m", "--include", "*.bin").message["reason"] == "NoFileMatches"

    def test_of_many_pages_are_all_there(self, s3: Any, downloads: Downloads) -> None:
        for number in range(1010):
            put(s3, f"m/{number:04}", b"", "CRC32")
        run = downloads.run(f"s3://{s3.bucket}/m")
        assert (run.code, run.message["filesTotal"]) == (DONE, 1010)

    def test_without_a_sha256_are_not_verified_but_resumed(self, s3: Any, downloads: Downloads) -> None:
        put(s3, "a.bin", CONTENT, "CRC32")
        run = downloads.run(f"s3://{s3.bucket}/a.bin")
        assert (run.code, run.message["verified"]) == (DONE, False)
        assert json.loads((downloads.destination / "manifest.json").read_text())["verified"] is False

    def test_uploaded_in_parts_have_no_digest_of_the_whole(self, s3: Any, downloads: Downloads) -> None:
        whole = {"Bucket": s3.bucket, "Key": "big.bin"}
        upload = s3.create_multipart_upload(**whole, ChecksumAlgorithm="SHA256")["UploadId"]
        parts = []
        for number, body in enumerate((os.urandom(5 << 20), b"end"), 1):
            one = {"UploadId": upload, "PartNumber": number, "Body": body, "ChecksumAlgorithm": "SHA256"}
            answer = s3.upload_part(**whole, **one)
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": digest})
        s3.complete_multipart_upload(**whole, UploadId=upload, MultipartUpload={"Parts": parts})
        run = downloads.run(f"s3://{s3.bucket}/big.bin")
        assert (run.code, run.message["verified"], run.message["bytesTotal"]) == (DONE, False, (5 << 20) + 3)

    def test_are_fetched_once_however_often_it_runs(self, s3: Any, downloads: Downloads) -> None:
        put(s3, "a.bin")
        assert downloads.run(f"s3://{s3.bucket}/a.bin").message["bytesFetched"] == len(CONTENT)
        assert downloads.run(f"s3://{s3.bucket}/a.bin").message["bytesFetched"] == 0

    def test_that_would_leave_the_folder_are_refused(self, s3: Any, downloads: Downloads) -> None:
        put(s3, "m/../../outside", b"x")
        run = downloads.run(f"s3://{s3.bucket}/m")
        assert (run.code, run.message["reason"]) == (FINAL, "UnsafePath")


@pytest.mark.slow
class TestRefusals:
    def test_a_bucket_that_does_not_exist(self, s3: Any, downloads: Downloads) -> None:
        run = downloads.run("s3://no-such-bucket/x")
        assert (run.code, run.message["reason"]) == (FINAL, "NotFound")
        assert "check bucket" in run.message["message"]

    def test_a_prefix_without_objects(self, s3: Any, downloads: Downloads) -> None:
        run = downloads.run(f"s3://{s3.bucket}/nothing")
        assert (run.code, run.message["reason"]) == (FINAL, "NotFound")

    def test_no_keys(self, s3: Any, downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        run = downloads.run(f"s3://{s3.bucket}/x")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenMissing")
        assert "keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in run.message["message"]


LISTING = """<?xml version="1.0"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><IsTruncated>false</IsTruncated>
<Contents><Key>a.bin</Key><Size>{size}</Size><ETag>&quot;1&quot;</ETag><ChecksumAlgorithm>CRC32</ChecksumAlgorithm>
</Contents></ListBucketResult>"""


def problem(status: int, code: str, message: str = "", **headers: str) -> Fault:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Fault(status=status, body=body, headers={"Content-Type": "application/xml", **headers})


class TestBadDays:
    @pytest.fixture
    def bucket(self, server: MisbehavingServer, keys: None, monkeypatch: pytest.MonkeyPatch) -> MisbehavingServer:
        """One object, of which nobody knows the digest."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        server.put("/bucket", LISTING.format(size=len(CONTENT)).encode(), kind="application/xml")
        server.put("/bucket/a.bin", CONTENT, etag='"1"')
        return server

    def test_an_object_comes_by_a_signed_address_that_is_shown_nowhere(
        self, bucket: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_REGION", "eu-west-3")
        run = downloads.run("s3://bucket", "--log-level", "debug")
        assert run.code == DONE, run.log
        signed = parse_qs(urlsplit(bucket.requests("/bucket/a.bin")[0].target).query)
        assert signed["X-Amz-Expires"] == ["604800"]
        assert "/eu-west-3/s3/" in signed["X-Amz-Credential"][0]
        said = run.log + run.raw.decode() + (downloads.destination / "manifest.json").read_text()
        assert SECRET not in said
        assert signed["X-Amz-Signature"][0] not in said

    def test_an_address_is_signed_for_the_region_of_the_bucket(
        self, bucket: MisbehavingServer, downloads: Downloads
    ) -> None:
        bucket.resources["/bucket"].always = Fault(headers={"x-amz-bucket-region": "ap-south-1"})
        assert downloads.run("s3://bucket").code == DONE
        assert "ap-south-1" in bucket.requests("/bucket/a.bin")[0].target

    def test_denied_is_final_and_names_the_keys(self, bucket: MisbehavingServer, downloads: Downloads) -> None:
        bucket.resources["/bucket"].always = problem(403, "AccessDenied")
        run = downloads.run("s3://bucket/x")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenRefused")
        assert "AWS_SECRET_ACCESS_KEY" in run.message["message"]
        assert SECRET not in run.log

    def test_an_object_may_be_read_although_its_bucket_may_not_be_listed(
        self, bucket: MisbehavingServer, downloads: Downloads
    ) -> None:
        bucket.resources["/bucket"].always = problem(403, "AccessDenied")
        run = downloads.run("s3://bucket/a.bin")
        assert run.code == DONE, run.log
        assert names(downloads) == ["a.bin"]

    def test_slow_down_is_obeyed(self, bucket: MisbehavingServer, downloads: Downloads) -> None:
        bucket.resources["/bucket"].faults.extend(
            [problem(503, "SlowDown", **{"Retry-After": "0"}), problem(500, "InternalError")]
        )
        run = downloads.run("s3://bucket")
        assert (run.code, run.message["retries"]) == (DONE, {"TooManyRequests": 1, "ServerError": 1})

    def test_a_server_that_stays_broken_is_no_fault_of_the_user(
        self, bucket: MisbehavingServer, downloads: Downloads
    ) -> None:
        bucket.resources["/bucket"].always = problem(500, "InternalError")
        run = downloads.run("s3://bucket", "--tries", "3")
        assert (run.code, run.message["reason"]) == (PASSING, "ServerError")
        assert len(bucket.requests("/bucket")) == 3

    def test_a_server_that_is_not_there_may_come_back(
        self, keys: None, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        run = downloads.run("s3://bucket", "--tries", "2")
        assert (run.code, run.message["reason"]) == (PASSING, "ConnectionFailed")

    @pytest.mark.parametrize("body", [b"<html>log in</html>", b"{}", b""])
    def test_what_is_no_listing_is_not_taken_for_one(
        self, bucket: MisbehavingServer, downloads: Downloads, body: bytes
    ) -> None:
        bucket.put("/bucket", body, kind="text/html")
        run = downloads.run("s3://bucket/x", "--tries", "1")
        assert run.message["passing"] is True

    @pytest.mark.parametrize(
        "refusal", [problem(403, "AccessDenied", "Request has expired"), problem(400, "ExpiredToken", "has expired")]
    )
    def test_an_address_that_ran_out_is_signed_anew_by_the_next_run(
        self, bucket: MisbehavingServer, downloads: Downloads, refusal: Fault
    ) -> None:
        bucket.resources["/bucket/a.bin"].faults.extend([Fault(cut_after=50_000), refusal])
        run = downloads.run("s3://bucket")
        assert (run.code, run.message["reason"], run.message["passing"]) == (PASSING, "SignatureExpired", True)
        assert (run.message["bytesPresent"], run.message["bytesMissing"]) == (50_000, len(CONTENT) - 50_000)
        assert downloads.run("s3://bucket").code == DONE
        assert bucket.requests("/bucket/a.bin")[-1].range == f"bytes=50000-{len(CONTENT) - 1}"

    def test_an_object_that_may_be_listed_but_not_read(self, bucket: MisbehavingServer, downloads: Downloads) -> None:
        bucket.resources["/bucket/a.bin"].always = problem(403, "AccessDenied")
        run = downloads.run("s3://bucket")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenRefused")
        assert "AWS_ACCESS_KEY_ID" in run.message["message"]

    def test_a_private_authority_is_trusted_when_it_is_named(
        self, keys: None, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with MisbehavingServer(_authority(downloads.folder)) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            server.put("/bucket", LISTING.format(size=len(CONTENT)).encode(), kind="application/xml")
            server.put("/bucket/a.bin", CONTENT, etag='"1"')
            assert downloads.run("s3://bucket").message["reason"] == "CertificateRefused"
            run = downloads.run("s3://bucket", "--ca-file", str(downloads.folder / "ca.pem"))
            assert run.code == DONE, run.log

    def test_a_proxy_is_used(
        self, bucket: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", bucket.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
        assert downloads.run("s3://bucket").code == DONE
        assert all(seen.target.startswith("http://nowhere.invalid/bucket") for seen in bucket.seen)


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://Bucket/x", "s3://-x/y"])
def test_a_uri_without_a_bucket_is_refused(downloads: Downloads, uri: str) -> None:
    assert downloads.run(uri).message["reason"] == "InvalidSource"
