"""Names of number formats: the ones used here, and the short ones that other projects use."""

ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}


def full_precision_name(name: str) -> str:
    """`fp16` -> `float16`; other names are returned as they are."""
    return ALIASES.get(name.lower(), name)
