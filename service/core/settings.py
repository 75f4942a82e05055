"""The configuration of a running service."""

from dataclasses import dataclass, field
from pathlib import Path

from bundle import ImageLimits
from service.core.choices import Device, EngineChoice, PrecisionChoice
from service.core.errors import StartupError

IMAGE_LIMITS = ImageLimits(max_seconds=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes. Raises StartupError for values that contradict each other."""

    bundle: Path
    data: Path
    engine: EngineChoice = "auto"
    device: Device = "auto"
    precision: PrecisionChoice = "auto"
    allow_unverified: bool = False  # run an engine that the export could not verify, after verifying it at startup
    threads: int = 0  # threads of the engine; 0 means one per core
    max_batch: int = 32
    max_delay: float = 0.002
    max_queue: int = 512  # images in progress
    max_images: int = 256  # images per request
    max_body: int = 64 * 2**20
    max_bodies: int = 256 * 2**20  # bodies of all concurrent requests
    max_top_k: int = 5000
    request_timeout: float = 30.0
    max_connections: int = 1024  # lowered to the limit on open files
    max_connections_per_address: int = 256  # loopback and proxies are exempt
    header_timeout: float = 10.0
    idle_timeout: float = 15.0
    forwarded_allow_ips: tuple[str, ...] = ()  # proxies, as addresses or networks, whose X-Forwarded-For is trusted
    allowed_hosts: tuple[str, ...] = ()  # accepted values of the Host header while no API key is required
    images: ImageLimits = IMAGE_LIMITS
    admin_key: str | None = field(default=None, repr=False)  # valid in addition to the keys in the database
    otlp_endpoint: str | None = None  # base URL of an OTLP collector; None disables tracing
    insecure_no_auth: bool = False  # listen on non-loopback addresses even if no API key is required

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "max_images", "max_body", "max_top_k", "max_connections"):
            if getattr(self, name) < 1:
                raise StartupError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_images > self.max_queue:
            raise StartupError(
                f"a request of {self.max_images} images would never fit into the queue of {self.max_queue}; "
                "raise --max-queue (PAN_MAX_QUEUE) or lower --max-images (PAN_MAX_IMAGES)"
            )
        if self.max_body > self.max_bodies:
            raise StartupError(
                f"a body of {self.max_body} bytes would never fit into the {self.max_bodies} bytes for all bodies; "
                "raise --max-bodies-mib (PAN_MAX_BODIES_MIB) or lower --max-body-mib (PAN_MAX_BODY_MIB)"
            )
