"""The result of a reader: the crops, and the entries that could not be parsed."""

from dataclasses import dataclass
from pathlib import Path

from training.data.crops import ReidData
from training.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True, slots=True)
class Source:
    """A public data set: the crops of its official split, and the notice for ReidData."""

    title: str
    train: int
    query: int
    gallery: int
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """`source` is None for custom data sets; `unreadable` lists each entry that cannot be parsed, and why."""

    data: ReidData
    source: Source | None = None
    unreadable: tuple[str, ...] = ()


def images(folder: Path) -> list[Path]:
    """The image files of a folder by name; hidden ones (`._x.jpg`, left by macOS archives) are not images."""
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def lines(file: Path) -> list[str]:
    """The lines of a text file, with or without a byte order mark. Raises DataError."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{file} is missing") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8 text; save it again as UTF-8") from None
