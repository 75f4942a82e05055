"""The GPUs that TensorRT-RTX compiles for: what export may target, and where the service may load the result."""

# By compute capability. A test compares them with the installed library.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
TURING = "7.5"  # a target only when it is asked for
RTX_DEFAULT_CAPABILITIES = tuple(one for one in RTX_CAPABILITIES if one != TURING)


def rtx_runs_on(built_for: str | None) -> tuple[str, ...]:
    """The compute capabilities on which a TensorRT-RTX engine runs; `built_for` is its one target, if it has one."""
    return RTX_DEFAULT_CAPABILITIES if built_for is None else (built_for,)
