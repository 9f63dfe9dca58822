"""GPUs and their nodes: memory, health, and who uses them."""

from generation.dashboards.build import Dashboard, Query, Section, choice, column, lines, link, number, table

_NODE = '{node=~"$node"}'
_GPU = "{{node}}, {{uuid}}"


def _of_gpu(name: str) -> str:
    return f"max by (node, uuid, product) ({name}{_NODE})"


def _whole(name: str) -> str:
    """Of whole GPUs: the parts that one is cut into are not counted again."""
    return f'max by (node, uuid, product) ({name}{{node=~"$node", uuid!~"MIG-.+"}})'


_NOW = Section(
    "Now",
    (
        number("GPUs", "GPUs and MIG devices that agents see.", f"count({_of_gpu('berth_gpu_healthy')})", width=3),
        number(
            "Unhealthy",
            "GPUs that cannot be given work: docs/gpu-nodes.md says what each reason means.",
            f"count({_of_gpu('berth_gpu_healthy')} == 0)",
            width=3,
            bad_from=1,
        ),
        number(
            "Memory in use",
            "Of all GPUs together.",
            f"sum({_whole('berth_gpu_memory_used_bytes')}) / sum({_whole('berth_gpu_memory_total_bytes')})",
            width=3,
            unit="percentunit",
            none="unknown",
        ),
        number(
            "Foreign memory",
            "Memory of processes that belong to no Pod of the cluster.",
            f"sum({_of_gpu('berth_gpu_foreign_memory_bytes')})",
            width=3,
            unit="bytes",
        ),
        number(
            "XID errors",
            "Within a day, those that programs cause included.",
            f"sum(increase(berth_gpu_xid_errors_total{_NODE}[1d]))",
            width=3,
            bad_from=1,
        ),
        number(
            "Memory errors",
            "That could not be corrected, since the drivers started.",
            f"sum({_of_gpu('berth_gpu_ecc_errors')})",
            width=3,
            bad_from=1,
        ),
        number(
            "Drivers down",
            "Nodes whose driver does not answer, or has no GPU.",
            f"count(max by (node) (berth_gpu_driver_up{_NODE}) == 0)",
            width=3,
            bad_from=1,
        ),
        number(
            "Nodes without a report",
            "Nodes of the cluster with GPUs whose agent does not report.",
            "max(berth_capacity_unreported_nodes)",
            width=3,
            bad_from=1,
        ),
    ),
    height=4,
)
_WHO = Section(
    "Who has which GPU",
    (
        table(
            "Who holds it",
            "Containers that kubelet gave a GPU to, and the memory that their Pods use on it.",
            Query(f"max by (node, uuid, product, namespace, pod) (berth_gpu_holder{_NODE})"),
            Query(f"max by (node, uuid, product, namespace, pod) (berth_gpu_pod_memory_bytes{_NODE})"),
            columns={
                "node": "Node",
                "uuid": "GPU",
                "product": "Product",
                "namespace": "Namespace",
                "pod": "Pod",
                "Value #B": "Memory",
            },
            overrides=(
                column("Memory", unit="bytes"),
                column("Namespace", links=[link("Show its Models", "fleet", namespace="${__value.raw}")]),
            ),
        ),
    ),
)
_MEMORY = Section(
    "Memory",
    (
        lines(
            "GPU memory in use",
            "Share of each GPU's memory, without what the driver keeps. Some servers take nine tenths on purpose.",
            Query(f"{_of_gpu('berth_gpu_memory_used_bytes')} / {_of_gpu('berth_gpu_memory_total_bytes')}", _GPU),
            unit="percentunit",
            defaults={"max": 1},
        ),
        lines(
            "GPU memory of Pods",
            "Of the twenty Pods with the most.",
            Query(
                f"topk(20, sum by (namespace, pod) (max by (node, uuid, namespace, pod) "
                f"(berth_gpu_pod_memory_bytes{_NODE})))",
                "{{namespace}}/{{pod}}",
            ),
            unit="bytes",
        ),
        lines(
            "Memory of the nodes",
            "Share of the host's memory that is in use.",
            Query(
                f"max by (node) (berth_host_memory_used_bytes{_NODE}) "
                f"/ max by (node) (berth_host_memory_total_bytes{_NODE})",
                "{{node}}",
            ),
            unit="percentunit",
            defaults={"max": 1},
        ),
        lines(
            "Foreign GPU memory",
            "Memory of processes in no Pod. Berth counts with it, and cannot free it.",
            Query(f"{_of_gpu('berth_gpu_foreign_memory_bytes')} > 0", _GPU),
            unit="bytes",
        ),
        lines(
            "GPU memory of the driver",
            "What the driver keeps for itself, where it tells that apart.",
            Query(_of_gpu("berth_gpu_memory_reserved_bytes"), _GPU),
            unit="bytes",
        ),
        lines(
            "Free GPU memory",
            "What is neither used nor kept by the driver.",
            Query(
                f"{_of_gpu('berth_gpu_memory_total_bytes')} - {_of_gpu('berth_gpu_memory_used_bytes')} "
                f"- ({_of_gpu('berth_gpu_memory_reserved_bytes')} or 0 * {_of_gpu('berth_gpu_memory_used_bytes')})",
                _GPU,
            ),
            unit="bytes",
        ),
    ),
)
_WORK = Section(
    "Work",
    (
        lines(
            "Utilisation",
            "Share of the time in which a GPU computed.",
            Query(_of_gpu("berth_gpu_utilisation_ratio"), _GPU),
            unit="percentunit",
            defaults={"max": 1},
        ),
        lines("Power", "What each GPU draws.", Query(_of_gpu("berth_gpu_power_watts"), _GPU), unit="watt"),
        lines(
            "Temperature",
            "Of each chip. Hot ones are slowed down by the driver.",
            Query(_of_gpu("berth_gpu_temperature_celsius"), _GPU),
            unit="celsius",
        ),
    ),
)
_HEALTH = Section(
    "Health",
    (
        lines(
            "Healthy",
            "1 while a GPU can be given work.",
            Query(_of_gpu("berth_gpu_healthy"), _GPU),
            defaults={"max": 1},
        ),
        lines(
            "XID errors",
            "Within an hour, by number: NVIDIA's list says what each means.",
            Query(
                f"sum by (node, uuid, xid) (increase(berth_gpu_xid_errors_total{_NODE}[1h])) > 0",
                "{{node}}, {{uuid}}: Xid {{xid}}",
            ),
        ),
        lines(
            "Age of the last look",
            "Agents look every 2 seconds, every 30 where the driver is down. More: the driver hangs in a call.",
            Query(f"time() - max by (node) (berth_agent_last_look_timestamp_seconds{_NODE})", "{{node}}"),
            unit="s",
        ),
        lines(
            "Holders known",
            "1 while kubelet says who was given which GPU.",
            Query(f"max by (node) (berth_gpu_holders_known{_NODE})", "{{node}}"),
            defaults={"max": 1},
        ),
        lines(
            "Reports",
            "What agents write to the API server each second, and what of it failed.",
            Query("sum(rate(berth_agent_status_writes_total[$__rate_interval]))", "written"),
            Query("sum(rate(berth_agent_status_failures_total[$__rate_interval]))", "failed"),
            unit="ops",
        ),
        lines(
            "Memory errors",
            "That could not be corrected, since the driver started.",
            Query(_of_gpu("berth_gpu_ecc_errors"), _GPU),
        ),
    ),
)

GPUS = Dashboard(
    "gpus",
    "Berth / GPUs",
    "GPUs and their nodes: memory, health, and who uses them.",
    (_NOW, _WHO, _MEMORY, _WORK, _HEALTH),
    (choice("node", "Node", "berth_gpu_driver_up", several=True),),
)
