"""The command `pan-serve`: run, config, key, backup, restore, vacuum, check, re-embed, openapi.

Each module has the commands of one subject; `common` is shared. `main` is the entry point.

May import: api, auth, storage, observability, core.
"""

__all__ = ["main"]
