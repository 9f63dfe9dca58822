"""By which uids nodes and the API know Pods."""

from berth.planning.orphan_processes import pod_uids, reported_pods


def test_a_static_pod_is_known_by_two_uids() -> None:
    static = {"metadata": {"uid": "a", "annotations": {"kubernetes.io/config.hash": "b"}}}
    assert pod_uids([static, {"metadata": {"uid": "c"}}]) == {"a", "b", "c"}


def test_pods_are_reported_by_their_processes() -> None:
    gpus = [{"processes": [{"pid": 1, "podUid": "a"}, {"pid": 2, "foreign": True}]}, {}]
    assert reported_pods([{"status": {"gpus": gpus}}, {}]) == {"a"}
