"""The service itself: its model, its health, its metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pan_reid.schemas import Health, Model, Readiness
from service.api.auth import Caller, MonitoringCaller
from service.api.dependencies import UseCasesDep
from service.api.openapi import open_problems, problems
from service.api.responses import JsonResponse
from service.observability.metrics import Metrics

router = APIRouter(tags=["service"])


@router.get("/v1/model", summary="Get the loaded model", responses={200: {"model": Model}, **problems()})
async def get_model(use_cases: UseCasesDep, _: Caller) -> Response:
    """The model as described in its bundle, and the engine that runs it."""
    return JsonResponse((await use_cases.status.model()).model_dump(mode="json"))


@router.get("/healthz", summary="Liveness", responses={200: {"model": Health}, **open_problems()})
async def healthz() -> Response:
    """The process answers. This does not test the engine; /readyz does. Query parameters are ignored."""
    return JsonResponse({"status": "ok"})


@router.get("/readyz", summary="Readiness", responses={200: {"model": Readiness}, **open_problems(503)})
async def readyz(use_cases: UseCasesDep) -> Response:
    """The engine has embedded an image in the last seconds or does so now, and the database can be read and written.
    Query parameters are ignored.
    """
    readiness = await use_cases.status.readiness()
    return JsonResponse(
        {
            "status": "ok",
            "failing": list(readiness.failing),
            "set_aside": readiness.set_aside,
            "galleries_set_aside": readiness.galleries_set_aside,
        }
    )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def get_metrics(request: Request, _: MonitoringCaller) -> Response:
    """Metrics in the text format of Prometheus. They contain the names of galleries and the numbers of their entries,
    so they require a key. Query parameters are ignored.
    """
    metrics: Metrics = request.app.state.container.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
