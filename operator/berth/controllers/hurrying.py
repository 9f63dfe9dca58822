"""Ends Pods without their drain."""

import asyncio
import logging

import httpx2

from berth.cluster import resources
from berth.cluster.gateway import Gateway
from berth.planning.plan import Hurry

logger = logging.getLogger(__name__)
_TIMEOUT = 2.0


async def end_now(gateway: Gateway, hurry: Hurry) -> None:
    """Tell the drain sidecar, then the kubelet. A sidecar that does not answer is no reason to leave it at that."""
    if hurry.order:
        try:
            async with asyncio.timeout(_TIMEOUT), httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT) as client:
                await client.post(hurry.order)
        except (httpx2.HTTPError, TimeoutError) as error:
            logger.warning("the drain of %s/%s cannot be skipped: %r", hurry.namespace, hurry.name, error)
    await gateway.delete(
        resources.PODS,
        hurry.namespace,
        hurry.name,
        uid=hurry.uid,
        resource_version=None,  # its kubelet writes all the time
        grace_seconds=hurry.grace,
    )
    logger.info("Pod %s/%s ends without its drain", hurry.namespace, hurry.name)
