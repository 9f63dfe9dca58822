"""The parts of hack/cluster that need no cluster."""

import io
import ipaddress
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from localcluster import (
    api,
    binaries,
    controlplane,
    images,
    kind,
    network,
    node,
    pki,
    prerequisites,
    processes,
    simulated,
    state,
)
from localcluster.errors import ClusterError, with_log


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="lc")  # shorter than tmp_path: sockets below it have 107 bytes
    monkeypatch.setenv("XDG_STATE_HOME", f"{folder}/s")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    yield
    shutil.rmtree(folder)


class TestRanges:
    def test_no_two_slots_share_an_address_and_all_are_of_the_benchmarking_range(self) -> None:
        every = [
            ipaddress.ip_network(text)
            for slot in range(network.SLOTS)
            for text in (network.Ranges(slot).pods, network.Ranges(slot).services)
        ]
        assert not any(a.overlaps(b) for i, a in enumerate(every) for b in every[i + 1 :])
        assert all(n.subnet_of(ipaddress.ip_network("198.18.0.0/15")) for n in every)  # type: ignore[arg-type]

    @pytest.mark.parametrize("slot", range(network.SLOTS))
    def test_single_addresses_lie_in_their_ranges_and_apart_from_each_other(self, slot: int) -> None:
        ranges = network.Ranges(slot)
        pods, services = ipaddress.ip_network(ranges.pods), ipaddress.ip_network(ranges.services)
        gateway, first, last = (ipaddress.ip_address(a) for a in ranges.real_pods)
        simulated_pods = ipaddress.ip_network(ranges.simulated_pods)
        assert all(ipaddress.ip_address(a) in pods for a in (ranges.host, ranges.node, gateway, first, last))
        assert all(ipaddress.ip_address(a) in services for a in (ranges.api_service, ranges.dns))
        assert int(gateway) < int(first) < int(last) < int(simulated_pods.network_address)
        assert simulated_pods.subnet_of(pods)  # type: ignore[arg-type]

    def test_the_name_of_the_interface_is_not_too_long_for_linux(self) -> None:
        assert all(len(network.Ranges(slot).link) < 16 for slot in range(network.SLOTS))


class TestSlots:
    @pytest.fixture(autouse=True)
    def no_claims(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network, "_reserve", lambda slot: True)

    def test_clusters_that_are_written_down_keep_their_slots(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network, "_addresses_in_use", list)
        free = network.free_slot("first")
        where = state.paths("first")
        where.root.mkdir(parents=True)
        state.save(where, state.State("first", "processes", slot=free))
        assert network.free_slot("second") != free
        assert network.free_slot("first") == free

    def test_addresses_that_the_machine_routes_elsewhere_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        elsewhere = [ipaddress.ip_network("198.18.0.0/17"), ipaddress.ip_network("198.19.128.0/20")]
        monkeypatch.setattr(network, "_addresses_in_use", lambda: elsewhere)
        assert network.free_slot("any") >= 9

    def test_a_machine_without_a_free_part_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network, "_addresses_in_use", lambda: [ipaddress.ip_network("198.18.0.0/15")])
        with pytest.raises(ClusterError, match="in use"):
            network.free_slot("any")


class TestState:
    def test_what_is_written_is_read_again(self) -> None:
        where = state.paths("one")
        where.root.mkdir(parents=True)
        written = state.State("one", "processes", slot=3, audit=True, gpus=2)
        state.save(where, written)
        assert state.load(where) == written
        assert state.all_states() == [written]

    def test_nothing_is_read_where_nothing_is(self) -> None:
        assert state.load(state.paths("none")) is None

    @pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 31])
    def test_names_that_are_no_names_are_refused(self, name: str) -> None:
        with pytest.raises(ClusterError, match="no cluster name"):
            state.paths(name)

    def test_a_folder_too_deep_for_sockets_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/tmp/" + "x" * 80)
        with pytest.raises(ClusterError, match="too long"):
            state.paths("berth")

    def test_whoever_waits_for_a_folder_that_is_deleted_gets_the_next_one(self) -> None:
        folder = state.clusters_folder() / "one"
        entered = threading.Event()

        def wait() -> None:
            with state.locked(folder):
                assert folder.exists()
                entered.set()

        with state.locked(folder):
            waiting = threading.Thread(target=wait)
            waiting.start()
            assert not entered.is_set()
            shutil.rmtree(folder)
        waiting.join(10)
        assert entered.is_set()

    def test_a_cluster_that_is_not_there_is_named(self) -> None:
        with pytest.raises(ClusterError, match="there is no cluster nobody"):
            api.find("nobody")

    def test_deleting_what_is_not_there_is_no_error(self) -> None:
        assert not api.delete("nobody")


class TestProcesses:
    def test_this_process_is_alive_and_itself(self) -> None:
        me = processes.identify(os.getpid())
        assert me is not None
        assert me.alive()

    def test_an_id_that_was_given_to_another_process_is_somebody_else(self) -> None:
        assert not processes.Identity(os.getpid(), "1").alive()

    def test_remains_of_a_process_are_not_alive(self) -> None:
        child = subprocess.Popen(["sleep", "600"])
        identity = processes.identify(child.pid)
        assert identity is not None
        child.kill()
        assert processes.wait_until(lambda: not identity.alive(), 10)
        child.wait()
        assert processes.identify(child.pid) is None

    def test_waiting_ends_with_the_time(self) -> None:
        assert not processes.wait_until(lambda: False, 0.01)

    def test_without_process_1_there_are_no_components(self, tmp_path: Path) -> None:
        init = processes.Init(tmp_path)
        assert init.identity() is None
        assert init.components() == {}
        init.end()

    def test_process_1_of_an_earlier_boot_is_not_process_1(self, tmp_path: Path) -> None:
        (tmp_path / "init.json").write_text(json.dumps({"pid": os.getpid(), "start_time": "1"}))
        assert processes.Init(tmp_path).identity() is None


class TestImages:
    def test_an_archive_names_its_image_and_holds_its_files(self, tmp_path: Path) -> None:
        entries = [
            images.Entry("usr/bin/tool", b"#!", 0o755),
            images.Entry("app/tool", link="/usr/bin/tool"),
            images.Entry("tmp", mode=0o1777, folder=True),
        ]
        file = tmp_path / "image.tar"
        file.write_bytes(images.archive("localhost/tool:1", entries, entrypoint=["/app/tool"], command=["-h"]))
        assert list(images.configs(file)) == ["localhost/tool:1"]
        with tarfile.open(file) as tar:
            manifest = json.loads(tar.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
            config = json.loads(tar.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]
            assert config["config"]["Entrypoint"] == ["/app/tool"]
            assert config["config"]["Cmd"] == ["-h"]
            with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][0])) as layer:
                found = {m.name: m for m in layer.getmembers()}
        assert list(found) == ["usr", "usr/bin", "usr/bin/tool", "app", "app/tool", "tmp"]
        assert found["usr/bin/tool"].mode == 0o755
        assert found["app/tool"].linkname == "/usr/bin/tool"
        assert found["tmp"].mode == 0o1777

    def test_the_same_content_gives_the_same_bytes(self) -> None:
        first, second = (images.archive("a:1", [images.Entry("f", b"x")]) for _ in range(2))
        assert first == second

    def test_a_folder_becomes_entries(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "f").write_text("x")
        (tmp_path / "l").symlink_to("d/f")
        assert {e.path: e.link for e in images.tree(tmp_path)} == {"d": None, "d/f": None, "l": "d/f"}

    def test_an_image_is_known_by_its_configuration_in_both_layouts(self, tmp_path: Path) -> None:
        digest = "a" * 64
        for name in (f"{digest}.json", f"blobs/sha256/{digest}"):
            content = json.dumps([{"Config": name, "RepoTags": ["one:1", "two:1"]}]).encode()
            info = tarfile.TarInfo("manifest.json")
            info.size = len(content)
            with tarfile.open(tmp_path / "image.tar", "w") as tar:
                tar.addfile(info, io.BytesIO(content))
            found = images.configs(tmp_path / "image.tar")
            assert found == {"one:1": f"sha256:{digest}", "two:1": f"sha256:{digest}"}

    @pytest.mark.parametrize("content", [b"", b"no archive"])
    def test_a_file_that_is_no_image_is_refused(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "image.tar"
        file.write_bytes(content)
        with pytest.raises(ClusterError, match="no image archive"):
            images.configs(file)


class TestBinaries:
    @pytest.fixture
    def go(self, tmp_path: Path) -> Path:
        module = tmp_path / "go" / "m"
        (module / "p").mkdir(parents=True)
        for name, text in {"go.mod": "module m", "go.sum": "", "p/main.go": "package main"}.items():
            (module / name).write_text(text)
        return tmp_path / "go"

    @pytest.mark.parametrize("file", ["go.mod", "go.sum", "p/main.go"])
    def test_a_program_is_another_one_when_a_source_changes(self, go: Path, file: str) -> None:
        program = binaries.Program("p", "m", "./p")
        before = binaries.key(program, "go1.26.0", go)
        assert binaries.key(program, "go1.26.0", go) == before
        with (go / "m" / file).open("a") as source:
            source.write("// changed")
        assert binaries.key(program, "go1.26.0", go) != before

    def test_a_program_of_another_compiler_is_another_one(self, go: Path) -> None:
        program = binaries.Program("p", "m", "./p")
        assert binaries.key(program, "go1.26.0", go) != binaries.key(program, "go1.26.1", go)

    def test_sources_of_one_program_do_not_touch_the_next(self, go: Path) -> None:
        other = binaries.Program("q", "m", "example.org/q")
        before = binaries.key(other, "go1.26.0", go)
        (go / "m" / "p" / "main.go").write_text("changed")
        assert binaries.key(other, "go1.26.0", go) == before

    def test_every_program_is_pinned(self) -> None:
        for program in binaries.PROGRAMS:
            assert (binaries.GO / program.module / "go.mod").exists()

    def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(binaries, "_find_go", lambda: None)
        with pytest.raises(ClusterError, match="apt-get install golang-go"):
            binaries.ensure(["pause"])

    def test_a_compiler_that_is_too_old_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(binaries, "_find_go", lambda: "go")
        monkeypatch.setattr(binaries, "_go_version", lambda go: "go1.19.8")
        with pytest.raises(ClusterError, match=r"Go 1\.21 or newer"):
            binaries.ensure(["pause"])


class TestPrerequisites:
    def test_missing_programs_are_named_by_their_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
        monkeypatch.setattr(prerequisites, "cni_folder", lambda: Path("/nowhere"))
        assert prerequisites.missing_packages(control_plane=False) == [
            "conntrack",
            "containerd",
            "containernetworking-plugins",
            "iproute2",
            "iptables",
            "mount",
            "nftables",
            "runc",
            "util-linux",
        ]
        assert prerequisites.missing_packages(control_plane=True) == ["iproute2", "util-linux"]

    def test_whoever_is_not_root_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ClusterError, match="sudo"):
            prerequisites.check(control_plane=False)

    def test_a_folder_is_on_the_file_system_of_the_innermost_mount(self) -> None:
        assert prerequisites.filesystem(Path("/proc/self")) == "proc"
        assert prerequisites.filesystem(Path("/nowhere")) == prerequisites.filesystem(Path("/"))


class TestKind:
    @pytest.fixture
    def calls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Stands in for kind and for a container engine that answers; notes what kind is told."""
        programs = tmp_path / "bin"
        programs.mkdir()
        for name, text in {"kind": f'echo "$@" >> {tmp_path}/calls', "docker": "exit 0"}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        return tmp_path / "calls"

    def test_kind_is_used_when_it_is_there_and_an_engine_answers(self, calls: Path) -> None:
        assert kind.usable()
        engine = calls.parent / "bin" / "docker"
        engine.write_text("#!/bin/sh\nexit 1\n")
        assert not kind.usable()

    def test_only_clusters_of_our_own_name_are_touched(self, calls: Path) -> None:
        found = state.State("berth", "kind")
        kind.load_image(found, Path("/image.tar"))
        kind.down(state.paths("berth"), found)
        lines = calls.read_text().splitlines()
        assert lines[0] == "load image-archive /image.tar --name berth-local-berth"
        assert lines[1].startswith("delete cluster --name berth-local-berth ")

    def test_a_file_of_kinds_own_settings_is_passed_on(
        self, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BERTH_KIND_CONFIG", "/settings.yaml")
        monkeypatch.setattr(images, "busybox", lambda: Path("/busybox.tar"))
        monkeypatch.setattr(images, "llama_server", lambda: Path("/llama.tar"))
        where = state.Paths(tmp_path / "cluster")
        with pytest.raises(FileNotFoundError):  # nobody wrote a kubeconfig
            kind.up(where, state.State("berth", "kind"))
        created = next(line for line in calls.read_text().splitlines() if line.startswith("create cluster"))
        assert created.startswith("create cluster --name berth-local-berth --kubeconfig ")
        assert created.endswith("--config /settings.yaml")

    def test_what_kind_cannot_do_is_said(self, calls: Path) -> None:
        with pytest.raises(ClusterError, match="no audit log"):
            api.ensure("berth", audit=True)


class TestExisting:
    def test_a_cluster_that_does_not_answer_is_not_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api, "kubectl", lambda: Path("/bin/false"))
        with pytest.raises(ClusterError, match="does not answer"):
            api.ensure("theirs", kubeconfig=tmp_path / "config")
        assert not state.paths("theirs").root.exists()

    def test_of_a_cluster_that_was_not_made_here_nothing_is_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "config"
        config.write_text("theirs")
        monkeypatch.setattr(api, "kubectl", lambda: Path("/bin/true"))
        assert api.ensure("theirs", kubeconfig=config).kubeconfig == config
        assert api.ensure("theirs").kubeconfig == config
        with pytest.raises(ClusterError, match="push the image"):
            api.load_image("theirs", config)
        with pytest.raises(ClusterError, match="plain processes"):
            api.add_nodes("theirs", 1)
        assert api.delete("theirs")
        assert config.read_text() == "theirs"
        assert not api.exists("theirs")


class TestConfiguration:
    def test_certificates_and_kubeconfigs_are_made_once_and_kept(self, tmp_path: Path) -> None:
        ranges = network.Ranges(0)
        pki.create(tmp_path / "pki", ranges)
        before = (tmp_path / "pki" / "ca.crt").read_bytes()
        pki.create(tmp_path / "pki", ranges)
        assert (tmp_path / "pki" / "ca.crt").read_bytes() == before
        target = tmp_path / "kubeconfig"
        pki.write_kubeconfig(target, tmp_path / "pki", "admin", ranges.api_url, "berth")
        assert target.stat().st_mode & 0o777 == 0o600

    def test_strict_clients_accept_the_certificates(self, tmp_path: Path) -> None:
        pki.create(tmp_path, network.Ranges(0))
        read = {
            name: x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes()) for name in ("ca", "proxy")
        }
        own, issuer = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
        authority = read["ca"].extensions.get_extension_for_class(own).value.digest
        for certificate in read.values():
            assert certificate.extensions.get_extension_for_class(issuer).value.key_identifier == authority
        assert read["ca"].extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign

    def test_an_audit_log_is_written_only_when_asked_for(self, tmp_path: Path) -> None:
        programs = {name: Path("/b") / name for name in controlplane.COMPONENTS}
        where = state.Paths(tmp_path)
        for audit in (False, True):
            wanted = state.State("a", "processes", slot=0, audit=audit)
            found = controlplane.commands(where, wanted, network.Ranges(0), programs)["kube-apiserver"]
            assert any(str(where.audit_log) in argument for argument in found) == audit

    def test_two_clusters_have_different_control_groups(self) -> None:
        assert node.cgroup("a") != node.cgroup("b")

    def test_a_simulated_node_says_what_feature_discovery_would(self) -> None:
        found = simulated.node("n", 8, "P", 4096)
        assert found["metadata"]["labels"]["nvidia.com/gpu.product"] == "P"
        assert found["metadata"]["labels"]["nvidia.com/gpu.memory"] == "4096"
        assert found["metadata"]["labels"]["nvidia.com/gpu.count"] == "8"
        assert found["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        assert "spec" not in found


def test_an_error_ends_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text("\n".join(f"line {n}" for n in range(100)))
    text = str(with_log("etcd ended", log))
    assert "line 99" in text
    assert "line 50" not in text
