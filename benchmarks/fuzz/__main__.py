"""Send random sequences of calls to the service, and compare it with a reference model after every step.

    python -m benchmarks.fuzz [--examples 100] [--steps 50] [--seed 0]

Each example is a sequence of calls with good and hostile values, restarts, SIGKILL, changes of the model, export and
import. A fault ends the run with exit status 1, after Hypothesis has made the sequence as short as it can, and prints
it as the body of a test.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.fuzz.machine import ServiceMachine
from benchmarks.fuzz.state import World


def play(folder: Path, examples: int, steps: int, seed: int, shrink: bool = True) -> None:
    """Run the state machine against servers on a folder. Raises Fault for the first difference."""
    world = World(folder)

    class Machine(ServiceMachine):
        pass

    Machine.world = world
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seeded(seed)(Machine), settings=options)
    except BaseException as error:
        error.add_note(f"the end of the service's log:\n{world.log_tail()}")
        raise
    finally:
        if world.server.running:
            world.close()


def main(
    examples: Annotated[int, typer.Option(min=1)] = 100, steps: Annotated[int, typer.Option(min=1)] = 50, seed: int = 0
) -> None:
    """Fuzz a real server with random sequences of calls."""
    with TemporaryDirectory() as folder:
        try:
            play(Path(folder), examples, steps, seed)
        except Exception as error:
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            for note in getattr(error, "__notes__", []):
                print(note, file=sys.stderr)
            sys.exit(1)
    print(f"{examples} sequences of up to {steps} steps, seed {seed}: no fault")


if __name__ == "__main__":
    typer.run(main)
