"""The `pan-export` command: one module per command. `main` is the entry point."""

__all__ = ["main"]


def main() -> None:
    """Run `pan-export`."""
    from export.cli.app import run_app

    run_app()
