"""How the server of a Model is started: knobs, arguments, environment, and the custom server."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth.api.base import ATOMIC, SET, ApiType, HttpPath, Name, Reason, Rule, matching

Token = Annotated[
    str,
    matching(r"^[A-Za-z0-9_.-]+$", "this is not one word: use letters, digits, dots, - and _", max_length=63),
]
"""One word that becomes the value of a flag."""


class KeySelector(ApiType):
    """A key of a Secret or ConfigMap in the same namespace."""

    model_config = ATOMIC

    name: Name
    """Name of the object."""
    key: Annotated[
        str,
        matching(r"^[-._a-zA-Z0-9]+$", "this is no key: use letters, digits, -, _ and dots", max_length=253),
    ]
    """Key in the object."""
    optional: bool | None = None
    """Whether the Pod may start without it."""


class FieldSelector(ApiType):
    """A field of the Pod."""

    model_config = ATOMIC

    field_path: Annotated[str, Field(min_length=1, max_length=253)]
    """Path of the field, for example `status.podIP`."""


class EnvironmentSource(ApiType):
    """Where the value of an environment variable comes from."""

    rules: ClassVar = (
        Rule(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].filter(x, x).size() == 1",
            "valueFrom of an environment variable names one source: secretKeyRef, configMapKeyRef or fieldRef",
        ),
    )

    secret_key_ref: KeySelector | None = None
    """A key of a Secret."""
    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap."""
    field_ref: FieldSelector | None = None
    """A field of the Pod."""


class EnvironmentVariable(ApiType):
    """One environment variable of the server."""

    rules: ClassVar = (
        Rule(
            "!(has(self.value) && has(self.valueFrom))",
            "an environment variable has either value or valueFrom: remove one of them",
            ".value",
            Reason.FORBIDDEN,
        ),
    )

    name: Annotated[
        str,
        matching(
            r"^[-._a-zA-Z][-._a-zA-Z0-9]*$",
            "this is no name of an environment variable: use letters, digits, _, - and dots, no digit first",
            min_length=1,
            max_length=253,
        ),
    ]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Its value. Put tokens into a Secret and use valueFrom."""
    value_from: EnvironmentSource | None = None
    """Where its value comes from."""


class EnvironmentFromObject(ApiType):
    """A Secret or ConfigMap whose name is known."""

    model_config = ATOMIC

    name: Name
    """Name of the object."""
    optional: bool | None = None
    """Whether the Pod may start without it."""


class EnvironmentFrom(ApiType):
    """All keys of a Secret or ConfigMap as environment variables."""

    rules: ClassVar = (
        Rule(
            "has(self.secretRef) != has(self.configMapRef)",
            "an entry of serving.envFrom names one object: secretRef or configMapRef",
        ),
    )

    prefix: (
        Annotated[
            str,
            matching(
                r"^[-._a-zA-Z][-._a-zA-Z0-9]*$",
                "this begins no name of an environment variable: use letters, digits, _, - and dots, no digit first",
                max_length=253,
            ),
        ]
        | None
    ) = None
    """Put before each key."""
    secret_ref: EnvironmentFromObject | None = None
    """The Secret."""
    config_map_ref: EnvironmentFromObject | None = None
    """The ConfigMap."""


class Serving(ApiType):
    """How the server serves. The portable knobs are translated into the backend's own flags."""

    context_length: Annotated[int, Field(ge=1)] | None = None
    """Longest context of one request, in tokens; the model's own when omitted."""
    max_concurrency: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Requests that are worked on at the same time."""
    quantization: Token | None = None
    """Quantization method in the backend's own words, for example `awq` or `fp8`."""
    dtype: Token | None = None
    """Data type of the weights in memory, for example `bfloat16`."""
    served_names: (
        Annotated[
            list[
                Annotated[
                    str,
                    matching(
                        r"^[^\s,]+$",
                        "serving.servedNames are names that requests use: leave out spaces and commas",
                        max_length=253,
                    ),
                ]
            ],
            Field(min_length=1, max_length=16, json_schema_extra=SET),
        ]
        | None
    ) = None
    """Names that requests use for the model; the Model's name when omitted."""
    image: (
        Annotated[
            str,
            matching(
                r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
                "serving.image is no reference of an image: write for example registry.example.com/team/server:1.2",
                max_length=512,
            ),
        ]
        | None
    ) = None
    """Container image of the server; the backend's pinned one when omitted."""
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=128)] | None = None
    """Further arguments, put after those that Berth sets (servers take the last of a repeated flag)."""
    env: (
        Annotated[
            list[EnvironmentVariable],
            Field(
                max_length=128,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """Further environment variables; they win over those that Berth sets."""
    env_from: Annotated[list[EnvironmentFrom], Field(max_length=32)] | None = None
    """Secrets and ConfigMaps whose keys become environment variables."""


class CustomMetrics(ApiType):
    """How to see whether a custom server is busy: names of metrics in Prometheus format."""

    path: HttpPath = "/metrics"
    """Path of the metrics."""
    running: Annotated[str, Field(max_length=256)]
    """Metric with the number of requests that are worked on."""
    waiting: Annotated[str, Field(max_length=256)] | None = None
    """Metric with the number of requests that wait."""
    worked: Annotated[str, Field(max_length=256)] | None = None
    """Counter that grows with every request. With it, requests that come and go between two looks are seen too."""


class Custom(ApiType):
    """Any GPU container, such as ComfyUI or a speech server."""

    command: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=128)] | None = None
    """Command instead of the image's entrypoint."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port that the server listens on."""
    protocol_path: HttpPath | None = None
    """Path of the API, appended to status.url."""
    metrics: CustomMetrics | None = None
    """How to see whether the server is busy; without it the load is unknown and a stop waits the whole drain time."""
