"""`pan-reid search` and `compare`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pan_reid.cli.common import (
    LOCAL,
    Gallery,
    Json,
    KeyFile,
    Url,
    connect,
    given,
    handle_errors,
    out,
    parse_time,
    print_json,
    print_line,
    read_images,
    split_pair,
)

Fpr = Annotated[
    float | None,
    typer.Option(help="Say match or unknown at this false-positive rate, one that the bundle's calibration states."),
]
Threshold = Annotated[
    float | None, typer.Option(min=-1, max=1, help="Say match or unknown by this cosine, in place of --fpr.")
]


@handle_errors
def search(
    gallery: Gallery,
    image: Annotated[list[Path] | None, typer.Argument(help="A crop, or several of one person.")] = None,
    entry: Annotated[
        list[int] | None, typer.Option(min=1, help="Search by this entry in place of images; may be repeated.")
    ] = None,
    url: Url = LOCAL,
    top_k: Annotated[int, typer.Option(min=1, help="Hits, or persons with --group-by-person.")] = 10,
    fuse: Annotated[
        Literal["mean", "best"],
        typer.Option(help="Several crops: search by their mean, or score each entry by its nearest crop."),
    ] = "mean",
    fpr: Fpr = None,
    threshold: Threshold = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only crops of this camera; may be repeated.")] = None,
    exclude_camera: Annotated[list[str] | None, typer.Option(help="No crops of this camera; may be repeated.")] = None,
    person: Annotated[list[str] | None, typer.Option(help="Only crops of this person; may be repeated.")] = None,
    exclude_person: Annotated[list[str] | None, typer.Option(help="No crops of this person; may be repeated.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Captured then or later: 2024-05-01T08:00:00Z; a date is its midnight, UTC.",
            parser=parse_time,
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Captured before then.", parser=parse_time)] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only crops with this attribute; a name given twice allows both."),
    ] = None,
    query_camera: Annotated[str | None, typer.Option(help="The camera of the query, for the next two options.")] = None,
    query_person: Annotated[str | None, typer.Option(help="The person of the query, where known.")] = None,
    exclude_same_camera: Annotated[
        bool, typer.Option("--exclude-same-camera", help="No crops of the query's camera.")
    ] = False,
    exclude_same_person_same_camera: Annotated[
        bool,
        typer.Option("--exclude-same-person-same-camera", help="No crops of the query's person at its camera."),
    ] = False,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Re-rank the best crops by k-reciprocal neighbours.")
    ] = False,
    rerank_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="candidates, k1, k2 or lambda of the re-ranking; implies --rerank."),
    ] = None,
    group_by_person: Annotated[bool, typer.Option("--group-by-person", help="Answer persons, not crops.")] = False,
    group_score: Annotated[
        Literal["best", "mean"] | None, typer.Option(help="Rank persons by their nearest crop, or by the mean of all.")
    ] = None,
    examples: Annotated[int | None, typer.Option(min=1, max=50, help="Hits shown for each person.")] = None,
    as_json: Json = False,
    key_file: KeyFile = None,
) -> None:
    """Search a gallery for the person in one or several images."""
    if bool(image) == bool(entry):
        raise typer.BadParameter("give images, or --entry, and not both")
    reranking = {
        name: _scalar(text) for name, text in (split_pair("--rerank-option", one) for one in rerank_option or [])
    }
    options = given(
        top_k=top_k,
        fuse=fuse,
        false_positive_rate=fpr,
        threshold=threshold,
        cameras=camera,
        exclude_cameras=exclude_camera,
        persons=person,
        exclude_persons=exclude_person,
        captured_from=since,
        captured_until=until,
        attributes=_attributes(attribute or []),
        camera_id=query_camera,
        person_id=query_person,
        exclude_same_camera=exclude_same_camera or None,
        exclude_same_person_same_camera=exclude_same_person_same_camera or None,
        group_by="person" if group_by_person else None,
        group_score=group_score,
        examples=examples,
    )
    if rerank or reranking:
        options["rerank"] = reranking
    images = read_images(image or [])
    with connect(url, key_file) as client:
        search_by = client.search_entry if entry else client.search
        found = search_by(gallery, *(entry or images), **options)
    if as_json:
        print_json(found)
    else:
        from pan_reid.cli.tables import print_hits

        print_hits(found, out)


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
    """Compare two sets of images: do they show one person?"""
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


def _attributes(pairs: list[str]) -> dict[str, list[Any]]:
    """NAME=VALUE as the values an attribute may have: the text, and the number or other scalar that it reads as."""
    wanted: dict[str, list[Any]] = {}
    for pair in pairs:
        name, text = split_pair("--attribute", pair)
        values = wanted.setdefault(name, [])
        values.append(text)
        if (scalar := _scalar(text)) != text:
            values.append(scalar)
    return wanted


def _scalar(text: str) -> Any:
    """The number, boolean or null that a text is in JSON, or else the text."""
    from pydantic_core import from_json

    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return text if isinstance(value, str | list | dict) else value
