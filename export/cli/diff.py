"""`pan-export diff`."""

from pathlib import Path
from typing import Annotated

import typer

from export.cli.common import AsJson, Data, errors, print_json
from export.cli.tables import show_differences
from export.onnx.diff import compare_graphs, first_difference, input_spec, read_graph
from export.parity import load_samples


def diff(
    a: Annotated[Path, typer.Argument(help="An .onnx file, a bundle (its float32 file) or a checkpoint.")],
    b: Annotated[Path, typer.Argument(help="The same. Tensors are matched by name.")],
    threshold: Annotated[float, typer.Option(min=0, max=1, help="A tensor with a lower cosine differs.")] = 0.999,
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Number of crops to run through both.")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="Number of rows of the table.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare two graphs of one network tensor by tensor, and name the first tensor of B that differs from A."""
    with errors.status("running both graphs"):
        graph_a, graph_b = read_graph(a), read_graph(b)
        samples = load_samples(data, input_spec(graph_a), max(images, 2), 1)
        differences = compare_graphs(graph_a, graph_b, samples.images_NHW3[:images])
    first = first_difference(differences, threshold)
    if as_json:
        keys = ("tensor", "operator", "cosine", "largest")
        tensors = [{key: getattr(difference, key) for key in keys} for difference in differences]
        print_json({"first": first and first.tensor, "tensors": tensors})
        return
    show_differences(differences, first, rows)
    if first:
        print(f"first difference: {first.tensor}, output of {first.operator}, cosine {first.cosine:.6f} < {threshold}")
    else:
        print(f"no tensor differs: every cosine is at least {threshold}")
