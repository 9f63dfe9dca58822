"""Any container that serves over HTTP, such as ComfyUI or a speech server: the person says how it works."""

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
    Backend,
    DrainMethod,
    HttpCheck,
    LoadMetrics,
    SecurityProfile,
    Server,
    ServerRequest,
    TcpCheck,
    UnloadRequest,
    UnsupportedSpecError,
)


class CustomServer(Backend):
    """The image of serving.image, with spec.custom."""

    name = BackendName.CUSTOM
    # Nobody knows where a foreign program writes; everything else of the Pod Security standard stays.
    security = SecurityProfile(read_only_root=False)
    drain = DrainMethod.SIDECAR

    def server(self, request: ServerRequest) -> Server:
        """The person's command and port. Without health.path, an open port has to do."""
        custom, path = request.spec.custom, request.spec.health.path
        if custom is None:
            raise UnsupportedSpecError("custom", "backend custom needs it: set custom.port")
        if request.spec.serving is None or not request.spec.serving.image:
            raise UnsupportedSpecError("serving.image", "backend custom needs it: name the image of the server")
        check = HttpCheck(path) if path else TcpCheck()
        return Server(
            port=custom.port,
            command=tuple(custom.command or ()),
            args=(),
            started=check,
            ready=check,
            alive=check,
            shared_memory=request.spec.gpus.count > 0,
        )

    def load(self, spec: ModelSpec) -> LoadMetrics | None:
        """The person's metrics; unknown without them."""
        metrics = spec.custom.metrics if spec.custom else None
        if metrics is None:
            return None
        return LoadMetrics(metrics.path, metrics.running, metrics.waiting or "", worked=metrics.worked or "")

    def unload(self, model: str, spec: ModelSpec) -> UnloadRequest | None:
        """The person's request, if there is one."""
        request = spec.shutdown.unload
        return UnloadRequest(request.method.value, request.path, request.body or "") if request else None
