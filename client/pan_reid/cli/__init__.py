"""The command `pan-reid`, which calls a running service.

Each module has the commands of one subject; `common` and `values` are shared, and `main` is the entry point. The
commands import their dependencies inside the functions, so that `--help` is fast.
"""
