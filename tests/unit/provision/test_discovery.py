"""What is found on a volume, and what is not taken for a model."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from stocked_volume import (
    COMMIT,
    CONFIG,
    OLDER,
    Volume,
    gguf_content,
    projector,
    safetensors,
    sharded,
    split_gguf,
)

from berth.planning.discovered import Kind
from berth.planning.model_figures import WeightsFormat
from berth.provision.__main__ import DONE, FINAL, PASSING, TERMINATED
from berth.provision.discovery.scanning import scan
from berth.provision.discovery.tree import Tree

HF = "hf://Qwen/Qwen2.5"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    handlers, level = logging.root.handlers[:], logging.root.level
    terminated = signal.getsignal(signal.SIGTERM)
    (tmp_path / "volume").mkdir()
    yield Volume(tmp_path / "volume")
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    signal.signal(signal.SIGTERM, terminated)


class TestCachesOfHuggingFace:
    @pytest.mark.parametrize("shared", [False, True], ids=["blobs of the repository", "blobs that repositories share"])
    def test_a_whole_snapshot_is_found_with_its_figures(self, volume: Volume, shared: bool) -> None:
        files = sharded()
        volume.cache("Qwen/Qwen2.5", files, refs=("main", "v1.0", "refs/pr/1"), shared=shared)
        (found,) = volume.found()
        assert (found.kind, found.uri) == (Kind.HUGGING_FACE, f"{HF}@{COMMIT}")
        assert found.path == f"hub/models--Qwen--Qwen2.5/snapshots/{COMMIT}"
        assert (found.bytes, found.files) == (sum(map(len, files.values())), 4)
        assert (found.revision, found.refs) == (COMMIT, ("main", "refs/pr/1", "v1.0"))
        assert (found.format, found.architecture) == (WeightsFormat.SAFETENSORS, "Qwen2ForCausalLM")
        assert (found.parameters, found.context_length) == (128, 4096)

    def test_refs_tell_which_of_several_commits_is_current(self, volume: Volume) -> None:
        volume.cache("Qwen/Qwen2.5", sharded(1), OLDER)
        volume.cache("Qwen/Qwen2.5", sharded(2), COMMIT)
        assert {(one.revision, one.refs) for one in volume.found()} == {(COMMIT, ("main",)), (OLDER, ())}

    def test_each_gguf_model_of_a_snapshot_is_a_finding_and_projectors_are_none(self, volume: Volume) -> None:
        parts = {f"Q8/{name}": content for name, content in split_gguf().items()}
        files = {"x-Q4_0.gguf": gguf_content(), "mmproj-f16.gguf": projector(), "vision.gguf": projector(), **parts}
        volume.cache("Qwen/Qwen2.5", {"README.md": b"# x", **files})
        split, single = volume.found()
        assert (split.file, split.files) == ("Q8/m-00001-of-00003.gguf", 3)
        assert split.bytes == sum(map(len, parts.values()))
        assert (split.parameters, split.context_length) == (24, 1024)
        assert (single.file, single.uri, single.quantization) == ("x-Q4_0.gguf", f"{HF}@{COMMIT}", "F32")
        assert single.path == split.path
        assert volume.skipped() == 0

    def test_safetensors_and_gguf_of_one_snapshot_are_two_models(self, volume: Volume) -> None:
        volume.cache("Qwen/Qwen2.5", {**sharded(), "x.gguf": gguf_content()})
        assert [one.format for one in volume.found()] == ["safetensors", "gguf"]

    def test_a_repository_without_an_organisation_or_with_another_name_has_no_uri(self, volume: Volume) -> None:
        volume.cache("gpt2", sharded())
        (volume.root / "hub/models--gpt2").rename(volume.root / "hub/mine")
        volume.cache("gpt2", sharded())
        assert [one.uri for one in volume.found()] == [None, None]

    def test_a_snapshot_that_was_fetched_by_commit_has_no_refs(self, volume: Volume) -> None:
        volume.cache("Qwen/Qwen2.5", sharded(), refs=())
        assert [one.refs for one in volume.found()] == [()]

    def test_a_cache_may_be_the_volume_itself_or_lie_deep_in_a_home(self, volume: Volume) -> None:
        volume.cache("a/b", sharded(), hub=".")
        volume.cache("a/c", sharded(), hub="home/me/.cache/huggingface/hub")
        assert [one.uri for one in volume.found()] == [f"hf://a/c@{COMMIT}", f"hf://a/b@{COMMIT}"]

    def test_a_missing_shard_is_no_model(self, volume: Volume) -> None:
        snapshot = volume.cache("Qwen/Qwen2.5", sharded())
        (snapshot / "model-00002-of-00002.safetensors").unlink()
        assert (volume.found(), volume.skipped()) == ([], 1)

    def test_shards_without_an_index_need_every_number(self, volume: Volume) -> None:
        files = sharded(3)
        del files["model.safetensors.index.json"]
        snapshot = volume.cache("Qwen/Qwen2.5", files)
        assert len(volume.found()) == 1
        (snapshot / "model-00002-of-00003.safetensors").unlink()
        assert (volume.found(), volume.skipped()) == ([], 1)

    def test_a_dangling_link_spoils_its_snapshot_only(self, volume: Volume) -> None:
        volume.cache("Qwen/Qwen2.5", sharded(), OLDER)
        snapshot = volume.cache("Qwen/Qwen2.5", {"tokenizer.json": b"{}", **sharded(1)})
        (snapshot / "tokenizer.json").resolve().unlink()
        assert [one.revision for one in volume.found()] == [OLDER]
        assert volume.skipped() == 1

    @pytest.mark.parametrize("way", ["absolute", "relative", "out and in again", "circle", "folder", "device"])
    def test_links_that_leave_the_volume_are_refused(self, volume: Volume, tmp_path: Path, way: str) -> None:
        snapshot = volume.cache("Qwen/Qwen2.5", sharded())
        config = snapshot / "config.json"
        outside = tmp_path / "config.json"
        outside.write_bytes(CONFIG)
        target = {
            "absolute": str(config.resolve()),  # on the volume, but not where the server mounts it
            "relative": os.path.relpath(outside, snapshot),
            "out and in again": f"../../../../../volume/{config.resolve().relative_to(volume.root)}",
            "circle": "config.json",
            "folder": "..",
            "device": "../../../../../../../../../../../../../dev/zero",
        }[way]
        config.unlink()
        config.symlink_to(target)
        assert (volume.found(), volume.skipped()) == ([], 1)

    def test_a_download_that_has_not_ended_is_no_model(self, volume: Volume) -> None:
        snapshot = volume.cache("Qwen/Qwen2.5", {"config.json": CONFIG, "README.md": b""})
        (snapshot.parents[1] / "blobs" / f"{'e' * 64}.1234.incomplete").write_bytes(safetensors("a"))
        assert volume.found() == []

    def test_datasets_and_spaces_are_no_models(self, volume: Volume) -> None:
        volume.cache("a/b", sharded())
        for kind in ("datasets", "spaces"):
            volume.put_all(f"hub/{kind}--a--c/snapshots/{COMMIT}", sharded())
        assert len(volume.found()) == 1


class TestLooseFiles:
    def test_a_gguf_file_is_a_model(self, volume: Volume) -> None:
        volume.put("some/where/Tiny.Q4_0.gguf", gguf_content())
        (found,) = volume.found()
        assert (found.kind, found.path, found.file) == (Kind.GGUF, "some/where/Tiny.Q4_0.gguf", None)
        assert (found.architecture, found.context_length) == ("llama", 2048)
        assert found.uri is None

    def test_a_split_one_is_told_once_and_only_when_whole(self, volume: Volume) -> None:
        volume.put_all("big", split_gguf())
        (found,) = volume.found()
        assert (found.path, found.files) == ("big/m-00001-of-00003.gguf", 3)
        (volume.root / "big/m-00001-of-00003.gguf").unlink()
        assert (volume.found(), volume.skipped()) == ([], 1)

    def test_a_folder_of_safetensors_is_a_model(self, volume: Volume) -> None:
        volume.put_all("mine/qwen", {**sharded(), "tokenizer.json": b"{}"})
        (found,) = volume.found()
        assert (found.kind, found.path, found.files, found.parameters) == (Kind.SAFETENSORS, "mine/qwen", 5, 128)

    def test_the_volume_itself_may_be_the_model(self, volume: Volume) -> None:
        volume.put_all(".", sharded())
        assert [one.path for one in volume.found()] == ["."]

    @pytest.mark.parametrize(
        ("files", "skipped"),
        [
            ({"model.safetensors": safetensors("a")}, 0),  # no config: an adapter, a tool's own format
            ({"config.json": CONFIG, "pytorch_model.bin": b"x"}, 0),
            ({"config.json": b'{"_class_name": "UNet"}', "diffusion.safetensors": safetensors("a")}, 0),
            ({"config.json": CONFIG, "model_index.json": b"{}", "a.safetensors": safetensors("a")}, 0),
            ({"config.json": b"{", "model.safetensors": safetensors("a")}, 1),
            ({"config.json": CONFIG, "model.safetensors": safetensors("a")[:-1]}, 1),
            ({"config.json": CONFIG, "model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, 1),
            ({"config.json": CONFIG, "model.safetensors.index.json": b"[" * 10**5, "a.safetensors": b""}, 1),
            ({"a.gguf": gguf_content()[:-40]}, 1),
            ({"a.gguf": gguf_content()[:200]}, 1),
            ({"a.gguf": b"version https://git-lfs.github.com/spec/v1\n"}, 1),
            ({"a.gguf": b""}, 1),
            ({"a-00001-of-00000.gguf": gguf_content(), "a-00000-of-00001.gguf": gguf_content()}, 0),
            ({"a-00001-of-99999.gguf": gguf_content()}, 1),
            ({"with space.gguf": gguf_content()}, 1),
            ({"hash#tag.gguf": gguf_content()}, 1),
            ({"a/$(HOME).gguf": gguf_content()}, 1),
            ({"line\nend.gguf": gguf_content()}, 1),
            ({"x" * 200 + "/" + "x" * 190 + ".gguf": gguf_content()}, 1),
        ],
    )
    def test_what_no_server_could_be_pointed_at_is_passed_over(
        self, volume: Volume, files: dict[str, bytes], skipped: int
    ) -> None:
        volume.put_all("folder", files)
        assert (volume.found(), volume.skipped()) == ([], skipped)

    def test_a_header_that_cannot_be_understood_costs_the_figures_only(self, volume: Volume) -> None:
        volume.put("new.gguf", b"GGUF" + (99).to_bytes(4, "little") + bytes(100))
        volume.put_all("m", {"config.json": CONFIG, "model.safetensors": (2).to_bytes(8, "little") + b"[]"})
        assert [(one.path, one.architecture) for one in volume.found()] == [("m", None), ("new.gguf", None)]

    def test_a_name_that_is_no_text_is_passed_over(self, volume: Volume) -> None:
        with open(os.path.join(os.fsencode(volume.root), b"\xff.gguf"), "wb") as file:
            file.write(gguf_content())
        assert (volume.found(), volume.skipped()) == ([], 1)

    def test_links_are_left_alone_for_what_they_lead_to_is_found_where_it_is(self, volume: Volume) -> None:
        volume.put("real/a.gguf", gguf_content())
        (volume.root / "latest.gguf").symlink_to("real/a.gguf")
        (volume.root / "circle").symlink_to(".")
        (volume.root / "real/up").symlink_to("..")
        assert [one.path for one in volume.found()] == ["real/a.gguf"]
        assert volume.skipped() == 0
        (volume.root / "gone.gguf").symlink_to("nowhere")
        (volume.root / "out.gguf").symlink_to("/dev/zero")
        assert volume.skipped() == 2

    def test_special_files_are_not_opened(self, volume: Volume) -> None:
        os.mkfifo(volume.root / "pipe.gguf")
        volume.put("a.gguf", gguf_content())
        assert [one.path for one in volume.found()] == ["a.gguf"]


class TestStoresOfOllama:
    LAYERS: ClassVar = {"model": gguf_content(), "template": b"{{ .Prompt }}"}

    @pytest.mark.parametrize(
        ("name", "reference"),
        [
            ("registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
            ("registry.ollama.ai/me/mine/latest", "me/mine:latest"),
            ("hf.co/org/repo-GGUF/Q4_K_M", "hf.co/org/repo-GGUF:Q4_K_M"),
        ],
    )
    @pytest.mark.parametrize("tree", ["manifests", "manifests-v2"])
    def test_a_model_is_found_by_its_name(self, volume: Volume, name: str, reference: str, tree: str) -> None:
        volume.ollama(name, self.LAYERS, tree=tree)
        (found,) = volume.found()
        assert (found.kind, found.path, found.reference) == (Kind.OLLAMA, "ollama", reference)
        assert found.uri == f"ollama://{reference}"
        assert (found.bytes, found.files) == (len(gguf_content()) + 13 + 2, 3)
        assert (found.format, found.architecture) == ("gguf", "llama")
        assert str(found.revision).startswith("sha256:")

    def test_a_store_may_be_the_volume_and_have_other_models_beside_it(self, volume: Volume) -> None:
        volume.ollama("registry.ollama.ai/library/a/latest", self.LAYERS, store=".")
        volume.ollama("registry.ollama.ai/library/b/latest", self.LAYERS, store=".")
        volume.put("loose/a.gguf", gguf_content())
        assert [one.cursor for one in volume.found()] == [".//a:latest", ".//b:latest", "loose/a.gguf"]

    def test_a_blob_that_is_missing_or_too_short_is_no_model(self, volume: Volume) -> None:
        volume.ollama("registry.ollama.ai/library/a/latest", self.LAYERS)
        volume.ollama("registry.ollama.ai/library/b/latest", {"model": gguf_content() + b"b"})
        volume.ollama("registry.ollama.ai/library/c/latest", {"model": gguf_content() + b"c"})
        sizes = {path.stat().st_size: path for path in sorted(volume.root.glob("ollama/blobs/*"))}
        longest = [path for path in volume.root.glob("ollama/blobs/*") if path.stat().st_size == max(sizes)]
        longest[0].rename(f"{longest[0]}-partial")
        longest[1].write_bytes(b"GGUF")
        assert [one.reference for one in volume.found()] == ["a:latest"]
        assert volume.skipped() == 2

    def test_of_a_list_of_manifests_the_one_that_the_server_takes_counts(self, volume: Volume) -> None:
        file = volume.ollama("registry.ollama.ai/library/a/latest", self.LAYERS)
        child = json.loads(file.read_text())
        listed = [{**child, "runner": "mlx", "layers": [{"digest": "none"}]}, {**child, "runner": "llamacpp"}]
        file.write_text(json.dumps({"mediaType": "application/vnd.ollama.manifest.list.v2+json", "manifests": listed}))
        assert [one.files for one in volume.found()] == [3]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"{}",
            b"[" * 10**5,
            b'{"layers": 5}',
            b'{"layers": [5]}',
            b'{"layers": [{"digest": 5}]}',
            b'{"layers": [{"digest": "sha256:../../../../etc/passwd", "size": 1}]}',
            b'{"manifests": [5, {"runner": []}]}',
        ],
    )
    def test_nonsense_for_a_manifest_is_passed_over(self, volume: Volume, content: bytes) -> None:
        volume.ollama("registry.ollama.ai/library/a/latest", self.LAYERS).write_bytes(content)
        volume.put("ollama/manifests/registry.ollama.ai/library/a/.DS_Store", b"")
        volume.put("ollama/manifests/stray", b"")
        assert (volume.found(), volume.skipped()) == ([], 1)


class TestArtifactsOfBerth:
    def test_an_artifact_is_known_again_by_its_request(self, volume: Volume) -> None:
        manifest = volume.artifact("qwen-1234", "hf://Qwen/Qwen2.5", sharded(), include=("*.safetensors", "*.json"))
        (found,) = volume.found()
        assert (found.kind, found.path, found.uri) == (Kind.BERTH, "qwen-1234", "hf://Qwen/Qwen2.5")
        assert (found.request, found.revision) == (manifest.request, COMMIT)
        assert (found.bytes, found.files, found.parameters) == (manifest.size, 4, 128)

    def test_the_file_to_load_is_named_where_there_is_only_one(self, volume: Volume) -> None:
        volume.artifact("one", "hf://a/b", {"x.gguf": gguf_content(), "mmproj.gguf": projector()})
        volume.artifact("two", "hf://a/c", {"x.gguf": gguf_content(), "y.gguf": gguf_content()})
        assert [(one.file, one.format) for one in volume.found()] == [("x.gguf", "gguf"), (None, "gguf")]

    def test_one_that_is_a_store_of_ollama_names_its_model(self, volume: Volume) -> None:
        blob = "blobs/sha256-" + "0" * 64
        files = {blob: gguf_content(), "manifests/registry.ollama.ai/library/llama3.2/1b": b"{}"}
        volume.artifact("llama", "ollama://llama3.2:1b", files)
        assert [(one.kind, one.reference) for one in volume.found()] == [(Kind.BERTH, "llama3.2:1b")]

    @pytest.mark.parametrize("damage", ["missing", "shorter", "unfinished", "replaced by a link"])
    def test_one_that_is_not_whole_is_passed_over_and_not_looked_into(self, volume: Volume, damage: str) -> None:
        volume.artifact("x", "hf://a/b", {"x.gguf": gguf_content(), "y.gguf": gguf_content()})
        file = volume.root / "x/y.gguf"
        if damage == "unfinished":
            (volume.root / "x/manifest.json").unlink()
        elif damage == "shorter":
            file.write_bytes(b"x")
        else:
            file.unlink()
            if damage == "replaced by a link":
                file.symlink_to("x.gguf")
        assert (volume.found(), volume.skipped()) == ([], 1)

    @pytest.mark.parametrize(
        "manifest",
        [
            b"[" * 10**5,
            b'{"version": 1, "request": "r", "uri": "hf://a/b", "revision": null, "licence": null, '
            b'"createdAt": "", "files": [{"path": "a", "size": Infinity, "sha256": "", "verified": true}]}',
            b"\xff",
        ],
    )
    def test_a_manifest_of_somebody_else_is_none(self, volume: Volume, manifest: bytes) -> None:
        volume.put_all("x", {"manifest.json": manifest, "a.gguf": gguf_content()})
        assert [one.kind for one in volume.found()] == [Kind.GGUF]

    def test_a_manifest_that_names_files_elsewhere_is_not_believed(self, volume: Volume, tmp_path: Path) -> None:
        (tmp_path / "secret.gguf").write_bytes(gguf_content())
        manifest = volume.artifact("x", "hf://a/b", {"x.gguf": gguf_content()})
        stored = replace(manifest.files[0], path="../../secret.gguf")
        document = json.loads((volume.root / "x/manifest.json").read_text())
        document["files"][0]["path"] = stored.path
        (volume.root / "x/manifest.json").write_text(json.dumps(document))
        assert (volume.found(), volume.skipped()) == ([], 1)


class TestBounds:
    def test_no_deeper_than_so_many_folders(self, volume: Volume) -> None:
        volume.put("/".join("abcdefghi") + "/x.gguf", gguf_content())
        volume.put("/".join("abcdefghijklmn") + "/x.gguf", gguf_content())
        assert len(volume.found()) == 1
        assert volume.skipped() == 1

    def test_no_more_than_so_many_entries(self, volume: Volume) -> None:
        for number in range(10):
            volume.put(f"{number}/x.gguf", gguf_content())
        with Tree(volume.root, most_entries=15) as tree:
            assert [one.found.path for one in scan(tree)] == [f"{number}/x.gguf" for number in range(5)]
            assert tree.skipped == 1

    def test_what_a_file_system_check_left_is_not_looked_into(self, volume: Volume) -> None:
        volume.put("lost+found/a.gguf", gguf_content())
        assert (volume.found(), volume.skipped()) == ([], 1)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_what_cannot_be_read_is_passed_over(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            volume = Volume(Path(folder, "volume"))
            volume.put("closed/a.gguf", gguf_content())
            volume.put("secret.gguf", gguf_content()).chmod(0)
            volume.put("open.gguf", gguf_content())
            (volume.root / "closed").chmod(0)
            os.seteuid(65534)
            try:
                with Tree(volume.root) as tree:
                    assert [one.found.path for one in scan(tree)] == ["open.gguf", "secret.gguf"]
                    assert tree.skipped == 1
                assert [one.path for one in volume.found()] == ["open.gguf"]
                assert volume.skipped() == 2
            finally:
                os.seteuid(0)


class TestProgram:
    def test_an_empty_volume_has_room_and_nothing_else(self, volume: Volume) -> None:
        page = volume.page()
        status = os.statvfs(volume.root)
        capacity = page.message.pop("volumeCapacity")
        assert 0 < page.message.pop("volumeFree") <= capacity == status.f_blocks * status.f_frsize
        assert page.message == {"result": "Succeeded", "found": [], "more": False, "after": None, "skipped": 0}
        assert page.code == DONE

    def test_a_volume_that_is_not_mounted_is_final(self, volume: Volume) -> None:
        volume.root.rmdir()
        page = volume.page()
        assert page.code == FINAL
        assert page.message["result"] == "Failed"
        assert page.message["reason"] == "NotFound"
        assert "mount the volume" in page.message["message"]

    def test_a_fault_is_told_and_may_pass(self, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.statvfs", lambda _: (_ for _ in ()).throw(RuntimeError("hf_" + "s" * 34)))
        page = volume.page()
        assert (page.code, page.message["reason"]) == (PASSING, "InternalError")
        assert "sss" not in page.message["message"]

    def test_it_ends_at_once_when_asked_to(self, volume: Volume) -> None:
        os.mkfifo(volume.root.parent / "log")
        program = [sys.executable, "-m", "berth.provision.discovery", "--volume", str(volume.root)]
        operator = Path(__file__).resolve().parents[3] / "operator"
        process = subprocess.Popen(
            # Opening the message's pipe waits for a reader, so the program is still there when the signal comes.
            [*program, "--termination-log", str(volume.root.parent / "log")],
            env={**os.environ, "PYTHONPATH": str(operator)},
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        process.stderr.readline()
        process.terminate()
        assert process.wait(timeout=10) == TERMINATED
        process.stderr.close()
