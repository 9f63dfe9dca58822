"""Which Pods of a Model count as servers of its own: not those of a namesake before it, nor what nobody can end."""

from dataclasses import replace

from berth.planning.changes import left_by_predecessor
from berth.planning.world import ModelWorld


def without_predecessor(world: ModelWorld) -> ModelWorld:
    """The World in which Pods of a deleted Model of the same name count as outdated, whatever template they have.

    They live on for the time of their drain, and their namesake is often made at once: `kubectl replace --force`.
    """
    subject, deployment = world.subject, world.child("Deployment")
    if deployment is None:
        born = subject.created_at
        strangers = [pod for pod in world.pods if born and pod.created_at and pod.created_at < born]
    else:
        strangers = list(world.pods) if left_by_predecessor(subject, deployment) else []
    if not strangers:
        return world
    return replace(world, pods=tuple(replace(p, template_hash="") if p in strangers else p for p in world.pods))


def without_stranded(world: ModelWorld) -> ModelWorld:
    """The World without Pods that are being deleted on Nodes that do not answer: nobody there can say that they end."""
    lost = world.lost_nodes
    if not lost:
        return world
    return replace(world, pods=tuple(pod for pod in world.pods if not (pod.deleting and pod.node in lost)))
