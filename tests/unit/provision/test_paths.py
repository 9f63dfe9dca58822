import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile, select
from berth.provision.paths import check_together, safe_path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../outside",
        "a/../../outside",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "..\\outside",
        "a\0b",
        "a\nb",
        "a" * 300,
        "/".join(["a" * 200] * 6),
        "\udcff",
        "manifest.json",
        ".berth/lock",
        "weights.partial",
        "weights.partial.state",
    ],
)
def test_refuses_what_leaves_the_folder_or_belongs_to_berth(path: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        safe_path(path)
    assert refused.value.reason is Reason.UNSAFE_PATH


@pytest.mark.parametrize(
    "path", ["config.json", "a/b/c.safetensors", "..a", "onnx/manifest.json", "ü/模型.gguf", "a b"]
)
def test_accepts_ordinary_names(path: str) -> None:
    assert safe_path(path) == path


@given(st.text(max_size=40))
def test_what_is_accepted_stays_below(path: str) -> None:
    import posixpath

    try:
        safe_path(path)
    except ProvisionError:
        return
    assert posixpath.normpath(posixpath.join("/root/below", path)).startswith("/root/below/")


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_refuses_paths_that_exclude_each_other(paths: list[str]) -> None:
    with pytest.raises(ProvisionError):
        check_together(paths)


def test_a_listing_is_checked_as_it_is_made() -> None:
    with pytest.raises(ProvisionError):
        Listing((RemoteFile("ok", "http://h/ok"),), inline={"../x": b""})


def test_patterns_cross_slashes_and_a_folder_means_all_of_it() -> None:
    names = ["config.json", "onnx/model.onnx", "onnx/sub/a.bin", "model.Q4_K_M.gguf"]
    assert select(names, ()) == names
    assert select(names, ("*Q4_K_M.gguf", "*.json")) == ["config.json", "model.Q4_K_M.gguf"]
    assert select(names, ("onnx/",)) == ["onnx/model.onnx", "onnx/sub/a.bin"]
    with pytest.raises(ProvisionError, match=r"onnx/model\.onnx") as refused:
        select(names, ("*.safetensors",))
    assert refused.value.reason is Reason.NO_FILE_MATCHES
