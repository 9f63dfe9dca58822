"""Sources: what each lists, where tokens go, mirrors, proxies and private certificate authorities."""

import datetime
import hashlib
import http.client
import ipaddress
import json
import os
import shutil
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from downloading import Downloads, wait_for

from berth.provision.__main__ import DONE, FINAL, PASSING, main
from berth.provision.endpoint import ProgressEndpoint
from berth.provision.errors import ProvisionError, Reason
from berth.provision.manifest import Request
from berth.provision.progress import Progress
from berth.provision.sources import SourceSettings
from berth.provision.sources.claim import check_claim
from berth.provision.sources.resolving import source_for
from support.misbehaving_server import Fault, MisbehavingServer

CONTENT = os.urandom(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TOKEN = "unlikely-Secret-0123456789"
COMMIT = "a" * 40


class TestHuggingFace:
    def test_takes_everything_and_writes_down_what_it_took(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        files = {"model.safetensors": CONTENT, "sub dir/tokenizer#1.json": b"{}", "empty": b""}
        hub.put_repository("org/repo", files, lfs=["model.safetensors"])
        hub.resources[f"/org/repo/resolve/{COMMIT}/sub%20dir/tokenizer%231.json"] = hub.resources.pop(
            f"/org/repo/resolve/{COMMIT}/sub dir/tokenizer#1.json"
        )
        run = downloads.run("hf://org/repo")
        assert run.code == DONE, run.log
        for path, content in files.items():
            assert (downloads.destination / path).read_bytes() == content
            assert (downloads.destination / path).stat().st_mode & 0o777 == 0o644
        manifest = json.loads((downloads.destination / "manifest.json").read_text())
        assert (manifest["revision"], manifest["licence"], manifest["verified"]) == (COMMIT, "apache-2.0", True)
        assert {file["path"]: file["sha256"] for file in manifest["files"]} == {
            path: hashlib.sha256(content).hexdigest() for path, content in files.items()
        }
        assert run.message == {
            "result": "Succeeded",
            "reason": None,
            "message": "",
            "passing": False,
            "uri": "hf://org/repo",
            "revision": COMMIT,
            "licence": "apache-2.0",
            "file": None,
            "figures": None,
            "bytesTotal": len(CONTENT) + 2,
            "bytesFetched": len(CONTENT) + 2,
            "bytesPresent": len(CONTENT) + 2,
            "bytesMissing": 0,
            "filesTotal": 3,
            "filesDone": 3,
            "verified": True,
            "attempt": 1,
            "retries": {},
            "volumeFree": run.message["volumeFree"],
            "volumeCapacity": run.message["volumeCapacity"],
            "seconds": run.message["seconds"],
        }

    def test_says_what_the_volume_has_left(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        message = downloads.run("hf://org/repo").message
        volume = shutil.disk_usage(downloads.destination)
        assert message["volumeCapacity"] == volume.total
        assert abs(message["volumeFree"] - volume.free) < 1 << 30

    def test_takes_only_what_is_asked_for(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.Q4.gguf": b"4", "a.Q8.gguf": b"8", "config.json": b"{}"})
        assert downloads.run("hf://org/repo", "--include", "*Q4.gguf", "*.json").code == DONE
        assert sorted(path.name for path in downloads.destination.glob("*.*")) == [
            ".berth",
            "a.Q4.gguf",
            "config.json",
            "manifest.json",
        ]

    def test_says_what_there_is_when_nothing_fits(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.Q8.gguf": b"8"})
        run = downloads.run("hf://org/repo", "--include", "*Q4.gguf")
        assert (run.code, run.message["reason"]) == (FINAL, "NoFileMatches")
        assert "a.Q8.gguf" in run.message["message"]

    def test_a_revision_with_a_slash_is_one_name(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a": b"1"}, revisions=["refs%2Fpr%2F1"])
        assert downloads.run("hf://org/repo@refs/pr/1").code == DONE

    def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
        self, hub: MisbehavingServer, downloads: Downloads, token_file: Callable[[str], str]
    ) -> None:
        with MisbehavingServer() as storage:
            storage.put("/blob", CONTENT)
            hub.put_repository("org/repo", {"a.bin": CONTENT}, lfs=["a.bin"])
            signed = f"{storage.url}/blob?X-Amz-Signature=abcdef0123456789"
            hub.resources[f"/org/repo/resolve/{COMMIT}/a.bin"].always = Fault(redirect=signed)
            run = downloads.run("hf://org/repo", "--token-file", token_file(TOKEN), "--log-level", "debug")
            assert run.code == DONE
            assert all(seen.headers["Authorization"] == f"Bearer {TOKEN}" for seen in hub.seen)
            assert storage.seen
            assert not any("Authorization" in seen.headers for seen in storage.seen)
        assert TOKEN not in run.log
        assert "abcdef0123456789" not in run.log
        for file in downloads.destination.rglob("*"):
            if file.is_file() and file.name != "a.bin":
                assert TOKEN not in file.read_text()

    def test_a_signed_url_is_used_for_many_parts_and_asked_for_anew_when_it_runs_out(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        large = os.urandom(1 << 20) * 100
        with MisbehavingServer() as storage:
            expired = Fault(status=403, body=b"expired")
            storage.put("/blob", large, faults=[Fault(), Fault(), expired])
            hub.put_repository("org/repo", {"a.bin": large}, lfs=["a.bin"])
            resolve = f"/org/repo/resolve/{COMMIT}/a.bin"
            hub.resources[resolve].always = Fault(redirect=f"{storage.url}/blob")
            assert downloads.run("hf://org/repo", "--connections", "1").code == DONE
            assert len(storage.seen) == 5
            assert len(hub.requests(resolve)) == 3
        assert (downloads.destination / "a.bin").read_bytes() == large

    def test_a_mirror_that_lists_names_only_is_asked_for_sizes(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT, "empty": b""})
        names = {"id": "org/repo", "sha": COMMIT, "siblings": [{"rfilename": "a.bin"}, {"rfilename": "empty"}]}
        hub.put("/api/models/org/repo/revision/main", json.dumps(names).encode())
        run = downloads.run("hf://org/repo", "--limit", str(len(CONTENT)))
        assert (run.code, run.message["bytesTotal"], run.message["verified"]) == (DONE, len(CONTENT), False)
        assert downloads.run("hf://org/repo", "--include", "*", "--limit", "10").message["reason"] == "LimitExceeded"

    @pytest.mark.parametrize(
        "listing",
        [
            [],
            {"sha": COMMIT, "siblings": []},
            {"id": "org/repo", "sha": "main", "siblings": []},
            {"id": "org/repo", "sha": COMMIT},
            {"id": "org/repo", "sha": COMMIT, "siblings": ["a"]},
            {"id": "org/repo", "sha": COMMIT, "siblings": [{"rfilename": 7}]},
            {"id": "org/repo", "sha": COMMIT, "siblings": [{"rfilename": "a", "size": "many"}]},
            {"id": "org/repo", "sha": COMMIT, "siblings": [{"rfilename": "a", "size": -1}]},
            {"id": "org/repo", "sha": COMMIT, "siblings": [{"rfilename": "a", "size": 1 << 70}]},
            {"id": "org/repo", "sha": COMMIT, "siblings": [{"rfilename": "a", "lfs": 7}]},
        ],
        ids=str,
    )
    def test_a_listing_that_makes_no_sense_is_no_fault_of_berth(
        self, hub: MisbehavingServer, downloads: Downloads, listing: object
    ) -> None:
        hub.put("/api/models/org/repo/revision/main", json.dumps(listing).encode())
        assert downloads.run("hf://org/repo", "--tries", "1").message["reason"] == "UnexpectedContent"

    def test_the_token_comes_from_the_environment_too(
        self, hub: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.put_repository("org/private", {"a.bin": CONTENT}, token=TOKEN)
        assert downloads.run("hf://org/private").code == DONE

    def test_the_token_comes_from_the_variable_that_is_named(
        self, hub: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "another")
        monkeypatch.setenv("MINE", f"{TOKEN}\n")
        hub.put_repository("org/private", {"a.bin": CONTENT}, token=TOKEN)
        assert downloads.run("hf://org/private").message["reason"] == "TokenRefused"
        assert downloads.run("hf://org/private", "--token-env", "EMPTY").message["reason"] == "TokenMissing"
        assert downloads.run("hf://org/private", "--token-env", "MINE").code == DONE

    @pytest.mark.parametrize("name", ["", "org", "org/../..", "org/repo/more", "../x"])
    def test_a_uri_without_a_repository_is_refused(self, name: str) -> None:
        with pytest.raises(ProvisionError) as refused:
            source_for(Request(f"hf://{name}"), SourceSettings())
        assert refused.value.reason is Reason.INVALID_SOURCE

    def test_a_name_that_the_hub_does_not_give_is_refused_without_asking(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        run = downloads.run("hf://org/-repo")
        assert (run.code, run.message["reason"]) == (FINAL, "InvalidSource")
        assert hub.seen == []

    def test_a_listing_that_does_not_end_is_not_kept_in_memory(
        self, hub: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("berth.provision.client._LONGEST_LISTING", 1000)
        hub.put_repository("org/repo", {f"{number}.bin": b"" for number in range(20)})
        assert downloads.run("hf://org/repo").message["reason"] == "RequestRefused"

    def test_nothing_is_read_from_or_written_to_a_home(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        home = downloads.folder / "home"
        (home / ".cache/huggingface").mkdir(parents=True)
        (home / ".cache/huggingface/token").write_text(TOKEN)
        before = sorted(home.rglob("*"))
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        process = downloads.start("hf://org/repo", env={"HOME": str(home)})
        process.communicate(timeout=30)
        assert process.returncode == DONE
        assert not any("Authorization" in seen.headers for seen in hub.seen)
        assert sorted(home.rglob("*")) == before

    def test_the_hub_is_told_who_asks(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        assert downloads.run("hf://org/repo").code == DONE
        assert all(seen.headers["User-Agent"].startswith("berth/") for seen in hub.seen)

    def test_too_many_requests_for_the_listing_are_waited_out(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        listing = hub.resources["/api/models/org/repo/revision/main"]
        listing.faults.append(Fault(status=429, headers={"Retry-After": "1"}))
        begun = time.monotonic()
        assert downloads.run("hf://org/repo").code == DONE
        assert time.monotonic() - begun >= 1


class TestOllama:
    def put(self, server: MisbehavingServer, name: str = "library/tiny", tag: str = "latest") -> dict[str, bytes]:
        blobs = {hashlib.sha256(blob).hexdigest(): blob for blob in (b'{"config": 1}', CONTENT, b"template")}
        layers = [{"mediaType": "x", "digest": f"sha256:{digest}", "size": len(blobs[digest])} for digest in blobs]
        manifest = json.dumps({"schemaVersion": 2, "config": layers[0], "layers": layers[1:]}).encode()
        server.put(f"/v2/{name}/manifests/{tag}", manifest, kind="application/json")
        for digest, blob in blobs.items():
            server.put(f"/v2/{name}/blobs/sha256:{digest}", blob)
        return {f"blobs/sha256-{digest}": blob for digest, blob in blobs.items()} | {
            f"manifests/registry.ollama.ai/{name}/{tag}": manifest
        }

    def test_becomes_a_store_of_ollama(self, server: MisbehavingServer, downloads: Downloads) -> None:
        expected = self.put(server)
        run = downloads.run("ollama://tiny", "--endpoint", server.url)
        assert run.code == DONE, run.log
        for path, content in expected.items():
            assert (downloads.destination / path).read_bytes() == content
        assert run.message["revision"].startswith("sha256:")
        assert run.message["filesTotal"] == 4
        assert downloads.leftovers() == []

    def test_the_manifest_comes_after_its_blobs(self, server: MisbehavingServer, downloads: Downloads) -> None:
        self.put(server, "someone/tiny", "q4")
        digest = next(path for path in server.resources if "/blobs/" in path)
        server.resources[digest].always = Fault(status=500)
        run = downloads.run("ollama://someone/tiny:q4", "--endpoint", server.url, "--tries", "2")
        assert run.code == PASSING
        assert not (downloads.destination / "manifests").exists()

    def test_the_token_of_other_sources_has_a_variable_of_its_own(
        self, server: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "of the hub")
        self.put(server)
        assert downloads.run("ollama://tiny", "--endpoint", server.url).code == DONE
        assert not any("Authorization" in seen.headers for seen in server.seen)
        monkeypatch.setenv("BERTH_SOURCE_TOKEN", TOKEN)
        server.put("/w.bin", CONTENT, token=TOKEN)
        assert downloads.run(f"{server.url}/w.bin", "--sha256", SHA256).code == DONE

    def test_a_blob_may_not_name_a_path(self, server: MisbehavingServer, downloads: Downloads) -> None:
        bad = {"digest": "sha256:../../outside", "size": 1}
        server.put("/v2/library/tiny/manifests/latest", json.dumps({"config": bad, "layers": []}).encode())
        run = downloads.run("ollama://tiny", "--endpoint", server.url, "--tries", "1")
        assert run.message["reason"] == "UnexpectedContent"

    @pytest.mark.parametrize(
        ("uri", "path", "url"),
        [
            ("tiny", "registry.ollama.ai/library/tiny/latest", "https://registry.ollama.ai/v2/library/tiny"),
            ("me/tiny:q4", "registry.ollama.ai/me/tiny/q4", "https://registry.ollama.ai/v2/me/tiny"),
            ("host:5000/me/tiny", "host:5000/me/tiny/latest", "https://host:5000/v2/me/tiny"),
        ],
    )
    def test_names_are_read_as_ollama_reads_them(self, uri: str, path: str, url: str) -> None:
        source = source_for(Request(f"ollama://{uri}"), SourceSettings())
        assert source._stored_as == f"manifests/{path}"  # type: ignore[attr-defined]
        assert source._base == url  # type: ignore[attr-defined]

    @pytest.mark.parametrize("uri", ["", "..", "../x", "a/b/c/d", "a:b/c:d e"])
    def test_other_names_are_refused(self, uri: str) -> None:
        with pytest.raises(ProvisionError):
            source_for(Request(f"ollama://{uri}"), SourceSettings())


class TestClaim:
    def test_what_is_there_is_counted_and_nothing_is_written(self, downloads: Downloads) -> None:
        (downloads.destination / "llama" / "sub").mkdir(parents=True)
        (downloads.destination / "llama" / "a.gguf").write_bytes(b"12345")
        (downloads.destination / "llama" / "sub" / "b.json").write_bytes(b"{}")
        run = downloads.run("pvc://claim/llama")
        assert (run.code, run.message["bytesTotal"], run.message["filesTotal"]) == (DONE, 7, 2)
        assert [path.name for path in downloads.destination.iterdir()] == ["llama"]
        assert downloads.run("pvc://claim/llama", "--include", "*.gguf").message["filesTotal"] == 1
        assert downloads.run("pvc://claim/llama/a.gguf#tiny").message["bytesTotal"] == 5
        assert downloads.run("pvc://claim/llama", "--limit", "6").message["reason"] == "LimitExceeded"

    @pytest.mark.parametrize(
        ("path", "reason"),
        [("nothing", "NotFound"), ("empty", "NotFound"), ("../..", "UnsafePath"), ("out", "UnsafePath")],
    )
    def test_what_is_not_there_is_said(self, tmp_path: Path, path: str, reason: str) -> None:
        (tmp_path / "claim" / "empty").mkdir(parents=True)
        (tmp_path / "claim" / "out").symlink_to(tmp_path)
        with pytest.raises(ProvisionError) as refused:
            check_claim(Request(f"pvc://claim/{path}"), tmp_path / "claim")
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    "request_",
    [
        Request("s3://bucket/x", sha256=SHA256),
        Request("ollama://tiny", include=("*",)),
        Request("oci://image"),
        Request("ftp://host/x"),
        Request("hf://org/repo", sha256=SHA256),
        Request("https://host/x", include=("*",)),
        Request("https://user:password@host/x"),
        Request("https://host/"),
    ],
)
def test_sources_that_cannot_be_are_refused(request_: Request) -> None:
    with pytest.raises(ProvisionError) as refused:
        source_for(request_, SourceSettings())
    assert refused.value.reason is Reason.INVALID_SOURCE
    assert "password@" not in refused.value.message


def _authority(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 by an authority that nobody knows, whose certificate is in ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


class TestNetwork:
    def test_a_private_authority_is_trusted_when_it_is_named(
        self, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with MisbehavingServer(_authority(downloads.folder)) as server:
            server.put("/w.bin", CONTENT, etag='"1"')
            run = downloads.run(f"{server.url}/w.bin")
            assert (run.code, run.message["reason"]) == (FINAL, "CertificateRefused")
            run = downloads.run(f"{server.url}/w.bin", "--ca-file", str(downloads.folder / "ca.pem"))
            assert (run.code, run.message["verified"]) == (DONE, False)
            monkeypatch.setenv("SSL_CERT_FILE", str(downloads.folder / "ca.pem"))
            server.put("/v.bin", CONTENT)
            assert downloads.run(f"{server.url}/v.bin").code == DONE

    @pytest.mark.parametrize(("etag", "asked"), [('"1"', "bytes=100000-199999"), ('"2"', None)])
    def test_without_a_digest_the_etag_tells_whether_to_go_on(
        self, downloads: Downloads, etag: str, asked: str | None
    ) -> None:
        """The rest of a newer file must not follow the start of an older one."""
        with MisbehavingServer(_authority(downloads.folder)) as server:
            arguments = (f"{server.url}/w.bin", "--ca-file", str(downloads.folder / "ca.pem"), "--tries", "1")
            server.put("/w.bin", CONTENT, etag='"1"', faults=[Fault(), Fault(cut_after=100_000)])
            assert downloads.run(*arguments).message["reason"] == "ConnectionCut"
            newer = CONTENT if etag == '"1"' else CONTENT[::-1]
            server.put("/w.bin", newer, etag=etag)
            assert downloads.run(*arguments).code == DONE
            assert server.seen[-1].range == asked
            assert (downloads.destination / "w.bin").read_bytes() == newer

    def test_a_file_that_changes_while_it_comes_is_not_glued_together(self, downloads: Downloads) -> None:
        with MisbehavingServer(_authority(downloads.folder)) as server:
            arguments = (f"{server.url}/w.bin", "--ca-file", str(downloads.folder / "ca.pem"), "--first-wait", "0.5")
            resource = server.put("/w.bin", CONTENT, etag='"1"', faults=[Fault(), Fault(cut_after=100_000)])
            resource.faults.append(Fault(status=503))
            process = downloads.start(*arguments)
            wait_for(lambda: len(server.seen) >= 3, "the cut and the 503")
            resource.etag = '"2"'
            process.communicate(timeout=30)
            run = downloads.result(process.returncode)
            assert (run.code, run.message["reason"]) == (FINAL, "SizeMismatch")
            assert "changed on the server" in run.message["message"]
            assert downloads.run(*arguments).code == DONE

    def test_an_encrypted_source_may_not_lead_to_an_open_one(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        with MisbehavingServer(_authority(downloads.folder)) as secure:
            server.put("/w.bin", CONTENT)
            secure.put("/w.bin", CONTENT, always=Fault(redirect=f"{server.url}/w.bin"))
            run = downloads.run(f"{secure.url}/w.bin", "--ca-file", str(downloads.folder / "ca.pem"))
            assert (run.code, run.message["reason"]) == (FINAL, "InsecureRedirect")

    def test_a_length_that_nobody_names_cannot_be_trusted(self, downloads: Downloads) -> None:
        with MisbehavingServer(_authority(downloads.folder)) as secure:
            secure.put("/w.bin", CONTENT, always=Fault(ignore_range=True, without_length=True))
            run = downloads.run(f"{secure.url}/w.bin", "--ca-file", str(downloads.folder / "ca.pem"))
            assert (run.code, run.message["reason"]) == (FINAL, "UnknownLength")

    def test_a_proxy_is_used_and_left_out(
        self, server: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.put("/w.bin", CONTENT)
        monkeypatch.setenv("HTTP_PROXY", server.url)
        assert downloads.run("http://nowhere.invalid/w.bin", "--sha256", SHA256).code == DONE
        assert {seen.target for seen in server.seen} == {"http://nowhere.invalid/w.bin"}
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert downloads.run(f"{server.url}/w.bin?x", "--sha256", SHA256).code == DONE

    def test_a_server_that_is_not_there_may_come_back(self, downloads: Downloads) -> None:
        run = downloads.run("http://127.0.0.1:9/w.bin", "--sha256", SHA256, "--tries", "2")
        assert (run.code, run.message["reason"], run.message["passing"]) == (PASSING, "ConnectionFailed", True)

    def test_a_signed_uri_is_written_down_nowhere(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", CONTENT)
        run = downloads.run(f"{server.url}/w.bin?sig={TOKEN}", "--sha256", SHA256, "--log-level", "debug")
        assert run.code == DONE
        assert TOKEN not in run.log + run.raw.decode()
        assert TOKEN not in (downloads.destination / "manifest.json").read_text()


class TestEndpoint:
    def _get(self, port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def test_shows_progress_and_metrics(self) -> None:
        progress = Progress("hf://org/repo", str)
        progress.plan(1000, 100, 3, 1)
        progress.arrived(150)
        progress.retried(ProvisionError(Reason.SERVER_ERROR, "500"))
        with ProgressEndpoint("127.0.0.1", 0, progress) as endpoint:
            status, text = self._get(endpoint.port, "/progress")
            document = json.loads(text)
            assert status == 200
            assert (document["bytesDone"], document["percent"], document["filesDone"]) == (250, 25, 1)
            assert document["lastError"] == "ServerError: 500"
            _, metrics = self._get(endpoint.port, "/metrics")
            assert "berth_provision_bytes_total 150.0" in metrics
            assert 'berth_provision_retries_total{reason="ServerError"} 1.0' in metrics
            assert self._get(endpoint.port, "/healthz") == (200, "ok\n")
            assert self._get(endpoint.port, "/else")[0] == 404

    def test_can_be_watched_while_files_come(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        large = os.urandom(1 << 20) * 8
        hub.put_repository("org/repo", {"a.bin": large}, lfs=["a.bin"], rate=8 << 20)
        port = _free_port()
        arguments = downloads.arguments("hf://org/repo", "--host", "127.0.0.1", "--port", str(port))
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(main(arguments)))
        thread.start()
        seen: list[dict[str, object]] = []

        def watched() -> bool:
            try:
                seen.append(json.loads(self._get(port, "/progress")[1]))
            except OSError:
                return False
            return 0 < int(str(seen[-1]["percent"] or 0)) < 100

        wait_for(watched, "some progress")
        thread.join(30)
        assert ended == [DONE]
        assert seen[-1]["bytesTotal"] == len(large)
        assert seen[-1]["revision"] == COMMIT


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_wrong_usage_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--uri", "hf://org/repo", "--destination", "/nowhere", "--sha256", "XYZ"])
    assert ended.value.code == 2
    assert "64 digits" in capsys.readouterr().err
