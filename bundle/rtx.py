"""The GPUs that TensorRT-RTX compiles for. Export chooses targets from them, the service checks them at load."""

# By compute capability. A test compares them with the installed library.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
TURING = "7.5"  # not among the default targets
RTX_DEFAULT_CAPABILITIES = tuple(one for one in RTX_CAPABILITIES if one != TURING)


def rtx_runs_on(built_for: str | None) -> tuple[str, ...]:
    """The compute capabilities on which an engine runs. `built_for` is its only target; None: the default targets."""
    return RTX_DEFAULT_CAPABILITIES if built_for is None else (built_for,)
