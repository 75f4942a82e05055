"""The service about itself: its model, its health, its metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pan_reid.schemas import Health, Model, Readiness
from service.api.dependencies import Caller, MonitoringCaller, ServiceDep, open_problems, problems
from service.api.responses import JsonResponse

router = APIRouter(tags=["service"])


@router.get("/v1/model", summary="The model that is loaded", responses={200: {"model": Model}, **problems()})
async def get_model(service: ServiceDep, _: Caller) -> Response:
    """What the bundle says of it, and what it runs on."""
    manifest = service.bundle.manifest
    loaded, evaluation, calibration = service.loaded, manifest.evaluation, manifest.calibration
    return JsonResponse(
        {
            "architecture": manifest.model.architecture,
            "variant": manifest.model.variant,
            "backbone": manifest.model.backbone,
            "parts": manifest.model.parts,
            "parameters": manifest.model.parameters,
            "fingerprint": manifest.model.fingerprint,
            "dim": manifest.output.dim,
            "input_height": manifest.input.height,
            "input_width": manifest.input.width,
            "engine": loaded.selection.engine,
            "device": loaded.selection.device,
            "precision": loaded.selection.file.precision,
            "file": loaded.selection.file.name,
            "reason": loaded.selection.reason,
            "max_batch": min(service.settings.max_batch, loaded.engine.max_batch or service.settings.max_batch),
            "parity": loaded.parity.model_dump(mode="json"),
            "evaluation": evaluation.model_dump(mode="json") if evaluation else None,
            "calibration": calibration.model_dump(mode="json") if calibration else None,
            "licence_notes": manifest.provenance.licence_notes,
        }
    )


@router.get(
    "/healthz",
    summary="The process answers",
    responses={200: {"model": Health}, **open_problems()},
)
async def healthz() -> Response:
    """Says nothing about the engine; /readyz does. Query parameters are ignored."""
    return JsonResponse({"status": "ok"})


@router.get(
    "/readyz",
    summary="The service can do its work",
    responses={200: {"model": Readiness}, **open_problems(503)},
)
async def readyz(service: ServiceDep) -> Response:
    """A real embedding went through in the last seconds, or now; and the database is read and takes writes.
    Query parameters are ignored.
    """
    failing = await service.health()
    set_aside = sum(len(held.memory.set_aside) for held in service.galleries.all())
    return JsonResponse(
        {
            "status": "ok",
            "failing": failing,
            "set_aside": set_aside,
            "galleries_set_aside": len(service.galleries.set_aside),
        }
    )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def get_metrics(service: ServiceDep, _: MonitoringCaller) -> Response:
    """In the text format of Prometheus. They name the galleries and count what is in them, so they need a key.
    Query parameters are ignored.
    """
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
