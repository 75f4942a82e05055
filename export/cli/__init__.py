"""The command `pan-export`: one module per command. Public: the entry point `main`."""

from training.missing_package import exit_for_missing_package

__all__ = ["main"]


def main() -> None:
    """Run `pan-export`. If a package of an extra is missing, the error is one line that names the extra."""
    try:
        from export.cli.app import run_app
    except ModuleNotFoundError as error:
        exit_for_missing_package("pan-export", error)
    run_app()
