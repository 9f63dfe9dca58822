"""`berth operator`, and each of its flags."""

import sys
from pathlib import Path

import click

from berth.cli.logs import configure_logging


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Default: in-cluster.")
@click.option("--namespace", help="Serve this namespace only. Default: all.")
@click.option(
    "--lease-namespace",
    default="berth-system",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Where the Lease of the election is.",
)
@click.option(
    "--config-map",
    default="berth-operator",
    show_default=True,
    help="ConfigMap beside the Lease in which `berth uninstall` has all Models stopped.",
)
@click.option(
    "--host",
    default="0.0.0.0",  # noqa: S104 - probes and scrapers reach a Pod from outside
    show_default=True,
    help="Address of /healthz, /readyz and /metrics.",
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    help="Port of /healthz, /readyz and /metrics; 0 takes a free one.",
)
@click.option(
    "--workers",
    default=32,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Models worked on side by side.",
)
@click.option(
    "--sweep-interval",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds between comparisons of the memory with the API server.",
)
@click.option(
    "--load-interval",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds between questions to a server for its load.",
)
@click.option(
    "--load-settle",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds without requests until a Busy Model is Idle, and without an answer until its load is Unknown.",
)
@click.option(
    "--orphans-policy",
    default="Report",
    show_default=True,
    type=click.Choice(["Report", "Delete"]),
    help="What becomes of objects that Berth made and that belong to nobody. Claims are never deleted.",
)
@click.option(
    "--orphans-grace",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that an object has to belong to nobody before that.",
)
@click.option(
    "--crash-budget",
    default=5,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Failures in a row until a Model is Failed: restarts of its server, and Pods that were lost.",
)
@click.option(
    "--pod-retry",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds that the place of a second lost Pod in a row stays empty; they double with each.",
)
@click.option(
    "--image-pull-patience",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that an image may fail to be pulled.",
)
@click.option(
    "--config-patience",
    default=300.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that a Secret or ConfigMap may be missing.",
)
@click.option(
    "--refusal-interval",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds until a refused object is tried again.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="BACKEND=IMAGE",
    callback=lambda _context, _option, values: _parse_images(values),
    help="Image of a backend's servers instead of the pinned one, for example from a mirror. Repeatable.",
)
@click.option(
    "--image-pull-secret",
    "image_pull_secrets",
    multiple=True,
    metavar="NAME",
    help="Secret in the Models' namespaces with which servers' images are pulled. Repeatable.",
)
@click.option(
    "--scraper",
    metavar="NAMESPACE/LABEL=VALUE",
    callback=lambda _context, _option, value: _parse_peer(value),
    help="Pods that may always read the metrics of servers, such as monitoring/app.kubernetes.io/name=prometheus.",
)
@click.option(
    "--provisioner-image",
    envvar="BERTH_IMAGE",
    metavar="IMAGE",
    help="Berth's own image, in which downloads run. Default: the published one of this version.",
)
@click.option(
    "--ephemeral-max",
    default="20Gi",
    show_default=True,
    callback=lambda _context, _option, value: _parse_quantity(value),
    help="Most that weights on a Pod's own volume may have; more needs a ModelCache.",
)
@click.option(
    "--download-retry",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds until a failed download is tried again; they double with each failure.",
)
@click.option(
    "--gpu-headroom",
    default=512,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="MIB",
    help="Memory of each GPU that is never given away.",
)
@click.option(
    "--loads-per-node",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Servers with GPUs that may load on one node at once.",
)
@click.option(
    "--loads-per-cluster",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    help="Servers with GPUs that may load at once in all.",
)
@click.option(
    "--slot-timeout",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds after which a server that still loads holds up no others.",
)
@click.option(
    "--hold-for",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds for which nobody may pass a Model that is first in the queue of its nodes.",
)
@click.option(
    "--no-node-after",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds after which a Model that no node can ever hold is Failed; it goes on when one appears.",
)
@click.option(
    "--unschedulable-after",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds after which a server that the scheduler finds no node for goes back into the queue.",
)
@click.option(
    "--release-deadline",
    default=120.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds in which the GPU memory of a server that has ended is expected to become free.",
)
@click.option(
    "--priority-class",
    default="",
    metavar="NAME",
    help="PriorityClass of server Pods; it should have preemptionPolicy Never. Default: the cluster's.",
)
@click.option(
    "--allow-unsafe-pod-templates",
    is_flag=True,
    help="Let spec.podTemplate set hostPath, privileged and the like.",
)
@click.option("--log-format", default="json", show_default=True, type=click.Choice(["json", "text"]))
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def operator(
    kubeconfig: Path | None,
    namespace: str | None,
    lease_namespace: str,
    config_map: str,
    host: str,
    port: int,
    workers: int,
    sweep_interval: float,
    load_interval: float,
    load_settle: float,
    orphans_policy: str,
    orphans_grace: float,
    crash_budget: int,
    pod_retry: float,
    image_pull_patience: float,
    config_patience: float,
    refusal_interval: float,
    images: dict[str, str],
    image_pull_secrets: tuple[str, ...],
    scraper: tuple[str, str, str] | None,
    provisioner_image: str | None,
    ephemeral_max: str,
    download_retry: float,
    gpu_headroom: int,
    loads_per_node: int,
    loads_per_cluster: int,
    slot_timeout: float,
    hold_for: float,
    no_node_after: float,
    unschedulable_after: float,
    release_deadline: float,
    priority_class: str,
    allow_unsafe_pod_templates: bool,
    log_format: str,
    log_level: str,
) -> None:
    """Reconcile Models into Deployments and Services."""
    import asyncio

    from berth.cluster.connection import ConnectError
    from berth.cluster.errors import ApiError
    from berth.controllers.operator import Operator, OperatorSettings
    from berth.planning.capacity.policy import CapacityPolicy
    from berth.planning.policy import OrphansPolicy, Policy
    from berth.planning.render_settings import PUBLISHED_IMAGE, Peer, RenderSettings

    configure_logging(log_format, log_level)
    policy = Policy(
        render=RenderSettings(
            operator=Peer(lease_namespace, {"app.kubernetes.io/name": "berth"}),
            images=images,
            image_pull_secrets=image_pull_secrets,
            scraper=Peer(scraper[0], {scraper[1]: scraper[2]}) if scraper is not None else None,
            provisioner_image=provisioner_image or PUBLISHED_IMAGE,
            ephemeral_max=ephemeral_max,
            priority_class=priority_class,
            allow_unsafe_pod_template=allow_unsafe_pod_templates,
        ),
        orphans=OrphansPolicy(orphans_policy),
        orphans_grace=orphans_grace,
        crash_budget=crash_budget,
        pod_retry_first=pod_retry,
        image_pull_patience=image_pull_patience,
        config_patience=config_patience,
        refusal_interval=refusal_interval,
        retry_first=download_retry,
    )
    settings = OperatorSettings(
        kubeconfig=kubeconfig,
        namespace=namespace,
        lease_namespace=lease_namespace,
        config_map=config_map,
        host=host,
        port=port,
        workers=workers,
        sweep_interval=sweep_interval,
        load_interval=load_interval,
        load_settle=load_settle,
        policy=policy,
        capacity=CapacityPolicy(
            headroom_mib=gpu_headroom,
            loads_per_node=loads_per_node,
            loads_per_cluster=loads_per_cluster,
            slot_timeout=slot_timeout,
            hold_for=hold_for,
            no_node_after=no_node_after,
            unschedulable_after=unschedulable_after,
            release_deadline=release_deadline,
        ),
    )
    try:
        asyncio.run(Operator(settings).run())
    except (ApiError, ConnectError) as error:
        sys.exit(f"berth: the Kubernetes API cannot be used: {error}")


def _parse_peer(value: str | None) -> tuple[str, str, str] | None:
    """Namespace, label and its value of Pods."""
    if value is None:
        return None
    namespace, _, label = value.partition("/")
    name, _, wanted = label.partition("=")
    if not (namespace and name and wanted):
        raise click.BadParameter(f"{value!r}: write NAMESPACE/LABEL=VALUE")
    return namespace, name, wanted


def _parse_quantity(value: str) -> str:
    from berth.api.base import canonical_quantity

    try:
        return canonical_quantity(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _parse_images(values: tuple[str, ...]) -> dict[str, str]:
    from berth.api.model import BackendName

    images = {}
    for value in values:
        name, found, image = value.partition("=")
        if not found or not image or name not in set(BackendName):
            raise click.BadParameter(f"{value!r} is not BACKEND=IMAGE with a backend of {', '.join(BackendName)}")
        images[name] = image
    return images
