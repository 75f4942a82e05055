"""The errors that the bundle and its images raise.

    PanError                    everything this project raises on purpose
    +-- ImageError              one image cannot be used; its batch-mates can
    |   +-- UnsupportedImage    not JPEG, PNG, WebP or BMP by content
    |   +-- CorruptImage        truncated or undecodable
    |   +-- ImageTooLarge       too many bytes, pixels, or memory to decode
    |   +-- ImageTooSmall       a side shorter than the minimum
    |   +-- ImageTooComplex     too many scans or segments, or too long to decode
    +-- BundleError             the bundle cannot be used
        +-- ManifestError       manifest.json is missing, malformed or of another version
        +-- BundleFileError     an engine file is missing or is not the one the manifest describes

Every message says what was found and what to do about it; `code` is stable and meant for programs.
"""

from typing import ClassVar


class PanError(Exception):
    """Base of every error this project raises on purpose."""

    code: ClassVar[str] = "error"


class ImageError(PanError):
    """One image cannot be used."""

    code = "bad-image"


class UnsupportedImage(ImageError):
    """The bytes are not in an accepted image format."""

    code = "unsupported-image"


class CorruptImage(ImageError):
    """The bytes begin like an image but do not decode."""

    code = "corrupt-image"


class ImageTooLarge(ImageError):
    """The image has more bytes or pixels than allowed, or needs more memory to decode."""

    code = "image-too-large"


class ImageTooSmall(ImageError):
    """A side of the image is shorter than the minimum."""

    code = "image-too-small"


class ImageTooComplex(ImageError):
    """The image would take too long to decode, or did."""

    code = "image-too-complex"


class BundleError(PanError):
    """The bundle cannot be used."""

    code = "bad-bundle"


class ManifestError(BundleError):
    """`manifest.json` is missing, malformed or of another schema version."""

    code = "bad-manifest"


class BundleFileError(BundleError):
    """A file of the bundle is missing or differs from its manifest entry."""

    code = "bad-bundle-file"
