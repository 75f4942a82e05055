"""Reading a plan: the jobs of a correct one, and the error messages of an incorrect one."""

from pathlib import Path

import pytest

from bundle import BatchProfile
from export.batch.plan import read_plan
from export.errors import PlanError
from export.parity.gates import DEFAULTS

MODELS = "models:\n  - checkpoint: runs/a\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"out: x\nengnes: []\n{MODELS}", "line 2, engnes: engnes is unknown; did you mean engines?"),
        ("out: x\nmodels:\n  - checkpont: a\n", "line 3, models.0.checkpont: checkpont is unknown; did you mean check"),
        ("out: x\nmodels:\n  - checkpont: a\n", "line 3, models.0.checkpoint: Field required"),  # all errors at once
        (f"out: x\nengines:\n  - onnx:int8\n  - onnx:in8\n{MODELS}", "line 4, engines.1: onnx:in8 is unknown; did you"),
        (f"out: x\ngates:\n  int8:\n    min_cosin: 0.9\n{MODELS}", "line 4, gates.int8.min_cosin: .*mean min_cosine?"),
        (f"out: x\ngates:\n  int9: {{min_cosine: 0.9}}\n{MODELS}", "line 3, gates.int9: .* did you mean int8?"),
        (f"out: x\ngates: {{int8: {{min_cosine: 95}}}}\n{MODELS}", "line 2, gates.int8.min_cosine: .*less than or equ"),
        (f'out: x\nbatch: ["1:8"]\n{MODELS}', r"line 2, batch.0: '1:8' is not MIN:OPT:MAX"),
        (f"out: x\nbatch: 9:8:64\n{MODELS}", "line 2, batch.0: .* 9:8:64 does not rise"),
        (f"out: x\n{MODELS}    dim: 512\n", "line 3, models.0: dim is fitted to training crops; set data"),
        (f"out: x\n{MODELS}    whiten: true\n", "line 3, models.0: whiten applies to the projection of dim"),
        (f"out: x\n{MODELS}    name: ../elsewhere\n", "line 4, models.0.name: String should match"),
        (f"out: x\n{MODELS}  - checkpoint: b/a/best.safetensors\n", "two bundles would have the name a; set name"),
        (f"out: x\nout: y\n{MODELS}", "line 2: a key is given twice"),
        (
            f"out: x\ncompute_capability: 9.0\n{MODELS}",
            r"line 2, compute_capability: .* 9\.0; it knows 7\.5, 8\.0, 8\.6",
        ),
        (
            f"out: x\n{MODELS}    compute_capability: 89\n",
            r"line 4, models.0.compute_capability: .*knows 7\.5, 8\.0",
        ),
        ("out: x\nmodels: []\n", "line 2, models: Tuple should have at least 1 item"),
        ("- out\n", "must hold key: value pairs"),
        ("", "must hold key: value pairs"),
        ("out: [\n", "is not valid YAML"),
    ],
)
def test_an_error_in_a_plan_names_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_plan(write(tmp_path, text))


def test_a_missing_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no plan to read at"):
        read_plan(tmp_path / "nowhere.yaml")


def test_a_plan_becomes_one_bundle_for_each_model_and_profile(tmp_path: Path) -> None:
    # 1:8:32 without quotes is a number in base sixty to YAML 1.1
    text = """\
out: exports
data: crops
engines: [onnx:int8, openvino:bfloat16, tensorrt_rtx:float16]
batch: [1:1:4, 1:8:32]
gates: {int8: {min_cosine: 0.9}}
ranked: 500
models:
  - checkpoint: runs/a
    dim: 256
  - checkpoint: /elsewhere/model.safetensors
    name: b
    engines: [onnx:float16]
    data: others
"""
    out, jobs = read_plan(write(tmp_path, text))
    assert out == tmp_path / "exports"
    assert [job.folder for job in jobs] == [out / "a-1-1-4", out / "a-1-8-32", out / "b"]
    assert [job.batch.max for job in jobs[:2]] == [4, 32]
    assert jobs[0].batch == BatchProfile(min=1, opt=1, max=4)
    assert jobs[0].labels == ("onnx:float32", "onnx:int8", "openvino:bfloat16", "tensorrt_rtx:float16")
    assert jobs[2].labels == ("onnx:float32", "onnx:float16")
    assert jobs[0].checkpoint == tmp_path / "runs/a"
    assert jobs[2].checkpoint == Path("/elsewhere/model.safetensors")
    assert [job.measuring.data for job in jobs] == [tmp_path / "crops", tmp_path / "crops", tmp_path / "others"]
    assert jobs[0].reduction is not None
    assert jobs[0].reduction.dim == 256
    gates = jobs[0].measuring.gates
    assert (gates["int8"].min_cosine, gates["int8"].max_mAP_loss) == (0.9, DEFAULTS["int8"].max_mAP_loss)
    assert gates["float16"] == DEFAULTS["float16"]
    assert jobs[0].measuring.ranked == 500
