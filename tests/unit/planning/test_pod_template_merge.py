"""podTemplate is merged last, by keys; what is unsafe or misshapen is refused by its path."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.model import ModelSpec
from berth.planning.errors import InvalidSpecError
from berth.planning.pod_template import render_pod_template
from berth.planning.render_settings import RenderSettings

SPEC: dict[str, Any] = {"backend": "llamacpp", "source": {"uri": "pvc://weights/a.gguf"}}


def render(partial: Any, *, unsafe: bool = False, **fields: Any) -> dict[str, Any]:
    # Not validated: the CRD lets any object through, and so does this.
    spec = ModelSpec.model_validate({**SPEC, **fields}).model_copy(update={"pod_template": partial})
    return render_pod_template("chat", "models", spec, RenderSettings(allow_unsafe_pod_template=unsafe))


def pod(partial_spec: Any, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = render({"spec": partial_spec}, **fields)["spec"]
    return found


def server(partial_container: dict[str, Any], **fields: Any) -> dict[str, Any]:
    containers = pod({"containers": [{"name": "server", **partial_container}]}, **fields)["containers"]
    found: dict[str, Any] = next(c for c in containers if c["name"] == "server")
    return found


def refused(partial: Any) -> InvalidSpecError:
    with pytest.raises(InvalidSpecError) as error:
        render(partial)
    return error.value


# ---- merging -------------------------------------------------------------------------------------------------


def test_an_empty_template_changes_nothing() -> None:
    plain = render(None)
    assert render({}) == render({"spec": {}}) == render({"metadata": None, "spec": None}) == plain


def test_labels_and_annotations_are_added() -> None:
    merged = render({"metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}}})["metadata"]
    assert merged["labels"]["team"] == "a"
    assert merged["labels"]["berth.dev/model"] == "chat"
    assert merged["annotations"]["x"] == "y"


def test_containers_merge_by_name_and_the_server_stays_first() -> None:
    containers = pod({"containers": [{"name": "proxy", "image": "p"}, {"name": "server", "tty": True}]})["containers"]
    assert [container["name"] for container in containers] == ["server", "proxy"]
    assert containers[0]["tty"] is True
    assert containers[0]["image"].startswith("ghcr.io/")


def test_variables_mounts_and_ports_merge_by_their_keys() -> None:
    merged = server(
        {
            "env": [{"name": "HOME", "value": "/x"}, {"name": "NEW", "value": "1"}],
            "volumeMounts": [{"mountPath": "/tmp", "name": "scratch"}, {"mountPath": "/new", "name": "scratch"}],
            "ports": [{"containerPort": 8080, "protocol": "UDP"}, {"containerPort": 9000}],
        }
    )
    assert merged["env"] == [{"name": "HOME", "value": "/x"}, {"name": "NEW", "value": "1"}]
    assert {mount["mountPath"]: mount["name"] for mount in merged["volumeMounts"]} == {
        "/home/server": "home",
        "/tmp": "scratch",
        "/models": "models",
        "/new": "scratch",
    }
    assert [port.get("name") for port in merged["ports"]] == ["http", None, None]


def test_arguments_are_replaced_as_a_whole() -> None:
    assert server({"args": ["--help"]})["args"] == ["--help"]


def test_a_variable_has_one_source() -> None:
    source = {"fieldRef": {"fieldPath": "status.podIP"}}
    assert server({"env": [{"name": "HOME", "valueFrom": source}]})["env"] == [{"name": "HOME", "valueFrom": source}]


def test_a_probe_has_one_action() -> None:
    probe = server({"startupProbe": {"exec": {"command": ["true"]}}})["startupProbe"]
    assert "httpGet" not in probe
    assert probe["periodSeconds"] == 2
    hook = server({"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}})["lifecycle"]["preStop"]
    assert hook == {"exec": {"command": ["true"]}}


def test_a_volume_has_one_source() -> None:
    volumes = {
        v["name"]: v
        for v in pod({"volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "h"}}]})["volumes"]
    }
    assert volumes["home"] == {"name": "home", "persistentVolumeClaim": {"claimName": "h"}}
    sized = pod({"volumes": [{"name": "home", "emptyDir": {"sizeLimit": "1024Mi"}}]})["volumes"]
    assert {"name": "home", "emptyDir": {"sizeLimit": "1Gi"}} in sized


def test_null_takes_a_field_away() -> None:
    assert "livenessProbe" not in server({"livenessProbe": None})
    assert "lifecycle" not in server({"lifecycle": None})
    assert "nothing" not in server({"nothing": None})


def test_an_element_can_be_taken_out() -> None:
    volumes = pod({"volumes": [{"name": "tmp", "$patch": "delete"}, {"name": "none", "$patch": "delete"}]})["volumes"]
    assert "tmp" not in [volume["name"] for volume in volumes]


def test_tolerations_are_appended_once() -> None:
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    mine = {"key": "mine", "operator": "Exists"}
    assert pod({"tolerations": [gpu, mine]})["tolerations"] == [gpu, mine]


def test_required_node_affinity_has_to_hold_besides_the_products() -> None:
    def term(key: str) -> dict[str, Any]:
        return {"matchExpressions": [{"key": key, "operator": "Exists"}]}

    required = "requiredDuringSchedulingIgnoredDuringExecution"
    mine = {"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [term("a"), term("b")]}}}}
    terms = pod(mine, gpus={"products": ["X"]})["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    keys = [[expression["key"] for expression in term["matchExpressions"]] for term in terms]
    assert keys == [["nvidia.com/gpu.product", "a"], ["nvidia.com/gpu.product", "b"]]
    assert pod(mine)["affinity"] == mine["affinity"]


def test_quantities_anywhere_become_canonical() -> None:
    merged = pod(
        {
            "overhead": {"memory": "1024Ki"},
            "resources": {"limits": {"cpu": 0.5}},
            "initContainers": [{"name": "i", "image": "i", "resources": {"requests": {"cpu": "100u", "memory": 1024}}}],
            "containers": [
                {
                    "name": "server",
                    "env": [
                        {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0.001"}}}
                    ],
                }
            ],
            "volumes": [
                {
                    "name": "v",
                    "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "2048Mi"}}}}},
                }
            ],
        }
    )
    assert merged["overhead"] == {"memory": "1Mi"}
    assert merged["resources"] == {"limits": {"cpu": "500m"}}
    assert merged["initContainers"][-1]["resources"]["requests"] == {"cpu": "1m", "memory": "1024"}
    variable = next(v for v in merged["containers"][0]["env"] if v["name"] == "A")
    assert variable["valueFrom"]["resourceFieldRef"]["divisor"] == "1m"
    claim = next(v for v in merged["volumes"] if v["name"] == "v")["ephemeral"]["volumeClaimTemplate"]
    assert claim["spec"]["resources"]["requests"] == {"storage": "2Gi"}


def test_a_wrong_quantity_names_its_path() -> None:
    error = refused({"spec": {"volumes": [{"name": "home", "emptyDir": {"sizeLimit": "big"}}]}})
    assert error.field == "podTemplate.spec.volumes[0].emptyDir.sizeLimit"


# ---- what Berth needs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["other", None])
@pytest.mark.parametrize("label", ["berth.dev/model", "app.kubernetes.io/component"])
def test_the_labels_that_find_the_pods_stay(label: str, value: str | None) -> None:
    assert refused({"metadata": {"labels": {label: value}}}).field == f"podTemplate.metadata.labels[{label}]"


def test_the_labels_cannot_be_removed_together() -> None:
    assert refused({"metadata": {"labels": None}}).field == "podTemplate.metadata.labels[berth.dev/model]"


def test_the_server_and_its_port_stay() -> None:
    gone = {"spec": {"containers": [{"name": "server", "$patch": "delete"}]}}
    assert refused(gone).field == "podTemplate.spec.containers[name=server]"
    assert refused({"spec": {"containers": None}}).field == "podTemplate.spec.containers[name=server]"
    portless = {"spec": {"containers": [{"name": "server", "ports": None}]}}
    assert refused(portless).field == "podTemplate.spec.containers[name=server].ports"


# ---- safety --------------------------------------------------------------------------------------------------

UNSAFE: list[tuple[dict[str, Any], str]] = [
    ({"hostNetwork": True}, "hostNetwork"),
    ({"hostPID": True}, "hostPID"),
    ({"hostIPC": True}, "hostIPC"),
    ({"serviceAccountName": "admin"}, "serviceAccountName"),
    ({"automountServiceAccountToken": True}, "automountServiceAccountToken"),
    (
        {"volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
        "volumes[0].projected.sources[0].serviceAccountToken",
    ),
    ({"serviceAccount": "admin"}, "serviceAccount"),
    ({"nodeName": "node-1"}, "nodeName"),
    ({"volumes": [{"name": "a"}, {"name": "tmp", "hostPath": {"path": "/"}}]}, "volumes[1].hostPath"),
    ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "securityContext.windowsOptions.hostProcess"),
    *(
        ({kind: [{"name": "a"}, {"name": "server", **container}]}, f"{kind}[1].{path}")
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for container, path in (
            ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
            ({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, "securityContext.capabilities.add"),
            (
                {"securityContext": {"windowsOptions": {"hostProcess": True}}},
                "securityContext.windowsOptions.hostProcess",
            ),
            ({"ports": [{"containerPort": 1, "hostPort": 80}]}, "ports[0].hostPort"),
        )
    ),
]


@pytest.mark.parametrize(("partial", "path"), UNSAFE, ids=[path for _, path in UNSAFE])
def test_what_takes_a_pod_out_of_its_sandbox_is_refused_by_its_path(partial: dict[str, Any], path: str) -> None:
    error = refused({"spec": partial})
    assert error.field == f"podTemplate.spec.{path}"
    assert "--allow-unsafe-pod-template" in error.message


@pytest.mark.parametrize("partial", [partial for partial, _ in UNSAFE], ids=[path for _, path in UNSAFE])
def test_an_operator_flag_allows_it(partial: dict[str, Any]) -> None:
    assert render({"spec": partial}, unsafe=True)


@pytest.mark.parametrize("partial", [{"hostNetwork": False}, {"hostIPC": None}, {"nodeName": ""}])
def test_saying_no_to_the_unsafe_is_fine(partial: dict[str, Any]) -> None:
    assert render({"spec": partial})


# ---- shapes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partial", "path"),
    [
        ("text", "podTemplate"),
        ({"kind": "Pod"}, "podTemplate.kind"),
        ({"spec": []}, "podTemplate.spec"),
        ({"spec": "text"}, "podTemplate.spec"),
        ({"metadata": "text"}, "podTemplate.metadata"),
        ({"metadata": {"name": "x"}}, "podTemplate.metadata.name"),
        ({"metadata": {"labels": []}}, "podTemplate.metadata.labels"),
        ({"metadata": {"labels": {"a": 1}}}, "podTemplate.metadata.labels[a]"),
        ({"metadata": {"annotations": {"a": True}}}, "podTemplate.metadata.annotations[a]"),
        ({"spec": {"containers": {"name": "server"}}}, "podTemplate.spec.containers"),
        ({"spec": {"containers": ["server"]}}, "podTemplate.spec.containers[0]"),
        ({"spec": {"containers": [{"image": "x"}]}}, "podTemplate.spec.containers[0].name"),
        ({"spec": {"containers": [{"name": "server", "env": {"A": "b"}}]}}, "podTemplate.spec.containers[0].env"),
        ({"spec": {"containers": [{"name": "server", "args": "--x"}]}}, "podTemplate.spec.containers[0].args"),
        (
            {"spec": {"containers": [{"name": "server", "ports": [{}]}]}},
            "podTemplate.spec.containers[0].ports[0].containerPort",
        ),
        (
            {"spec": {"containers": [{"name": "server", "resources": {"limits": {"cpu": True}}}]}},
            "podTemplate.spec.containers[0].resources.limits[cpu]",
        ),
        (
            {"spec": {"containers": [{"name": "server", "securityContext": "privileged"}]}},
            "podTemplate.spec.containers[0].securityContext",
        ),
        ({"spec": {"volumes": [{"name": "a", "emptyDir": "yes"}]}}, "podTemplate.spec.volumes[0].emptyDir"),
        ({"spec": {"tolerations": {"key": "a"}}}, "podTemplate.spec.tolerations"),
        ({"spec": {"nodeSelector": "gpu"}}, "podTemplate.spec.nodeSelector"),
        ({"spec": {"affinity": {"nodeAffinity": []}}}, "podTemplate.spec.affinity.nodeAffinity"),
        ({"spec": {"$patch": "replace"}}, "podTemplate.spec.$patch"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_refused_by_its_path(partial: Any, path: str) -> None:
    assert refused(partial).field == path


def test_the_message_tells_the_way_out() -> None:
    assert refused({"metadata": {"labels": {"a": 1}}}).message == "has to be a text, not a number: put it in quotes"


FIELDS = st.sampled_from(
    ["metadata", "spec", "labels", "containers", "initContainers", "volumes", "env", "name", "resources", "limits",
     "securityContext", "affinity", "nodeAffinity", "tolerations", "ports", "emptyDir", "image", "args", "$patch",
     "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms", "startupProbe", "valueFrom", "divisor",
     "resourceFieldRef", "projected", "sources", "ephemeral", "volumeClaimTemplate", "overhead", "hostPath"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["server", "tmp", "1Gi", "delete", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(partial=st.dictionaries(FIELDS, ANYTHING, max_size=2) | st.fixed_dictionaries({"spec": ANYTHING}))
def test_whatever_is_written_is_rendered_or_refused_by_a_path(partial: dict[str, Any]) -> None:
    before = copy.deepcopy(partial)
    rendered, error = None, None
    try:
        rendered = render(partial)
    except InvalidSpecError as refusal:
        error = refusal
    assert partial == before
    if rendered is not None:
        assert rendered["metadata"]["labels"]["berth.dev/model"] == "chat"
        assert any(container["name"] == "server" for container in rendered["spec"]["containers"])
    else:
        assert error is not None
        assert error.field.startswith("podTemplate")
