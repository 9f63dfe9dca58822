"""The agent's own endpoints: /healthz, /readyz and /metrics."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class Endpoints:
    """Serves them until it is left. `port` 0 takes any free one; `port` tells which."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, problem: Callable[[], str | None]) -> None:
        """`problem` returns None while the agent looks at its node, or the sentence that says what is wrong."""
        self._host, self.port, self._registry, self._problem = host, port, registry, problem
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Endpoints":
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        problem = self._problem()
        return web.Response(text=(problem or "ok") + "\n", status=503 if problem else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
