"""The half of the plugin that each API server of vLLM has: adapters, status, metrics."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError
from ..served.log_with import log_with
from .settings import NAME, read_settings
from .start import refusal

if TYPE_CHECKING:
    from ..served.served import Served

STATUS = "/v1/adapterdock/status"
METRICS = "/v1/adapterdock/metrics"

log = logging.getLogger("adapterdock")


class Endpoint:
    """An endpoint plugin as vLLM asks for it (``vllm.plugins.endpoint_plugins``)."""

    name = NAME
    required_tasks = None

    def __init__(self) -> None:
        self._served: Served | None = None

    def attach_router(self, app: Any) -> None:
        """Add the routes. They lie under ``/v1/``, which ``--api-key`` guards."""
        from starlette.responses import JSONResponse, PlainTextResponse

        def broken(error: Exception) -> Any:
            log.error("A route of adapterdock failed", exc_info=error)
            finding = codes.LOOK_FAILED.finding(f"The server failed: {type(error).__name__}")
            return JSONResponse({"findings": [finding.as_dict()]}, status_code=500)

        async def status() -> Any:
            served = self._served
            if served is None:
                finding = codes.NOT_STARTED.finding("The adapters are not loaded yet")
                return JSONResponse({"findings": [finding.as_dict()]}, status_code=503)
            try:
                return JSONResponse(served.status())
            except Exception as error:
                return broken(error)

        async def metrics() -> Any:
            served = self._served
            if served is None:
                return PlainTextResponse("", status_code=503)
            from ..served.status import CONTENT_TYPE

            try:
                return PlainTextResponse(served.metrics(), media_type=CONTENT_TYPE)
            except Exception as error:
                return broken(error)

        app.add_api_route(STATUS, status, methods=["GET"], response_model=None)
        app.add_api_route(METRICS, metrics, methods=["GET"], response_model=None)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Load every adapter, before the server answers its first request, and follow the manifest.

        Raises:
            SystemExit: The manifest cannot be served; the message has the findings.
        """
        if engine_client is None:
            log.warning("This server has no engine, so it serves no adapters")
            return
        try:
            settings = read_settings(os.environ)
            if settings.manifest is None:
                return
            from .launch import launch

            log_with("vllm")
            self._served = await launch(
                settings,
                engine_client,
                state.openai_serving_models,
                api_servers=getattr(args, "api_server_count", None),
            )
        except AdapterdockError as error:
            raise SystemExit(refusal(error.findings)) from None
