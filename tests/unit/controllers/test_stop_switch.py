"""What the operator makes of its ConfigMap over time. A stand-in answers for the API server: hours pass in no time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from berth.cluster.errors import ForbiddenError, NotFoundError, UnavailableError
from berth.cluster.resources import ResourceType
from berth.controllers.stop_switch import StopSwitch
from berth.controllers.store import Key, Store
from support import builders
from unit.cluster import virtual_time

STOP = {"data": {"stopModels": "true"}}
GO = {"data": {"stopModels": "false"}}


class Answers:
    """Answers every question for the ConfigMap with the same."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def get(self, resource: ResourceType, namespace: str, name: str) -> Any:
        """What there is."""
        assert (resource.plural, namespace, name) == ("configmaps", "berth-system", "release-berth")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Scene:
    """A switch on a store with one Model."""

    def __init__(self, answer: Any) -> None:
        self.api, self.store, self.woken = Answers(answer), Store(), list[Key]()
        self.store.observe(builders.model())
        gateway: Any = self.api
        self.switch = StopSwitch(gateway, "berth-system", "release-berth", self.store, self.woken.append)

    @property
    def asked(self) -> bool | None:
        """What the Model is told."""
        world = self.store.gather(Key("Model", builders.NAMESPACE, "m"))
        assert world is not None
        asked: bool | None = world.uninstalling  # type: ignore[union-attr]
        return asked

    async def pass_time(self, seconds: float) -> None:
        """The switch is looked at for so long."""
        task = asyncio.create_task(self.switch.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def play(story: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(story)


def test_every_model_is_looked_at_once_when_the_wish_comes_and_when_it_goes() -> None:
    async def story() -> None:
        scene = Scene(STOP)
        await scene.switch.read()
        await scene.pass_time(10)
        assert (scene.asked, len(scene.woken)) == (True, 1)
        scene.api.answer = GO
        await scene.pass_time(10)
        assert (scene.asked, len(scene.woken)) == (False, 2)

    play(story())


@pytest.mark.parametrize("error", [NotFoundError("gone"), ForbiddenError("no right")])
def test_a_config_map_that_is_gone_says_no_only_after_a_minute(error: Exception) -> None:
    async def story() -> None:
        scene = Scene(STOP)
        await scene.switch.read()
        scene.api.answer = error
        await scene.pass_time(30)
        assert scene.asked is None
        await scene.pass_time(40)
        assert scene.asked is False

    play(story())


def test_an_api_server_that_does_not_answer_changes_nothing() -> None:
    async def story() -> None:
        scene = Scene(STOP)
        await scene.switch.read()
        scene.api.answer = UnavailableError("away")
        await scene.pass_time(3600)
        assert scene.asked is True

    play(story())
