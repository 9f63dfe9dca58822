"""Models that were found on a volume, and the Model that is proposed for each of them.

A finding travels in the termination message of a container that looked at a volume that others filled, so nothing in
it is trusted: what cannot be written into a Model's source is no finding at all. Whether a folder really holds the
model that its name promises is the word of those others.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as validated_dataclass

from berth.api.model import BackendName, Source
from berth.planning import compatibility
from berth.planning.model_figures import ModelFigures, WeightsFormat

LONGEST_PATH = 380
"""Bytes of `path` and of `file`: with the longest name of a claim, `pvc://claim/path/file` still fits source.uri."""
LONGEST_NAME = 52
MOST_REFS = 4
SPLIT = re.compile(r"(?P<prefix>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
"""A part of a split GGUF model (llama.cpp, llama_split_path in src/llama.cpp); the server is given the first."""


class Kind(StrEnum):
    """How a model lies on the volume."""

    HUGGING_FACE = "HuggingFace"
    GGUF = "GGUF"
    OLLAMA = "Ollama"
    BERTH = "Berth"
    SAFETENSORS = "Safetensors"


def _nameable(path: str) -> str:
    """A path below the volume that `pvc://claim/path` can say: no spaces, no `#`, nothing that Kubernetes expands."""
    if path == ".":
        return path
    if len(path.encode()) > LONGEST_PATH:  # UnicodeEncodeError is a ValueError
        raise ValueError("it is too long")
    if any(character.isspace() or not character.isprintable() or character in '"\\#' for character in path):
        raise ValueError("it has a space, '\"', '\\', '#' or a control character")
    if "$(" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("it has '$(' or leaves its folder")
    return path


_Path = Annotated[str, AfterValidator(_nameable)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]*$", max_length=100)]


@validated_dataclass(
    frozen=True,
    slots=True,
    config=ConfigDict(strict=True, extra="ignore", alias_generator=to_camel, populate_by_name=True),
)
class Discovered:
    """One model on a volume. It can be told apart from all others by `cursor`."""

    kind: Annotated[Kind, Field(strict=False)]
    path: _Path
    """What a server is pointed at, below the volume: a folder, a .gguf file, the root of a store; `.` is the volume."""
    bytes: _Count
    files: _Count
    uri: Annotated[str, Field(pattern=r'^[a-z0-9]+://[^\s"\\]+$', max_length=512)] | None = None
    """Its name on a hub, or what Berth downloaded it from."""
    file: _Path | None = None
    """GGUF inside a folder: the file to load, below `path`; the first when the model is split."""
    reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*$", max_length=200)] | None = None
    """Name of the model inside a store of Ollama."""
    revision: _Word | None = None
    """Commit, or digest of the manifest."""
    refs: Annotated[tuple[_Word, ...], Field(strict=False, max_length=MOST_REFS)] = ()
    """Branches and tags of the hub that were at this commit when it was downloaded."""
    request: Annotated[str, Field(pattern=r"^[a-f0-9]{64}$")] | None = None
    """Of Berth's own artifacts: the key of the request that they answer."""
    format: Annotated[WeightsFormat, Field(strict=False)] | None = None
    architecture: _Word | None = None
    quantization: _Word | None = None
    parameters: _Count | None = None
    context_length: _Count | None = None

    @property
    def cursor(self) -> str:
        """Where it stands in the order of all findings; no path has two slashes in a row."""
        within = self.file or self.reference
        return f"{self.path}//{within}" if within else self.path

    @classmethod
    def from_document(cls, document: object) -> "Discovered | None":
        """What the message says, or None when it makes no sense."""
        if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
            return None
        try:
            return cls(**document)
        except ValidationError:
            return None

    def document(self) -> dict[str, Any]:
        """JSON, without what is empty."""
        values = {to_camel(field.name): getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if name == "refs" else value for name, value in values.items() if value or value == 0}


def as_word(text: object) -> str | None:
    """The text when a finding can carry it as a figure, such as the name of an architecture."""
    if isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,99}", text):
        return text
    return None


@dataclass(frozen=True, slots=True)
class ProposedModel:
    """A Model that would serve a finding."""

    name: str
    backend: BackendName
    uri: str
    files: tuple[str, ...]
    """source.files: the ones to take of a hub's repository; empty for all."""
    bytes: int


def proposal(finding: Discovered, claim: str) -> ProposedModel:
    """The Model for a finding on the volume of that claim, under a name that others may have too."""
    backend = _backend(finding)
    uri, files = _source(finding, claim, backend)
    return ProposedModel(_name(*_words(finding)), backend, uri, files, finding.bytes)


def proposals(findings: Sequence[Discovered], claim: str) -> list[ProposedModel]:
    """A Model for each finding, in their order and each with a name of its own, whatever the order is.

    Of several that would have one name, the commit that a branch of the hub is at keeps it, then the first by path.
    """
    plain = [proposal(finding, claim) for finding in findings]
    names: dict[int, str] = {}
    taken: set[str] = set()
    order = sorted(range(len(findings)), key=lambda at: (plain[at].name, *_precedence(findings[at])))
    reserved = {one.name for one in plain}
    for at in order:
        choices = (name for name in _names(findings[at]) if name not in taken)
        names[at] = next(name for name in choices if name == plain[at].name or name not in reserved)
        taken.add(names[at])
    return [ProposedModel(names[at], one.backend, one.uri, one.files, one.bytes) for at, one in enumerate(plain)]


def _precedence(finding: Discovered) -> tuple[bool, str, str, str]:
    return "main" not in finding.refs, finding.cursor, finding.kind, repr(finding)


def _backend(finding: Discovered) -> BackendName:
    if finding.kind is Kind.OLLAMA or finding.reference or (finding.uri or "").startswith("ollama://"):
        return BackendName.OLLAMA
    entry = (finding.file or finding.path).lower()
    if finding.format is WeightsFormat.GGUF or finding.kind is Kind.GGUF or entry.endswith(".gguf"):
        return BackendName.LLAMACPP
    figures = ModelFigures(
        format=WeightsFormat.SAFETENSORS,
        architecture=finding.architecture,
        weights=(),
        quantization=finding.quantization,
    )
    fitting = (one for one in (BackendName.VLLM, BackendName.SGLANG) if not compatibility.check(figures, one, 1))
    return next(fitting, BackendName.VLLM)


def _source(finding: Discovered, claim: str, backend: BackendName) -> tuple[str, tuple[str, ...]]:
    """source.uri and source.files: the name on the hub where a Model may carry it, else the place on the claim."""
    files = (_glob(finding.file),) if finding.file and backend is BackendName.LLAMACPP else ()
    if finding.uri and finding.uri.startswith(("hf://", "ollama://")):
        own = files if finding.uri.startswith("hf://") else ()
        if _accepted({"uri": finding.uri, **({"files": list(own)} if own else {})}):
            return finding.uri, own
    parts = (finding.path, *([finding.file] if files and finding.file else []))
    path = "/".join(part for part in parts if part != ".")
    reference = f"#{finding.reference}" if backend is BackendName.OLLAMA and finding.reference else ""
    return f"pvc://{claim}/{path}{reference}" if path or reference else f"pvc://{claim}", ()


def _accepted(source: Mapping[str, Any]) -> bool:
    """Whether the API takes it."""
    if re.search(r"/\.\.(/|$)", source["uri"]):  # a rule of the CRD, which the types do not know
        return False
    try:
        Source.model_validate(source)
    except ValidationError:
        return False
    return True


def _glob(file: str) -> str:
    """A pattern that fits a file, or all parts of a split one, and nothing else."""
    split = SPLIT.fullmatch(file)
    if split is None:
        return _escaped(file)
    return f"{_escaped(split['prefix'])}-*-of-{split['parts']}{file[-5:]}"


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


_VAGUE = re.compile(r"(ggml[-_.]?)?(model|weights)?[-_.]?(?P<type>[it]?q\d\w*|b?f(16|32)|mxfp4\w*)?", re.IGNORECASE)
"""Names of files that do not say which model it is: model.gguf, ggml-model-q4_0.gguf, Q8_0.gguf."""


def _words(finding: Discovered) -> list[str]:
    """What the name is made of."""
    scheme, _, rest = (finding.uri or "").partition("://")
    if finding.reference or scheme == "ollama":
        model, _, tag = (finding.reference or rest).rpartition("/")[2].partition(":")
        return [_without_format(model), "" if tag == "latest" else tag]
    repository = rest.partition("@")[0].rpartition("/")[2] if scheme == "hf" else ""
    *folders, last = finding.path.split("/")
    if finding.file or finding.path.lower().endswith(".gguf"):
        holder = repository or (last if finding.file else folders[-1] if folders else "")
        entry = PurePosixPath(finding.file or last).name
        split = SPLIT.fullmatch(entry)
        stem = split["prefix"] if split else entry[: -len(".gguf")]
        vague = _VAGUE.fullmatch(stem)
        return [_without_format(holder) or "model", vague["type"] or ""] if vague else [stem]
    return [repository or last]


def _without_format(name: str) -> str:
    return re.sub(r"[-_.]gguf$", "", name, flags=re.IGNORECASE)


def _name(*words: str) -> str:
    """A valid name of a Model made of these words."""
    text = unicodedata.normalize("NFKD", "-".join(words)).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "model"
    if not name[0].isalpha():
        name = f"model-{name}"
    return name[:LONGEST_NAME].rstrip("-")


def _names(finding: Discovered) -> Iterator[str]:
    """Names for a finding, best first, without end."""
    words = _words(finding)
    yield _name(*words)
    scheme, _, rest = (finding.uri or "").partition("://")
    owner = rest.partition("@")[0].rpartition("/")[0]
    if scheme in ("hf", "ollama") and owner:
        yield _name(owner, *words)
    digest = hashlib.sha256(finding.cursor.encode()).hexdigest()
    for ending in (*([finding.revision.rpartition(":")[2][:7]] if finding.revision else []), digest[:8]):
        yield _ended(words, ending)
    count = 2
    while True:
        yield _ended(words, f"{digest[:8]}-{count}")
        count += 1


def _ended(words: Sequence[str], ending: str) -> str:
    ending = f"-{_name('x', ending)[2:]}"
    return _name(*words)[: LONGEST_NAME - len(ending)].rstrip("-") + ending
