"""`pan-reid search`: search a gallery by images, boxes in a frame, vectors or entries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pan_reid.cli.common import (
    LOCAL,
    Fpr,
    Gallery,
    Json,
    KeyFile,
    Threshold,
    Url,
    connect,
    handle_errors,
    out,
    print_json,
)
from pan_reid.cli.values import (
    given,
    parse_attributes,
    parse_box,
    parse_scalar,
    parse_time,
    read_images,
    read_vectors,
    split_pair,
)

if TYPE_CHECKING:
    from pan_reid import Client
    from pan_reid.schemas import SearchAnswer


@handle_errors
def search(
    gallery: Gallery,
    image: Annotated[list[Path] | None, typer.Argument(help="A crop, or several crops of one person.")] = None,
    box: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="X,Y,WIDTH,HEIGHT",
            parser=parse_box,
            help="Search by this box in the image, in pixels; several boxes show one person.",
        ),
    ] = None,
    vector: Annotated[
        list[Path] | None,
        typer.Option(help="Search by the vectors in this file, .npy or JSON, instead of images; may be repeated."),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The model that made the vectors. Default: the loaded model."),
    ] = None,
    entry: Annotated[
        list[int] | None, typer.Option(min=1, help="Search by this entry instead of images; may be repeated.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of hits, or of persons with --group-by-person.")] = 10,
    fuse: Annotated[
        Literal["mean", "best"],
        typer.Option(help="With several crops: search by their mean, or score each entry by its nearest crop."),
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
            help="Captured at this time or later: 2024-05-01T08:00:00Z; a date is midnight, UTC.",
            parser=parse_time,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Captured before this time.", parser=parse_time)
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only crops with this attribute; a repeated name allows each value."),
    ] = None,
    query_camera: Annotated[
        str | None, typer.Option(help="Camera of the query, for --exclude-same-[person-same-]camera.")
    ] = None,
    query_person: Annotated[
        str | None, typer.Option(help="Person of the query, for --exclude-same-person-same-camera.")
    ] = None,
    exclude_same_camera: Annotated[
        bool, typer.Option("--exclude-same-camera", help="No crops of the query's camera.")
    ] = False,
    exclude_same_person_same_camera: Annotated[
        bool,
        typer.Option("--exclude-same-person-same-camera", help="No crops of the query's person at the query's camera."),
    ] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="Re-rank the best hits by k-reciprocal neighbours.")] = False,
    rerank_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="candidates, k1, k2 or lambda of the re-ranking; implies --rerank."),
    ] = None,
    group_by_person: Annotated[
        bool, typer.Option("--group-by-person", help="Return persons instead of crops.")
    ] = False,
    group_score: Annotated[
        Literal["best", "mean"] | None,
        typer.Option(help="Rank persons by their nearest crop, or by the mean over their crops."),
    ] = None,
    examples: Annotated[int | None, typer.Option(min=1, max=50, help="Number of hits for each person.")] = None,
    url: Url = LOCAL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Search a gallery for the person in one or several images."""
    if sum(map(bool, (image, vector, entry))) != 1:
        raise typer.BadParameter("give one of: images, --vector, --entry")
    if box and (not image or len(image) > 1):
        raise typer.BadParameter("--box needs exactly one image")
    reranking = {
        name: parse_scalar(text) for name, text in (split_pair("--rerank-option", one) for one in rerank_option or [])
    }
    options = given(
        boxes=box,
        fingerprint=fingerprint,
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
        attributes=parse_attributes(attribute or []),
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
    with connect(url, key_file) as client:
        found = _search(client, gallery, image, vector, entry, options)
    if as_json:
        print_json(found)
    else:
        from pan_reid.cli.tables import print_hits

        print_hits(found, out)


def _search(
    client: "Client",
    gallery: str,
    images: list[Path] | None,
    vectors: list[Path] | None,
    entries: list[int] | None,
    options: dict[str, Any],
) -> "SearchAnswer":
    if entries:
        return client.search_entry(gallery, *entries, **options)
    if vectors:
        return client.search_vector(gallery, read_vectors(vectors), **options)
    return client.search(gallery, *read_images(images or []), **options)
