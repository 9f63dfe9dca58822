"""One Model: its phase, its requests, its GPUs, and what its servers say of themselves."""

from generation.dashboards.build import Dashboard, Query, Section, choice, lines, number, phase_colours, phases

_MODEL = '{namespace="$namespace", model="$model"}'
_PODS = '{namespace="$namespace", pod=~"$model-[a-z0-9]+-[a-z0-9]+"}'
_HOLDS = f"max by (node, uuid, pod) (berth_gpu_holder{_PODS})"


def _rate(metric: str) -> str:
    return f"sum(rate({metric}{_MODEL}[$__rate_interval]))"


def _quantile(part: float, metric: str) -> str:
    return f"histogram_quantile({part}, sum by (le) (rate({metric}_bucket{_MODEL}[$__rate_interval])))"


_NOW = Section(
    "Now",
    (
        number(
            "Phase",
            "Where the Model is in its life: docs/lifecycle.md.",
            f"max by (phase) (berth_model_phase{_MODEL})",
            legend="{{phase}}",
            text="name",
            none="there is none",
            overrides=phase_colours(),
        ),
        number(
            "For",
            "How long it has been in this phase.",
            f"time() - max(berth_model_phase_since_timestamp_seconds{_MODEL})",
            unit="s",
            none="unknown",
        ),
        number(
            "Requests that run",
            "In all servers of the Model.",
            f"max(berth_model_requests_running{_MODEL})",
            none="unknown",
        ),
        number(
            "Requests that wait",
            "In all servers of the Model.",
            f"max(berth_model_requests_waiting{_MODEL})",
            none="unknown",
        ),
        number("GPUs", "That its Pods hold.", f"count({_HOLDS})"),
        number(
            "GPU memory",
            "That the processes of its Pods use.",
            f"sum(max by (node, uuid, pod) (berth_gpu_pod_memory_bytes{_PODS}))",
            unit="bytes",
        ),
        phases(
            "Phase",
            "Since when it is as it is, and what was before.",
            Query(f"max by (phase) (berth_model_phase{_MODEL})", "{{phase}}"),
        ),
    ),
    height=5,
)
_LOAD = Section(
    "Requests and GPUs",
    (
        lines(
            "Requests",
            "As the operator asked the servers. Missing while not all of them tell.",
            Query(f"max(berth_model_requests_running{_MODEL})", "running"),
            Query(f"max(berth_model_requests_waiting{_MODEL})", "waiting"),
        ),
        lines(
            "GPU memory by Pod",
            "What the processes of each Pod use on each GPU.",
            Query(f"max by (pod, node, uuid) (berth_gpu_pod_memory_bytes{_PODS})", "{{pod}} on {{node}}, {{uuid}}"),
            unit="bytes",
        ),
        lines(
            "Utilisation of its GPUs",
            "Share of the time in which a GPU that a Pod holds computed.",
            Query(
                f"{_HOLDS} * on (node, uuid) group_left () max by (node, uuid) (berth_gpu_utilisation_ratio)",
                "{{pod}} on {{node}}, {{uuid}}",
            ),
            unit="percentunit",
            defaults={"max": 1},
        ),
    ),
)
_SERVERS = Section(
    "What its servers say, where Prometheus scrapes them",
    (
        lines(
            "Tokens written",
            "Tokens a second that all servers generate.",
            Query(_rate("vllm:generation_tokens_total"), "vLLM"),
            Query(_rate("sglang:generation_tokens_total"), "SGLang"),
            Query(_rate("llamacpp:tokens_predicted_total"), "llama.cpp"),
            Query(_rate("tgi_request_generated_tokens_sum"), "TGI"),
            width=6,
        ),
        lines(
            "Tokens read",
            "Tokens of prompts a second.",
            Query(_rate("vllm:prompt_tokens_total"), "vLLM"),
            Query(_rate("sglang:prompt_tokens_total"), "SGLang"),
            Query(_rate("llamacpp:prompt_tokens_total"), "llama.cpp"),
            width=6,
        ),
        lines(
            "Time to the first token",
            "Half of the requests, and 19 of 20, see their first token sooner than that.",
            Query(_quantile(0.5, "vllm:time_to_first_token_seconds"), "vLLM, half"),
            Query(_quantile(0.95, "vllm:time_to_first_token_seconds"), "vLLM, 19 of 20"),
            Query(_quantile(0.5, "sglang:time_to_first_token_seconds"), "SGLang, half"),
            Query(_quantile(0.95, "sglang:time_to_first_token_seconds"), "SGLang, 19 of 20"),
            width=6,
            unit="s",
        ),
        lines(
            "Whole requests",
            "Half of the requests, and 19 of 20, take less than that.",
            Query(_quantile(0.5, "vllm:e2e_request_latency_seconds"), "vLLM, half"),
            Query(_quantile(0.95, "vllm:e2e_request_latency_seconds"), "vLLM, 19 of 20"),
            Query(_quantile(0.5, "tgi_request_duration"), "TGI, half"),
            Query(_quantile(0.95, "tgi_request_duration"), "TGI, 19 of 20"),
            width=6,
            unit="s",
        ),
        lines(
            "Cache of keys and values",
            "How full it is. Near 100 % requests wait, or are preempted and computed anew.",
            Query(f"max by (pod) (vllm:kv_cache_usage_perc{_MODEL})", "{{pod}}"),
            Query(f"max by (pod) (sglang:token_usage{_MODEL})", "{{pod}}"),
            width=6,
            unit="percentunit",
            defaults={"max": 1},
        ),
        lines(
            "Prefixes found in the cache",
            "Share of the tokens of prompts that need not be computed again.",
            Query(f"{_rate('vllm:prefix_cache_hits_total')} / {_rate('vllm:prefix_cache_queries_total')}", "vLLM"),
            width=6,
            unit="percentunit",
            defaults={"max": 1},
        ),
        lines(
            "Wait in the server",
            "How long 19 of 20 requests wait at most before they are worked on.",
            Query(_quantile(0.95, "vllm:request_queue_time_seconds"), "vLLM"),
            Query(_quantile(0.95, "tgi_request_queue_duration"), "TGI"),
            width=6,
            unit="s",
        ),
        lines(
            "Preempted requests",
            "Requests a second that vLLM throws out of its cache and computes anew: it has too little memory.",
            Query(_rate("vllm:num_preemptions_total"), "vLLM"),
            width=6,
            unit="reqps",
        ),
    ),
)

MODEL = Dashboard(
    "model",
    "Berth / Model",
    "One Model: its phase, its requests, its GPUs, and what its servers say of themselves.",
    (_NOW, _LOAD, _SERVERS),
    (
        choice("namespace", "Namespace", "berth_model_phase", several=False),
        choice("model", "Model", 'berth_model_phase{namespace="$namespace"}', several=False),
    ),
)
