"""The command `pan-reid`: use a running service.

A module holds the commands of one subject; `common` has what they share, `main` is the entry point. The modules import
what a command needs when it runs, so that `--help` answers at once.
"""
