"""Render synthetic people, train a small PAN, export it, start the service, enrol and search over REST.

    python -m demo [--out runs/demo] [--port 8000] [--once]

Each step is a command of the product, which is printed before it runs. At the end the service keeps running until
Ctrl-C; with `--once` it stops. All started processes end with the demo.
"""

import argparse
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console

from benchmarks.service.rest_quality import agree, evaluate_rest
from bundle import Evaluation, PanError
from demo.picture import Row, ranked_list
from pan_reid import Client, PanReidError
from training.data import ReidData, read_data
from training.evaluation import Floats

RENDER = ["--train-identities", "160", "--test-identities", "40", "--cameras", "4", "--crops-per-camera", "3"]
TRAIN = [
    "preset=short",
    "model.variant=pan_c",
    "model.depth=18",
    "model.width=0.5",
    "data.height=96",
    "data.width=48",
    "optim.iterations=450",
]
GALLERY = "demo"
ROWS, HITS = 6, 8
console = Console(highlight=False)


def command(name: str, *arguments: str | Path) -> list[str]:
    """The path of a command in this environment, with its arguments. Prints the command."""
    console.print(f"\n$ {shlex.join([name, *map(str, arguments)])}", style="bold", soft_wrap=True, markup=False)
    return [str(Path(sys.executable).with_name(name)), *map(str, arguments)]


def run(name: str, *arguments: str | Path) -> None:
    """Run a command. Raises CalledProcessError."""
    subprocess.run(command(name, *arguments), check=True)


def ask(name: str, *arguments: str | Path) -> Evaluation:
    """Run an evaluation, and parse the JSON object that it prints."""
    done = subprocess.run(command(name, *arguments, "--json"), check=True, stdout=subprocess.PIPE, text=True)
    return Evaluation.model_validate(json.loads(done.stdout))


@contextmanager
def service(bundle: Path, data: Path, port: int) -> Iterator[str]:
    """Run the service in a process and yield its URL. It is ready on entry and stopped on exit."""
    options: list[str | Path] = ["--bundle", bundle, "--data", data, "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command("pan-serve", "run", *options))
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError("the service did not start; its message is above")
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the service was not ready within 30 seconds")


def draw(data: ReidData, scores_QG: Floats, out: Path) -> None:
    """Draw some queries, evenly spaced in the set, with their nearest crops from other cameras."""
    rows = []
    for index in np.linspace(0, len(data.query) - 1, ROWS).astype(int):
        query = data.query[index]
        order = [i for i in np.argsort(-scores_QG[index]) if data.gallery[i].camera != query.camera][:HITS]
        crops = [(data.gallery[i], float(scores_QG[index, i])) for i in order]
        rows.append(Row(query.path, [(crop.path, crop.person == query.person, score) for crop, score in crops]))
    ranked_list(rows, out)


def free_port(wanted: int) -> int:
    """The wanted port, or a free one if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def demo(out: Path, port: int, once: bool) -> int:
    """Run all stages. Returns 0 if the results through REST and offline agree, otherwise 1."""
    started = time.monotonic()
    if out.exists():
        shutil.rmtree(out)
    crops, training, bundle, state = out / "crops", out / "run", out / "bundle", out / "service"
    run("pan-train", "synth", crops, *RENDER)
    run("pan-train", "run", "--out", training, f"data.path={crops}", *TRAIN)
    run("pan-export", "onnx", training, bundle, "--data", crops)
    colour = ask("pan-train", "evaluate", "--histogram", "--data", crops)
    offline = ask("pan-train", "evaluate", training, "--data", crops)
    with service(bundle, state, free_port(port)) as url:
        run("pan-reid", "enrol", crops / "bounding_box_test", "--gallery", GALLERY, "--url", url)
        data = read_data(crops)
        with Client(url) as client:
            rest, scores = evaluate_rest(client, GALLERY, data, console)
        draw(data, scores, out / "ranked.png")
        console.print(
            f"\n{len(data.query)} queries of people outside the training set, in {len(data.gallery)} gallery crops:"
        )
        for name, result in (("colour histogram", colour), ("PAN, offline", offline), ("PAN, through REST", rest)):
            console.print(f"  {name:18} rank-1 {result.cmc[1]:6.2f}   mAP {result.mAP:6.2f}")
        same = agree(rest, offline)
        console.print("  REST and offline agree" if same else "  REST and offline DISAGREE by more than 0.1 points")
        console.print(f"\nranked lists: {out / 'ranked.png'}   ({time.monotonic() - started:.0f} s)", soft_wrap=True)
        if same and not once:
            query = data.query[0].path
            console.print(f"service: {url}   API documentation: {url}/docs   Ctrl-C stops it. Try in another terminal:")
            console.print(
                f"  .venv/bin/pan-reid search {query} --gallery {GALLERY} --url {url} --group-by-person",
                soft_wrap=True,
            )
            signal.pause()  # until a signal, which arrives as KeyboardInterrupt
    return 0 if same else 1


def main() -> int:
    """Command line. Ctrl-C ends all started processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # shells start background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        return demo(options.out, options.port, options.once)
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        return error.returncode
    except (PanError, PanReidError, RuntimeError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
