"""API keys with scopes, a rate limit per key, and the audit of refused calls.

May import: storage, observability, core.
"""

__all__ = ["keys", "refusals"]
