"""The `pan-train` command: one module per command. `main` is the entry point."""

from training.missing_package import exit_for_missing_package

__all__ = ["main"]


def main() -> None:
    """Run `pan-train`. If a package of an extra is missing, the error is one line that names the extra."""
    try:
        from training.cli.app import run_app
    except ModuleNotFoundError as error:
        exit_for_missing_package("pan-train", error)
    run_app()
