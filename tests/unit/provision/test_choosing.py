"""Which file is the model, and who could load it, told by names."""

import json

import pytest

from berth.api.model import BackendName
from berth.planning.model_figures import ModelFigures, WeightsFormat
from berth.provision.choosing import GgufModel, entry_file, gguf_models, safetensors_of_model
from berth.provision.errors import ProvisionError, Reason
from berth.provision.wishes import Offer, Wish, formats_of_interest, judge, link_target, read_wish

LLAMACPP, VLLM = Wish(BackendName.LLAMACPP, 1), Wish(BackendName.VLLM, 1)
SGLANG, TGI = Wish(BackendName.SGLANG, 1), Wish(BackendName.TGI, 1)
OLLAMA, CUSTOM = Wish(BackendName.OLLAMA, 1), Wish(BackendName.CUSTOM, 1)
SPLIT = tuple(f"sub/big-{number:05}-of-00003.gguf" for number in (1, 2, 3))


def no_figures(_: WeightsFormat) -> ModelFigures | None:
    return None


def refusal(names: tuple[str, ...], *wishes: Wish) -> str | None:
    try:
        judge(Offer(names), wishes, no_figures)
    except ProvisionError as error:
        return f"{error.reason}: {error.message}"
    return None


@pytest.mark.parametrize(
    ("names", "entry"),
    [
        (["a.gguf", "README.md"], "a.gguf"),
        (["A.GGUF"], "A.GGUF"),
        (["a.gguf", "mmproj-F16.gguf", "model-mmproj.gguf", "imatrix.gguf"], "a.gguf"),
        (["mmproj-F16.gguf"], None),
        (["a.gguf", "b.gguf"], None),
        ([*SPLIT], SPLIT[0]),
        ([*reversed(SPLIT)], SPLIT[0]),
        ([*SPLIT, "a.gguf"], None),
        (["x-00004-of-00003.gguf"], "x-00004-of-00003.gguf"),
        (["x-00001-of-00002.gguf", "x-00001-of-00003.gguf"], None),
        (["model.safetensors"], None),
        (["model"], "model"),
        (["config.json", "model"], None),
        ([], None),
    ],
)
def test_the_entry_is_the_only_gguf_model(names: list[str], entry: str | None) -> None:
    assert entry_file(names) == entry


def test_what_the_source_calls_a_model_is_the_entry() -> None:
    assert entry_file(["blobs/sha256-1", "blobs/sha256-2"], ["blobs/sha256-2"]) == "blobs/sha256-2"
    assert entry_file(["blobs/sha256-1", "blobs/sha256-2"], ["blobs/sha256-1", "blobs/sha256-2"]) is None


def test_parts_are_one_model() -> None:
    assert gguf_models([*reversed(SPLIT), "a.gguf"]) == (GgufModel(("a.gguf",)), GgufModel(SPLIT, 3))
    assert gguf_models(SPLIT[1:])[0].whole is False


@pytest.mark.parametrize(
    ("names", "indexed", "chosen"),
    [
        (["model.safetensors", "consolidated.safetensors"], None, ["model.safetensors"]),
        (["a.safetensors", "b.safetensors", "consolidated.safetensors"], None, ["a.safetensors", "b.safetensors"]),
        (["consolidated.safetensors"], None, ["consolidated.safetensors"]),
        (["unet/model.safetensors", "vae/model.safetensors"], None, []),
        (["a.safetensors", "b.safetensors"], ["b.safetensors", "c.safetensors"], ["b.safetensors"]),
    ],
)
def test_only_the_models_own_safetensors_are_read(
    names: list[str], indexed: list[str] | None, chosen: list[str]
) -> None:
    assert list(safetensors_of_model(names, indexed)) == chosen


@pytest.mark.parametrize(
    ("names", "wish"),
    [
        (("model.safetensors", "config.json"), VLLM),
        (("unet/model.safetensors",), VLLM),
        (("pytorch_model.bin", "config.json"), VLLM),
        (("pytorch_model.bin", "config.json"), SGLANG),
        (("model.pt",), TGI),
        (("a.gguf", "b.gguf"), SGLANG),
        (("a.gguf", "model.safetensors"), LLAMACPP),
        (("a.gguf", "pytorch_model.bin"), VLLM),
        (("a.gguf",), LLAMACPP),
        (SPLIT, LLAMACPP),
        (("download",), LLAMACPP),
        (("download",), VLLM),
        (("blobs/sha256-1", "manifests/x"), OLLAMA),
        (("a.gguf",), Wish(BackendName.VLLM, 1, own_image=True)),
        (("model.onnx",), Wish(BackendName.VLLM, 1, own_image=True)),
        (("anything.at.all", "x.onnx"), CUSTOM),
    ],
)
def test_in_doubt_a_model_is_allowed(names: tuple[str, ...], wish: Wish) -> None:
    assert refusal(names, wish) is None


@pytest.mark.parametrize(
    ("names", "wish", "way_out"),
    [
        (("model.safetensors", "config.json"), LLAMACPP, "use backend vllm or sglang"),
        (("config.json", "README.md"), LLAMACPP, "check source.files"),
        (("mmproj-F16.gguf", "README.md"), LLAMACPP, "check source.files"),
        (("a.gguf", "README.md"), VLLM, "use backend llamacpp"),
        (("a.gguf", "imatrix.bin"), TGI, "use backend llamacpp"),
        (("config.json", "README.md"), VLLM, "check source.files"),
        (("model.onnx", "config.json"), SGLANG, "check source.files"),
        (SPLIT[:2], LLAMACPP, "source.files, for example 'big-*.gguf'"),
        (("a.gguf", "b.gguf"), LLAMACPP, "choose one with source.files, for example '*Q4_K_M.gguf'"),
    ],
)
def test_a_refusal_says_what_would_work(names: tuple[str, ...], wish: Wish, way_out: str) -> None:
    message = refusal(names, wish) or ""
    assert message.startswith("Incompatible: ")
    assert way_out in message


def test_at_most_eight_models_are_named() -> None:
    message = refusal(tuple(f"m{number}.gguf" for number in range(9)), LLAMACPP) or ""
    assert "9 GGUF models" in message
    assert "m7.gguf, …" in message
    assert "m8.gguf" not in message


def test_one_who_can_load_it_is_enough() -> None:
    assert refusal(("a.gguf", "README.md"), VLLM, LLAMACPP) is None
    message = refusal(("a.gguf", "b.gguf"), Wish(BackendName.VLLM, 1, "qwen"), Wish(BackendName.LLAMACPP, 0, "tiny"))
    assert message is not None
    assert message.index("qwen: ") < message.index("; tiny: ")


def test_figures_decide_what_names_do_not() -> None:
    three = ModelFigures(WeightsFormat.SAFETENSORS, "L", (), heads=40)
    offer = Offer(("model.safetensors",))
    judge(offer, [Wish(BackendName.VLLM, 2)], lambda _: three)
    with pytest.raises(ProvisionError, match=r"gpus\.count"):
        judge(offer, [Wish(BackendName.VLLM, 3)], lambda _: three)


@pytest.mark.parametrize(
    ("names", "wishes", "formats"),
    [
        (("a.gguf", "model.safetensors"), [], ["safetensors", "gguf"]),
        (("a.gguf", "model.safetensors"), [LLAMACPP], ["gguf"]),
        (("a.gguf", "model.safetensors"), [VLLM], ["safetensors"]),
        (("a.gguf",), [VLLM], ["gguf"]),
        (("a.gguf", "pytorch_model.bin"), [VLLM], []),
        (("pytorch_model.bin",), [], []),
        (("download",), [LLAMACPP], ["gguf"]),
        (("config.json", "README.md"), [], []),
    ],
)
def test_headers_are_read_of_what_would_be_loaded(
    names: tuple[str, ...], wishes: list[Wish], formats: list[str]
) -> None:
    assert formats_of_interest(Offer(names), wishes) == formats


class TestLink:
    def test_leads_to_the_entry(self) -> None:
        assert link_target(Offer(("sub/a.gguf", "README.md")), "model.gguf") == "sub/a.gguf"
        assert link_target(Offer(("model.gguf",)), "model.gguf") == "model.gguf"

    @pytest.mark.parametrize(
        ("names", "why"),
        [
            (SPLIT, "only a ModelCache keeps split models"),
            (("a.gguf", "b.gguf"), "choose one with source.files"),
            (("model.safetensors",), "no GGUF file"),
        ],
    )
    def test_needs_a_single_file(self, names: tuple[str, ...], why: str) -> None:
        with pytest.raises(ProvisionError, match=why) as refused:
            link_target(Offer(names), "model.gguf")
        assert refused.value.reason is Reason.INCOMPATIBLE

    def test_takes_nobodys_name(self) -> None:
        with pytest.raises(ProvisionError, match="name of the link"):
            link_target(Offer(("a.gguf", "README.md")), "README.md")


class TestWish:
    def test_only_backend_and_gpus_are_needed(self) -> None:
        assert read_wish('{"backend":"vllm","gpus":1}') == VLLM
        full = {"model": "qwen", "backend": "vllm", "gpus": 1, "quantization": "awq", "ownImage": True, "later": 1}
        assert read_wish(json.dumps(full)) == Wish(BackendName.VLLM, 1, "qwen", "awq", own_image=True)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "7",
            "{}",
            '{"backend":"vllm"}',
            '{"backend":"tensorflow","gpus":1}',
            '{"backend":"vllm","gpus":"1"}',
            '{"backend":"vllm","gpus":true}',
            '{"backend":"vllm","gpus":-1}',
            '{"backend":"vllm","gpus":1,"model":7}',
            '{"backend":"vllm","gpus":1,"quantization":4}',
        ],
    )
    def test_anything_else_is_wrong_usage(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"gpus|name"):
            read_wish(text)
