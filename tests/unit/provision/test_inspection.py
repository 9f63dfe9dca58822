"""What a model says of itself is read before its weights, and decides whether they are fetched."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from downloading import Downloads
from tiny_models import CONFIG, gguf, safetensors, sharded, split_gguf

from berth.planning.figures_document import from_document
from berth.provision.__main__ import DONE, FINAL, PASSING
from support.gguf_models import Shape
from support.misbehaving_server import Fault, MisbehavingServer

COMMIT = "a" * 40
VLLM = ("--for", '{"model":"qwen","backend":"vllm","gpus":1}')
LLAMACPP = ("--for", '{"model":"tiny","backend":"llamacpp","gpus":0}')


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return gguf(tmp_path)


def manifest(downloads: Downloads) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((downloads.destination / "manifest.json").read_text())
    return document


def whole_requests(server: MisbehavingServer, path: str) -> int:
    """Requests that took a file, and not only its first bytes."""
    size = server.resources[path].size
    return sum(seen.sent >= size for seen in server.requests(path))


class TestFigures:
    def test_of_gguf_are_in_the_manifest_and_in_the_message(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": model, "README.md": b"#"}, lfs=["tiny.gguf"])
        run = downloads.run("hf://org/repo", *LLAMACPP)
        assert run.code == DONE, run.log
        figures = run.message["figures"]
        assert (run.message["file"], figures["format"], figures["architecture"]) == ("tiny.gguf", "gguf", "llama")
        assert (figures["layers"], figures["kvHeads"], figures["headSize"]) == (2, 2, 16)
        assert manifest(downloads)["figures"] == figures
        assert manifest(downloads)["file"] == "tiny.gguf"
        assert from_document(figures) is not None

    def test_of_a_split_model_are_those_of_all_parts(
        self, hub: MisbehavingServer, downloads: Downloads, tmp_path: Path
    ) -> None:
        parts = split_gguf(tmp_path / "parts")
        hub.put_repository("org/repo", parts)
        run = downloads.run("hf://org/repo", *LLAMACPP)
        assert run.code == DONE, run.log
        assert run.message["file"] == "big-00001-of-00003.gguf"
        assert run.message["figures"]["parameters"] == 5 * 8 * 64
        assert "unknowns" not in run.message["figures"]

    def test_of_safetensors_in_many_files(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", sharded(3))
        run = downloads.run("hf://org/repo", *VLLM)
        assert run.code == DONE, run.log
        figures = run.message["figures"]
        assert (figures["format"], figures["dtype"], figures["weightBytes"]) == ("safetensors", "BF16", 6000)
        assert (figures["architecture"], figures["contextLength"]) == ("LlamaForCausalLM", 2048)
        assert figures["attention"] == [{"layers": 4, "kvHeads": 2, "keySize": 8, "valueSize": 8}]
        assert run.message["file"] is None

    def test_of_a_single_file_by_https(self, server: MisbehavingServer, downloads: Downloads, model: bytes) -> None:
        server.put("/tiny.gguf", model)
        run = downloads.run(f"{server.url}/tiny.gguf", "--sha256", hashlib.sha256(model).hexdigest())
        assert run.code == DONE
        assert (run.message["file"], run.message["figures"]["format"]) == ("tiny.gguf", "gguf")

    def test_of_a_model_of_ollama(self, server: MisbehavingServer, downloads: Downloads, model: bytes) -> None:
        blobs = {"application/vnd.ollama.image.model": model, "application/vnd.ollama.image.template": b"{{ . }}"}
        layers = []
        for kind, content in blobs.items():
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            layers.append({"mediaType": kind, "digest": digest, "size": len(content)})
            server.put(f"/v2/library/tiny/blobs/{digest}", content)
        document = json.dumps({"config": layers[1], "layers": layers}).encode()
        server.put("/v2/library/tiny/manifests/latest", document)
        wish = '{"backend":"ollama","gpus":0}'
        run = downloads.run("ollama://tiny", "--endpoint", server.url, "--for", wish)
        assert run.code == DONE, run.log
        assert run.message["file"] == f"blobs/sha256-{hashlib.sha256(model).hexdigest()}"
        assert run.message["figures"]["layers"] == 2
        again = downloads.run("ollama://tiny", "--endpoint", server.url, "--for", wish)
        assert again.message["figures"] == run.message["figures"]

    def test_a_long_header_is_fetched_in_a_few_steps(
        self, hub: MisbehavingServer, downloads: Downloads, tmp_path: Path
    ) -> None:
        model = gguf(tmp_path, Shape(tokens=130_000, embedding=8, heads=1, kv_heads=1, head_size=8))
        hub.put_repository("org/repo", {"tiny.gguf": model}, lfs=["tiny.gguf"])
        run = downloads.run("hf://org/repo")
        assert run.code == DONE, run.log
        assert run.message["figures"]["layers"] == 2
        asked = [seen.range for seen in hub.requests(f"/org/repo/resolve/{COMMIT}/tiny.gguf")]
        assert asked[:2] == ["bytes=0-1048575", "bytes=1048576-4194303"]

    def test_a_server_without_ranges_is_left_when_the_header_is_there(
        self, server: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        large = model + bytes(30 << 20)
        server.put("/tiny.gguf", large, always=Fault(ignore_range=True))
        run = downloads.run(f"{server.url}/tiny.gguf", "--sha256", hashlib.sha256(large).hexdigest())
        assert run.code == DONE
        assert run.message["figures"]["layers"] == 2
        assert server.sent("/tiny.gguf") < 2 * len(large)

    def test_a_manifest_from_before_there_were_figures_still_counts(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": model})
        assert downloads.run("hf://org/repo").code == DONE
        older = {key: value for key, value in manifest(downloads).items() if key not in ("file", "figures")}
        (downloads.destination / "manifest.json").write_text(json.dumps(older))
        asked = len(hub.seen)
        run = downloads.run("hf://org/repo", *LLAMACPP)
        assert (run.code, run.message["figures"], run.message["file"]) == (DONE, None, "tiny.gguf")
        assert len(hub.seen) == asked


class TestUnreadable:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"GGUF",
            b"not a model at all" * 100,
            b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60),
            b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1 << 40),
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1000) + bytes(50),
        ],
        ids=["empty", "short", "text", "vast", "long name", "cut"],
    )
    def test_gguf_is_downloaded_all_the_same(
        self, hub: MisbehavingServer, downloads: Downloads, content: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": content})
        run = downloads.run("hf://org/repo", *LLAMACPP)
        assert (run.code, run.message["figures"], run.message["file"]) == (DONE, None, "tiny.gguf")

    @pytest.mark.parametrize(
        "changed",
        [
            {"config.json": b"{"},
            {"config.json": b"[" * 600_000},
            {"model-00002-of-00003.safetensors": b"x" * 100},
            {"model-00002-of-00003.safetensors": (1 << 40).to_bytes(8, "little") + b"{}"},
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd"}}'},
            {"model.safetensors.index.json": b"{}"},
        ],
        ids=["no config", "long config", "no header", "vast header", "path in index", "no index"],
    )
    def test_safetensors_are_downloaded_all_the_same(
        self, hub: MisbehavingServer, downloads: Downloads, changed: dict[str, bytes]
    ) -> None:
        hub.put_repository("org/repo", sharded(3) | changed)
        run = downloads.run("hf://org/repo", *VLLM)
        assert (run.code, run.message["figures"]) == (DONE, None), run.log

    def test_safetensors_without_config_keep_what_is_known(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"model.safetensors": safetensors()})
        run = downloads.run("hf://org/repo", *VLLM)
        assert run.message["figures"]["weightBytes"] == 2000
        assert {one["what"] for one in run.message["figures"]["unknowns"]} == {"cache", "context"}

    def test_numbers_that_no_status_can_hold_are_no_figures(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        config = CONFIG | {"num_hidden_layers": 1 << 70, "quantization_config": {"quant_method": "x" * 5000}}
        files = {"model.safetensors": safetensors(), "config.json": json.dumps(config).encode()}
        hub.put_repository("org/repo", files)
        run = downloads.run("hf://org/repo")
        assert run.code == DONE
        assert run.message["figures"] is None or from_document(run.message["figures"]) is not None


class TestNetwork:
    def test_a_header_is_asked_for_again(self, hub: MisbehavingServer, downloads: Downloads, model: bytes) -> None:
        faults = [Fault(status=503), Fault(cut_after=5000), Fault(status=429, headers={"Retry-After": "0"})]
        hub.put_repository("org/repo", {"tiny.gguf": model})
        hub.resources[f"/org/repo/resolve/{COMMIT}/tiny.gguf"].faults.extend(faults)
        run = downloads.run("hf://org/repo", *LLAMACPP)
        assert (run.code, run.message["figures"]["layers"]) == (DONE, 2)
        assert run.message["retries"] == {"ServerError": 1, "ConnectionCut": 1, "TooManyRequests": 1}
        assert hub.requests(f"/org/repo/resolve/{COMMIT}/tiny.gguf")[2].range.startswith("bytes=5000-")  # type: ignore[union-attr]

    def test_a_server_that_stays_away_is_no_fault_of_the_user(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": model}, always=Fault(status=503))
        run = downloads.run("hf://org/repo", *LLAMACPP, "--tries", "2")
        assert (run.code, run.message["reason"]) == (PASSING, "ServerError")

    def test_files_of_a_gated_repository_are_refused_as_ever(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        fault = Fault(status=403, headers={"X-Error-Code": "GatedRepo"})
        hub.put_repository("org/gated", sharded(2), always=fault)
        run = downloads.run("hf://org/gated", *VLLM)
        assert (run.code, run.message["reason"]) == (FINAL, "Gated")


class TestIncompatible:
    def test_a_gguf_file_is_not_fetched_for_vllm(
        self, server: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        server.put("/download", model + bytes(4 << 20))
        run = downloads.run(f"{server.url}/download", "--sha256", "0" * 64, *VLLM)
        assert (run.code, run.message["reason"], run.message["passing"]) == (FINAL, "Incompatible", False)
        assert "use backend llamacpp" in run.message["message"]
        assert run.message["figures"]["format"] == "gguf"
        assert whole_requests(server, "/download") == 0
        assert downloads.leftovers() == [".berth/resolution.json"]

    def test_a_quantization_that_needs_another_backend(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        config = json.dumps(CONFIG | {"quantization_config": {"quant_method": "eetq"}}).encode()
        hub.put_repository("org/repo", {"model.safetensors": safetensors(2_000_000), "config.json": config})
        run = downloads.run("hf://org/repo", *VLLM)
        assert (run.code, run.message["reason"]) == (FINAL, "Incompatible")
        assert "use backend tgi" in run.message["message"]
        assert whole_requests(hub, f"/org/repo/resolve/{COMMIT}/model.safetensors") == 0

    def test_what_can_be_done_about_it_in_serving_is_taken_into_account(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        config = json.dumps(CONFIG | {"quantization_config": {"quant_method": "eetq"}}).encode()
        hub.put_repository("org/repo", {"model.safetensors": safetensors(), "config.json": config})
        own = '{"backend":"vllm","gpus":1,"quantization":"eetq","ownImage":true}'
        assert downloads.run("hf://org/repo", "--for", own).code == DONE

    def test_one_of_several_who_can_load_it_is_enough(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": model})
        assert downloads.run("hf://org/repo", *VLLM, *LLAMACPP).code == DONE

    def test_several_gguf_models_are_named_and_none_is_fetched(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"a.Q4_K_M.gguf": model, "a.Q8_0.gguf": model, "mmproj-a.gguf": model})
        run = downloads.run("hf://org/repo", *LLAMACPP)
        assert (run.code, run.message["reason"]) == (FINAL, "Incompatible")
        assert "(a.Q4_K_M.gguf, a.Q8_0.gguf)" in run.message["message"]
        assert len(hub.seen) == 1
        assert downloads.run("hf://org/repo", *LLAMACPP, "--include", "*Q4_K_M.gguf").message["file"] == "a.Q4_K_M.gguf"

    def test_what_is_there_is_not_fetched_again_but_not_promised_to_the_wrong_one(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": model})
        assert downloads.run("hf://org/repo", *LLAMACPP).code == DONE
        asked = len(hub.seen)
        run = downloads.run("hf://org/repo", *VLLM)
        assert (run.code, run.message["reason"]) == (FINAL, "Incompatible")
        assert len(hub.seen) == asked
        assert (downloads.destination / "tiny.gguf").read_bytes() == model

    def test_weights_without_headers_are_not_refused(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"pytorch_model.bin": b"pickle", "config.json": json.dumps(CONFIG).encode()})
        run = downloads.run("hf://org/repo", *VLLM)
        assert (run.code, run.message["figures"]) == (DONE, None)


class TestLink:
    def test_leads_to_the_only_model_and_survives_more_runs(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"sub/tiny.gguf": model, "README.md": b"#"}, lfs=["sub/tiny.gguf"])
        link = downloads.destination / "model.gguf"
        for _ in range(2):
            run = downloads.run("hf://org/repo", *LLAMACPP, "--link", "model.gguf")
            assert run.code == DONE, run.log
            assert (link.readlink(), link.read_bytes()) == (Path("sub/tiny.gguf"), model)
            assert run.message["bytesPresent"] == len(model) + 1
        assert {file["path"] for file in manifest(downloads)["files"]} == {"sub/tiny.gguf", "README.md"}

    def test_is_replaced_when_it_leads_elsewhere(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"a.gguf": model, "b.gguf": model})
        link = downloads.destination / "model.gguf"
        for name in ("a.gguf", "b.gguf"):
            assert downloads.run("hf://org/repo", "--include", name, "--link", "model.gguf").code == DONE
            assert link.readlink() == Path(name)
        assert not (downloads.destination / "a.gguf").exists()

    def test_is_made_for_what_an_earlier_run_brought(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"tiny.gguf": model})
        assert downloads.run("hf://org/repo").code == DONE
        assert downloads.run("hf://org/repo", "--link", "model.gguf").code == DONE
        assert (downloads.destination / "model.gguf").read_bytes() == model

    def test_a_file_of_that_name_needs_none(self, hub: MisbehavingServer, downloads: Downloads, model: bytes) -> None:
        hub.put_repository("org/repo", {"model.gguf": model})
        assert downloads.run("hf://org/repo", "--link", "model.gguf").code == DONE
        assert not (downloads.destination / "model.gguf").is_symlink()

    def test_a_link_in_the_place_of_a_file_gives_way(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {"a.gguf": model})
        assert downloads.run("hf://org/repo", "--link", "b.gguf").code == DONE
        hub.put_repository("org/repo", {"b.gguf": model}, commit="b" * 40, revisions=["v2"])
        assert downloads.run("hf://org/repo@v2", "--link", "b.gguf").code == DONE
        assert not (downloads.destination / "b.gguf").is_symlink()
        assert not (downloads.destination / "a.gguf").exists()

    def test_a_split_model_is_refused_before_it_is_fetched(
        self, hub: MisbehavingServer, downloads: Downloads, model: bytes
    ) -> None:
        hub.put_repository("org/repo", {f"big-{number:05}-of-00002.gguf": model for number in (1, 2)})
        run = downloads.run("hf://org/repo", *LLAMACPP, "--link", "model.gguf")
        assert (run.code, run.message["reason"]) == (FINAL, "Incompatible")
        assert "ModelCache" in run.message["message"]
        assert not list(downloads.destination.glob("*.gguf*"))

    @pytest.mark.parametrize("name", ["", "a/b", "../a", "manifest.json", "x.partial"])
    def test_the_name_is_a_plain_one(self, downloads: Downloads, name: str) -> None:
        with pytest.raises(SystemExit):
            downloads.run("hf://org/repo", "--link", name)
