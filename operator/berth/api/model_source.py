"""Where weights come from: what a Model loads, and what a ModelCache keeps."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth.api.base import ATOMIC, SET, ApiType, Name, Reason, Rule, matching


class SecretReference(ApiType):
    """A Secret in the Model's namespace. Berth never reads it; only Pods do."""

    model_config = ATOMIC

    name: Name
    """Name of the Secret."""


class ArtifactSource(ApiType):
    """One artifact: a source, and which of its files are taken."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.sha256) || self.uri.startsWith('https://')",
            "sha256 is for a single https:// file: remove it (hubs publish their own digests) or change the uri",
            ".sha256",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.files) || self.uri.matches('^(hf|s3|pvc)://')",
            "files selects files of an hf://, s3:// or pvc:// source: remove it for this uri",
            ".files",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.secretRef) || !self.uri.startsWith('pvc://')",
            "secretRef has no use for pvc://, a claim needs no token: remove it",
            ".secretRef",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.secretRef) || !self.uri.startsWith('oci://')",
            "secretRef has no use for oci://: name the pull secret in podTemplate.spec.imagePullSecrets",
            ".secretRef",
            Reason.FORBIDDEN,
        ),
    )

    uri: Annotated[
        str,
        matching(
            r"^(hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(@[^@\s]+)?|ollama://[A-Za-z0-9][A-Za-z0-9._:/-]*"
            r"|https://[^/\s]+/[^\s]+|s3://[a-z0-9][a-z0-9.-]*(/[^\s]*)?"
            r"|pvc://[a-z0-9][a-z0-9.-]*(/[^\s]*)?|oci://[A-Za-z0-9][A-Za-z0-9._:/@-]*(#[^\s]*)?)$",
            "uri names no source that Berth knows: write hf://org/repo, ollama://name:tag, "
            "https://host/path, s3://bucket/prefix, pvc://claim/path or oci://image",
            max_length=1024,
        ),
        Rule(
            "!self.matches('^https://[^/]*@')",
            "uri holds a password that all can read: put it into a Secret and name that in secretRef",
        ),
        Rule(
            "!self.matches('/[.][.](/|$)')",
            "uri must not lead out of its folder: write the path without '..'",
        ),
    ]
    """`hf://org/repo[@revision]`, `ollama://name:tag`, `https://…`, `s3://bucket/prefix`, `pvc://claim/path` or `oci://image`."""
    files: (
        Annotated[
            list[
                Annotated[
                    str,
                    Field(min_length=1, max_length=256),
                    Rule(
                        "!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
                        "files are relative to the source: begin without / and leave out '..'",
                    ),
                ]
            ],
            Field(min_length=1, max_length=32, json_schema_extra=SET),
        ]
        | None
    ) = None
    """Globs of the files to take, for example `*Q4_K_M.gguf`; all when omitted."""
    sha256: (
        Annotated[
            str,
            matching(
                r"^[a-f0-9]{64}$",
                "sha256 has 64 digits, each 0-9 or a-f: copy what sha256sum prints",
                max_length=64,
            ),
        ]
        | None
    ) = None
    """Expected digest of a single file, in lower-case hexadecimal digits."""
    secret_ref: SecretReference | None = None
    """Secret with the token or keys of the source."""


class Source(ArtifactSource):
    """Where the weights come from. They must be in a format that the backend loads; nothing is converted."""

    rules: ClassVar = (
        *ArtifactSource.rules,
        Rule(
            "!has(self.cache) || !self.uri.matches('^(pvc|oci)://')",
            "cache keeps downloads, and pvc:// and oci:// are mounted without one: remove it",
            ".cache",
            Reason.FORBIDDEN,
        ),
    )

    cache: Name | None = None
    """The ModelCache that keeps the weights; the one named `default` when omitted, else an ephemeral volume."""
