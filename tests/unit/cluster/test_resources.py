"""Where objects live in the API."""

import pytest

from berth.cluster import resources


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (resources.PODS, (), "/api/v1/pods"),
        (resources.PODS, ("n",), "/api/v1/namespaces/n/pods"),
        (resources.PODS, ("n", "p"), "/api/v1/namespaces/n/pods/p"),
        (resources.PODS, ("n", "p", "status"), "/api/v1/namespaces/n/pods/p/status"),
        (resources.NODES, (None, "a"), "/api/v1/nodes/a"),
        (resources.DEPLOYMENTS, ("n", "d", "scale"), "/apis/apps/v1/namespaces/n/deployments/d/scale"),
        (resources.MODELS, ("n", "m"), "/apis/berth.dev/v1alpha1/namespaces/n/models/m"),
        (resources.CONFIG_MAPS, ("n", "a:b c?"), "/api/v1/namespaces/n/configmaps/a%3Ab%20c%3F"),
    ],
)
def test_paths(resource: resources.ResourceType, arguments: tuple[str | None, ...], path: str) -> None:
    assert resource.path(*arguments) == path


@pytest.mark.parametrize(
    ("resource", "arguments"),
    [
        (resources.PODS, (None, "p")),  # or it would be taken for another object's path
        (resources.NODES, ("n", "a")),
        (resources.PODS, ("n", None, "status")),
        (resources.PODS, ("n", "..")),
        (resources.PODS, ("n", "a/../b")),
        (resources.PODS, ("n", "")),
        (resources.PODS, ("", "a")),
    ],
)
def test_what_is_no_path_is_refused(resource: resources.ResourceType, arguments: tuple[str | None, ...]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        resource.path(*arguments)


def test_manifests_find_their_resource() -> None:
    for resource in resources.ALL:
        assert resources.of({"apiVersion": resource.api_version, "kind": resource.kind}) is resource
    assert len({(r.group, r.plural) for r in resources.ALL}) == len(resources.ALL) > 15


@pytest.mark.parametrize("manifest", [{}, {"apiVersion": "v1", "kind": "Secret"}, {"apiVersion": "v2", "kind": "Pod"}])
def test_other_manifests_have_none(manifest: dict[str, str]) -> None:
    with pytest.raises(resources.UnknownResourceError):
        resources.of(manifest)
