"""`pan-reid compare`: the similarity of two sets of images."""

from pathlib import Path
from typing import Annotated

import typer

from pan_reid.cli.common import (
    LOCAL,
    Fpr,
    Json,
    KeyFile,
    Threshold,
    Url,
    connect,
    handle_errors,
    print_json,
    print_line,
)
from pan_reid.cli.values import given, read_images


@handle_errors
def compare(
    a: Annotated[list[Path], typer.Option("--a", help="An image of the first set; may be repeated.")],
    b: Annotated[list[Path], typer.Option("--b", help="An image of the second set; may be repeated.")],
    fpr: Fpr = None,
    threshold: Threshold = None,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Compare two sets of images: do they show one person?

    Each set shows one person. Prints the cosine of the two mean vectors, and of the most similar pair of images.
    """
    options = given(false_positive_rate=fpr, threshold=threshold)
    with connect(url, key_file) as client:
        result = client.compare(read_images(a), read_images(b), **options)
    if as_json:
        print_json(result)
        return
    print_line(f"similarity {result.similarity:.4f}")
    if result.probability is not None:
        print_line(f"probability {result.probability:.4f}")
    if result.decision is not None:
        print_line(f"verdict {result.verdict} (threshold {result.decision.threshold:.4f})")
    if len(a) + len(b) > 2:
        best = result.best
        print_line(f"best pair {a[best.a]} and {b[best.b]}, similarity {best.similarity:.4f}")
