"""The operator's own endpoints: /healthz, /readyz and /metrics."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from berth.controllers.metrics import Metrics


class HealthServer:
    """Serves the endpoints until it is left. `port` 0 takes any free one; `port` tells which."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
    ) -> None:
        """`healthy` and `ready` return None, or the sentence that says what is wrong."""
        self._host, self.port, self._metrics = host, port, metrics
        self._healthy, self._ready = healthy, ready
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "HealthServer":
        app = web.Application()
        app.router.add_get("/healthz", self._probe(self._healthy))
        app.router.add_get("/readyz", self._probe(self._ready))
        app.router.add_get("/metrics", self._show_metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @staticmethod
    def _probe(check: Callable[[], str | None]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.StreamResponse:
            problem = check()
            return _last(web.Response(text=(problem or "ok") + "\n", status=503 if problem else 200))

        return answer

    async def _show_metrics(self, _: web.Request) -> web.Response:
        # In a thread: with 10,000 Models it takes a sixth of a second.
        shown = await asyncio.to_thread(generate_latest, self._metrics.registry)
        return _last(web.Response(body=shown, headers={"Content-Type": CONTENT_TYPE_LATEST}))


def _last(response: web.Response) -> web.Response:
    """No connection stays open behind it: kopf waits 5 s, on its way out, for every task of such a connection."""
    response.force_close()
    return response
