"""The `pan-train` command: one module per command. `main` is the entry point."""

__all__ = ["main"]


def main() -> None:
    """Run `pan-train`."""
    from training.cli.app import run_app

    run_app()
