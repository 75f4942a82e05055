"""The command `pan-serve`: run, config, keys, backup, restore, check, vacuum, re-embed.

Each module holds the commands of one subject; `common` has what they share. `main` is the entry point.
"""
