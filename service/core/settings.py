"""What an operator decides when starting the service."""

from dataclasses import dataclass, field
from pathlib import Path

from bundle import ImageLimits
from service.core.choices import Device, EngineChoice, PrecisionChoice
from service.core.errors import StartupError

IMAGE_LIMITS = ImageLimits(max_seconds=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every limit of one running service. Times in seconds, sizes in bytes."""

    bundle: Path
    data: Path
    engine: EngineChoice = "auto"
    device: Device = "auto"
    precision: PrecisionChoice = "auto"
    allow_unverified: bool = False  # run an engine that export could not check, after checking it here
    threads: int = 0  # of the engine; 0 is one a core
    max_batch: int = 32
    max_delay: float = 0.002
    max_queue: int = 512  # images admitted and not yet answered
    max_images: int = 256  # of one request
    max_body: int = 64 * 2**20
    max_bodies: int = 256 * 2**20  # of all requests together
    max_top_k: int = 5000
    request_timeout: float = 30.0
    max_connections: int = 1024  # as far as the limit of open files allows
    max_connections_per_address: int = 256  # not of loopback and of proxies
    header_timeout: float = 10.0
    idle_timeout: float = 15.0
    forwarded_allow_ips: tuple[str, ...] = ()  # addresses and networks of proxies whose X-Forwarded-For is believed
    allowed_hosts: tuple[str, ...] = ()  # names by which the service may be called while no key is required
    images: ImageLimits = IMAGE_LIMITS
    admin_key: str | None = field(default=None, repr=False)  # besides those of the database
    otlp_endpoint: str | None = None  # base URL of a collector of traces; None sends none
    insecure_no_auth: bool = False  # listen beyond this machine although callers need no key

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "max_images", "max_body", "max_top_k", "max_connections"):
            if getattr(self, name) < 1:
                raise StartupError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_images > self.max_queue:
            raise StartupError(
                f"a request of {self.max_images} images would never fit the queue of {self.max_queue}; "
                "raise --max-queue or lower --max-images"
            )
        if self.max_body > self.max_bodies:
            raise StartupError(
                f"a body of {self.max_body} bytes would never fit the {self.max_bodies} of all; "
                "raise --max-bodies-mib or lower --max-body-mib"
            )
