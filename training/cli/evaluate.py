"""`pan-train evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bundle import InputSpec
from training.checkpoint import load_checkpoint
from training.cli.common import AsJson
from training.cli.evaluation_tables import result_tables
from training.data import read_data
from training.embed import Embed, embed_data, torch_embedder
from training.errors import ConfigError
from training.evaluation.measurement import measure, read_features
from training.synth import histogram_features


def evaluate(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .safetensors checkpoint or the folder of a run.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set with query and gallery.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Ready embeddings instead: .npz with query, query_id, query_camera and the same of gallery."),
    ] = None,
    histogram: Annotated[bool, typer.Option(help="Score the colour-histogram baseline on --data instead.")] = False,
    flip: Annotated[
        bool,
        typer.Option(help="Average the descriptors of each crop and its mirror image. Bundles do not: it costs twice."),
    ] = False,
    full: Annotated[
        bool, typer.Option(help="Also TPR at false-positive rates, open-set rates, each pair of cameras, calibration.")
    ] = False,
    query_expansion: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Also after adding each query's K nearest gallery rows to it."),
    ] = None,
    rerank: Annotated[bool, typer.Option(help="Also after k-reciprocal re-ranking.")] = False,
    as_json: AsJson = False,
) -> None:
    """CMC, mAP (both conventions) and mINP by the official rules."""
    if flip and (checkpoint is None or features is not None):
        raise ConfigError("--flip needs a CHECKPOINT: it describes the mirror image of each crop")
    if features is not None:
        embedded = read_features(features)
    elif data is None or (checkpoint is None and not histogram):
        raise ConfigError("give CHECKPOINT and --data DIR, or --histogram and --data DIR, or --features FILE.npz")
    else:
        embed, spec = _histogram() if checkpoint is None else _network(checkpoint, flip)
        embedded = embed_data(embed, read_data(data), spec)
        if flip:
            embedded = embedded._replace(data=f"{embedded.data}, flip averaging")
    results = measure(embedded, full=full, neighbours=query_expansion, reranked=rerank)
    if as_json:
        print(json.dumps(results.as_json()))
        return
    for table in result_tables(results):
        Console().print(table, soft_wrap=isinstance(table, str), highlight=False)


def _histogram() -> tuple[Embed, InputSpec]:
    return histogram_features, InputSpec(height=128, width=64)


def _network(checkpoint: Path, flip: bool) -> tuple[Embed, InputSpec]:
    network, card = load_checkpoint(checkpoint)
    return torch_embedder(network, card.input, flip_averaging=flip), card.input
