"""The command `pan-serve`: run, keys, backup, check, vacuum, re-embed, and the client's commands.

Each module holds the commands of one subject; `common` has what they share. `main` is the entry point.
"""
