"""TensorRT engines, built for real by TensorRT-RTX, which needs a GPU only to run them; tests/gpu runs them."""

import hashlib
import json
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from bundle import (
    RTX_CAPABILITIES,
    BatchProfile,
    EngineFile,
    Manifest,
    OutputSpec,
    Parity,
    load_bundle,
    save_manifest,
    sha256_file,
)
from export.bundles.exporter import model_info
from export.bundles.targets import MeasurementSettings
from export.cli.tensorrt import parse_precision
from export.errors import BuildError, EngineMissing, GraphError, ParityError, TargetError
from export.onnx.float16 import to_float16
from export.parity.gates import DEFAULTS, Gates
from export.parity.samples import synthetic_samples
from export.quantisation.qdq import calibrate, quantise
from export.tensorrt import timing_cache
from export.tensorrt.build import BuildSettings, parse_batch_profile
from export.tensorrt.engine_file import built_for, engine_name
from export.tensorrt.export import BuiltEngine, export_tensorrt
from export.tensorrt.library import Library, find_library
from export.tensorrt.network import ParsedNetwork, parse
from export.tensorrt.runtime import Gpu, cannot_run_reason, engine_embedder
from tests.export.bundles.test_exporter import PAN_EXPORT, everything, run
from tests.export.conftest import SPEC, Traced

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx (extra [rtx])", exc_type=ImportError)

NAME = "model.{}.tensorrt_rtx-{}-{}.engine"
# a network of random weights is worth no more in eight bits; what it must reach is not what is tested here
LOOSE = MeasurementSettings(images=4, calibration=8, gates={**DEFAULTS, "int8": Gates(0.5, 0.5, 100.0)})


@pytest.fixture(scope="module")
def rtx() -> Library:
    return find_library("tensorrt_rtx")


@pytest.fixture(scope="module")
def clean_bundle(pan_c: Traced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `pan_c`, float32 alone."""
    folder = tmp_path_factory.mktemp("tensorrt") / "bundle"
    folder.mkdir()
    shutil.copyfile(pan_c.path, folder / "model.float32.onnx")
    same = Parity(data="none", images=1, batch_sizes=(1,), cosine_min=1.0, cosine_mean=1.0, gate_cosine_min=0.99999)
    file = EngineFile(
        name="model.float32.onnx",
        kind="onnx",
        precision="float32",
        bytes=pan_c.path.stat().st_size,
        sha256=sha256_file(pan_c.path),
        parity=same,
    )
    info = model_info(pan_c.network, pan_c.card)
    manifest = Manifest(
        model=info,
        input=SPEC,
        output=OutputSpec(dim=info.embedding_size),
        files=(file,),
        provenance=pan_c.card.provenance,
    )
    save_manifest(folder, manifest)
    return folder


@pytest.fixture
def bundle(clean_bundle: Path, tmp_path: Path) -> Path:
    """A copy to write into."""
    return Path(shutil.copytree(clean_bundle, tmp_path / "bundle"))


@pytest.fixture
def untouched(bundle: Path) -> Iterator[Path]:
    before = everything(bundle)
    yield bundle
    assert everything(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.fixture(scope="module")
def typed(pan_c: Traced) -> dict[str, onnx.ModelProto]:
    """The three graphs, by precision."""
    float32 = pan_c.model
    crops = synthetic_samples(SPEC, 8).images_NHW3
    return {
        "float32": float32,
        "float16": to_float16(pan_c.model),
        "int8": quantise(calibrate(float32, crops), scheme="tensorrt"),
    }


def settings(batch: str = "1:2:4", **others: Any) -> BuildSettings:
    return BuildSettings(batch=parse_batch_profile(batch), **others)


def read(library: Library, model: onnx.ModelProto, dim: int = 1536) -> ParsedNetwork:
    return parse(library, model.SerializeToString(), SPEC, dim)


def changed(model: onnx.ModelProto, operator: str, into: str) -> tuple[onnx.ModelProto, onnx.NodeProto]:
    """A copy whose first node of an operator has another."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = next(node for node in copy.graph.node if node.op_type == operator)
    node.op_type = into
    return copy, node


def outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


# what is compiled


def test_pixels_are_cast_and_nothing_else_is_done_with_them(typed: dict[str, onnx.ModelProto]) -> None:
    """TensorRT refuses any other operator on uint8."""
    for model in typed.values():
        assert [node.op_type for node in model.graph.node if "images" in node.input] == ["Cast"]


def test_every_tensor_has_the_type_that_the_precision_asks(rtx: Library, typed: dict[str, onnx.ModelProto]) -> None:
    def convolutions(precision: str) -> tuple[set[str], set[str]]:
        """Their outputs' types, and the layers that feed their weights."""
        network = read(rtx, typed[precision]).network
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        kinds = {layer.get_output(0).name: layer.type.name for layer in layers}
        found = [layer for layer in layers if layer.type.name == "CONVOLUTION"]
        assert len(found) > 20
        feeds = {kinds.get(layer.get_input(0).name, "") for layer in found}
        return {layer.get_output(0).dtype.name for layer in found}, feeds

    assert convolutions("float32")[0] == {"FLOAT"}
    assert convolutions("float16")[0] == {"HALF"}
    assert "DEQUANTIZE" in convolutions("int8")[1]
    assert "DEQUANTIZE" not in convolutions("float32")[1]


def test_int8_is_float16_but_for_the_pairs_and_reads_eight_bits_on_both_sides_of_an_addition(
    rtx: Library, typed: dict[str, onnx.ModelProto]
) -> None:
    network = read(rtx, typed["int8"]).network
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    maker = {layer.get_output(0).name: layer for layer in layers}

    def givers(layer: Any) -> list[str]:
        return [maker[layer.get_input(index).name].type.name for index in range(layer.num_inputs)
                if layer.get_input(index) is not None and layer.get_input(index).name in maker]  # fmt: skip

    convolutions = [layer for layer in layers if layer.type.name == "CONVOLUTION"]
    eight = [layer for layer in convolutions if givers(layer) == ["DEQUANTIZE", "DEQUANTIZE"]]
    assert len(eight) == 21  # the backbone, a ResNet-18; the masks' convolutions are not among them
    for layer in (*convolutions, *(layer for layer in layers if layer.type.name == "MATRIX_MULTIPLY")):
        assert layer.get_output(0).dtype.name == "HALF"
    residual = [sorted(givers(layer)) for layer in layers
                if layer.type.name == "ELEMENTWISE" and len(layer.get_output(0).shape) == 4
                and "CONVOLUTION" in givers(layer)]  # fmt: skip
    assert residual == [["CONVOLUTION", "DEQUANTIZE"]] * 8


def test_int8_is_quantised_as_tensorrt_demands(typed: dict[str, onnx.ModelProto]) -> None:
    constants = {weight.name: numpy_helper.to_array(weight) for weight in typed["int8"].graph.initializer}
    pairs = [node for node in typed["int8"].graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 20
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    givers = {output: node.op_type for node in typed["int8"].graph.node for output in node.output}
    fusable = [givers[node.input[0]] for node in typed["int8"].graph.node if node.op_type == "Relu"]
    assert set(fusable) == {"Conv", "Add"}  # with nothing between


# what is said of a graph that cannot be compiled


def test_a_parser_error_names_the_node_the_operator_and_the_reason(rtx: Library, pan_c: Traced) -> None:
    turned = onnx.ModelProto()
    turned.CopyFrom(pan_c.model)
    cast = next(node for node in turned.graph.node if "images" in node.input)
    cast.input[0] = "turned"
    nodes = [onnx.helper.make_node("Transpose", ["images"], ["turned"], "turn", perm=[0, 1, 2, 3]), *turned.graph.node]
    turned.graph.ClearField("node")
    turned.graph.node.extend(nodes)
    with pytest.raises(GraphError) as raised:
        read(rtx, turned)  # transposes uint8
    message = str(raised.value)
    assert "'turn' (Transpose): invalid node" in message
    assert "first input has type UInt8 but must have type Float" in message
    assert "\n" not in message
    assert "cuda" not in message.lower()  # that this machine has no driver is no reason
    assert "/_src/" not in message


@pytest.mark.parametrize("operator", ["Frobnicate", "Det"])
def test_an_operator_that_the_library_lacks(rtx: Library, typed: dict[str, onnx.ModelProto], operator: str) -> None:
    model, node = changed(typed["float32"], "Sigmoid", operator)
    with pytest.raises(GraphError, match=rf"node \d+ '{node.name}' \({operator}\): .*the library has no such operator"):
        read(rtx, model)


def test_a_file_that_is_no_graph_of_ours(rtx: Library, typed: dict[str, onnx.ModelProto]) -> None:
    whole = typed["float32"].SerializeToString()
    with pytest.raises(GraphError, match=r"model deserialize failed.*Failed to parse the ONNX model"):
        parse(rtx, whole[: len(whole) // 2], SPEC, 1536)
    with pytest.raises(GraphError, match=r"inputs and outputs are \[\] and \[\], expected \['images uint8"):
        parse(rtx, b"", SPEC, 1536)
    with pytest.raises(GraphError, match=r"embeddings float \(-1, 1536\).* expected .*\(-1, 768\)"):
        read(rtx, typed["float32"], dim=768)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(typed["float32"])
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "pixels"
    with pytest.raises(GraphError, match="pixels uint8"):  # whose profile would name an input that is not there
        read(rtx, renamed)


# building


@pytest.fixture(scope="module")
def built(
    clean_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, BuiltEngine], set[str]]:
    """One bundle with an engine of each precision, what was reported of each, and the steps that were told."""
    folder = Path(shutil.copytree(clean_bundle, tmp_path_factory.mktemp("built") / "bundle"))
    steps: set[str] = set()
    return (
        folder,
        {
            precision: export_tensorrt(
                folder, parse_precision(word), settings("1:8:16"), measuring=LOOSE, step=steps.add
            )
            for word, precision in (("fp32", "float32"), ("fp16", "float16"), ("int8", "int8"))
        },
        steps,
    )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_engine_joins_the_bundle_unverified(
    built: tuple[Path, dict[str, BuiltEngine], set[str]], rtx: Library, precision: Any
) -> None:
    folder, engines, _ = built
    entry, path = load_bundle(folder).file("tensorrt_rtx", precision)
    assert entry == engines[precision].entry
    assert path.name == NAME.format(precision, rtx.version, "any")
    assert entry.batch == BatchProfile(min=1, opt=8, max=16)
    assert entry.parity is None
    assert engines[precision].unverified == "PyTorch finds no GPU here"
    assert entry.built_for is not None
    assert entry.built_for.library_version == rtx.version
    assert (entry.built_for.gpu, entry.built_for.compute_capability) == (None, None)
    assert path.read_bytes().startswith(b"vtrt")  # what its loader demands first (kEXPECTED_MAGIC_TAG)

    sidecar = json.loads((folder / f"{path.name}.json").read_text())
    assert sidecar["engine"] == json.loads(entry.model_dump_json())
    assert sidecar["engine"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sidecar["fingerprint"] == load_bundle(folder).manifest.model.fingerprint
    assert sidecar["build_seconds"] > 0


def test_half_the_bits_are_about_half_the_bytes_and_nothing_is_left_over(
    built: tuple[Path, dict[str, BuiltEngine], set[str]], clean_bundle: Path
) -> None:
    folder, engines, steps = built
    assert engines["float16"].entry.bytes < 0.7 * engines["float32"].entry.bytes
    assert engines["int8"].entry.bytes < 0.95 * engines["float16"].entry.bytes
    assert engines["int8"].graph.float_blocks == "7 of 9"  # of the others eight bits save less than they add
    assert engines["float32"].graph.agreement.cosine_min > 0.99999
    assert engines["float16"].graph.agreement.cosine_min > 0.999
    names = {engine.entry.name for engine in engines.values()}
    expected = set(everything(clean_bundle)) | names | {f"{name}.json" for name in names}
    assert set(everything(folder)) == expected
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]  # no timing cache: TensorRT-RTX has none
    assert any(step.startswith("building engine, ") and " of " in step for step in steps)


def test_the_same_again_takes_overwrite(built: tuple[Path, dict[str, BuiltEngine], set[str]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built[0], tmp_path / "bundle"))
    before = everything(folder)
    with pytest.raises(TargetError, match=r"already has tensorrt_rtx float32 .* --overwrite"):
        export_tensorrt(folder, "float32", settings(), measuring=LOOSE)
    assert everything(folder) == before
    export_tensorrt(folder, "float32", settings(compute_capability="8.9"), measuring=LOOSE)  # another target
    export_tensorrt(folder, "float32", settings(), measuring=LOOSE, overwrite=True)
    entries = [file for file in load_bundle(folder).manifest.files if file.label == "tensorrt_rtx float32"]
    assert [(file.built_for and file.built_for.compute_capability, file.batch.max) for file in entries] == [
        ("8.9", 4),
        (None, 4),
    ]
    sidecar = json.loads((folder / f"{entries[1].name}.json").read_text())
    assert sidecar["engine"]["batch"] == {"min": 1, "opt": 2, "max": 4}


def test_the_bundles_own_float16_file_is_what_is_compiled(bundle: Path, pan_c: Traced) -> None:
    other = to_float16(pan_c.model)
    other.doc_string = "made elsewhere"
    (bundle / "model.float16.onnx").write_bytes(other.SerializeToString())
    manifest = load_bundle(bundle).manifest
    (float32,) = manifest.files
    size, digest = (bundle / "model.float16.onnx").stat().st_size, sha256_file(bundle / "model.float16.onnx")
    changes = {"name": "model.float16.onnx", "precision": "float16", "bytes": size, "sha256": digest}
    save_manifest(bundle, manifest.model_copy(update={"files": (float32, float32.model_copy(update=changes))}))
    made = export_tensorrt(bundle, "float16", settings(), measuring=LOOSE)
    assert made.graph.model.doc_string == "made elsewhere"


# on a machine with a GPU; what stands in for it computes the same in ONNX Runtime, and takes no batch over four


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, pan_c: Traced) -> Iterator[list[int]]:
    """The sizes of the batches that ran on it."""
    sizes: list[int] = []

    def embed(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return outputs(pan_c.model, images)

    monkeypatch.setattr("export.tensorrt.export.find_gpu", lambda: Gpu("NVIDIA L4", "8.9"))
    monkeypatch.setattr("export.tensorrt.export.engine_embedder", lambda *_: embed)
    yield sizes
    assert not sizes or (min(sizes) >= 2 and max(sizes) <= 4)


def test_where_there_is_a_gpu_the_engine_is_measured_on_it(bundle: Path, gpu: list[int]) -> None:
    built = export_tensorrt(bundle, "float32", settings("2:2:4"), measuring=LOOSE)
    entry, _ = load_bundle(bundle).file("tensorrt_rtx", "float32")
    assert gpu
    assert built.unverified is None
    assert entry.parity is not None
    assert entry.parity.batch_sizes == (2, 4)
    assert entry.parity.cosine_min > 0.99999
    assert entry.built_for is not None
    assert entry.built_for.gpu is None  # it was compiled for every card


def test_an_engine_for_another_gpu_stays_unverified(bundle: Path, gpu: list[int]) -> None:
    built = export_tensorrt(bundle, "float32", settings(compute_capability="12.0"), measuring=LOOSE)
    assert built.entry.parity is None
    assert built.unverified == "it is built for compute capability 12.0, the NVIDIA L4 here has 8.9"
    assert gpu == []


def test_cards_that_tensorrt_rtx_does_not_compile_for_are_told(rtx: Library) -> None:
    names = [name for name in rtx.trt.ComputeCapability.__members__ if name.startswith("SM")]
    assert [f"SM{capability.replace('.', '')}" for capability in RTX_CAPABILITIES] == names
    for capability in ("9.0", "10.0", "8.7", "7.5"):
        why = cannot_run_reason(rtx, Gpu("a card", capability), None)
        assert why == (
            f"it is built for compute capability 8.0, 8.6, 8.9, 12.0, 12.1, the a card here has {capability}"
        )
    assert cannot_run_reason(rtx, Gpu("a card", "12.1"), None) is None
    assert cannot_run_reason(rtx, Gpu("a card", "7.5"), "7.5") is None


def test_an_engine_is_measured_with_the_kernels_that_stay(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine loads without a driver, so this one only notes how its context is asked for."""
    asked: list[Any] = []
    engine = SimpleNamespace(create_runtime_config=SimpleNamespace, create_execution_context=asked.append)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: engine)
    monkeypatch.setattr(Library, "create", lambda *_: runtime)
    with pytest.raises(BuildError, match="cannot load the engine here"):
        engine_embedder(rtx, b"")
    strategy = rtx.trt.DynamicShapesKernelSpecializationStrategy
    assert asked[0].dynamic_shapes_kernel_specialization_strategy == strategy.EAGER
    assert hasattr(rtx.trt.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_departs_does_not_join(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def upside_down(*_: object) -> Callable[[np.ndarray], np.ndarray]:
        return lambda images: outputs(onnx.load(untouched / "model.float32.onnx"), images[:, ::-1].copy())

    monkeypatch.setattr("export.tensorrt.export.engine_embedder", upside_down)
    with pytest.raises(ParityError, match="the engine departs"):
        export_tensorrt(untouched, "float32", settings(), measuring=LOOSE)


def test_tensorrt_builds_for_the_gpu_it_builds_on() -> None:
    tensorrt = Library("tensorrt", SimpleNamespace(__version__="11.4.0.106"), None)
    compatible = settings(hardware_compatibility="ampere_plus", version_compatible=True)
    target = built_for(tensorrt, compatible, Gpu("NVIDIA H100 80GB HBM3", "9.0"))
    name = "model.float16.tensorrt-11.4.0.106-nvidia-h100-80gb-hbm3-sm9.0-ampere_plus-later-versions.engine"
    assert engine_name(tensorrt, "float16", target) == name
    with pytest.raises(BuildError, match=r"PyTorch finds no GPU here; .* --library tensorrt_rtx"):
        built_for(tensorrt, compatible, None)
    with pytest.raises(BuildError, match="leave --compute-capability out"):
        settings(compute_capability="8.9").validate(tensorrt)


# what stops a build leaves the bundle as it was


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (settings("9:8:64"), "batch sizes 9:8:64 are not a profile; give MIN:OPT:MAX in rising order"),
        (settings("1:8:4"), "batch sizes 1:8:4 are not a profile"),
        (settings("1:2:2147483647"), r"kMAX .* not self-consistent.*smaller maximum than 2147483647 in --batch"),
        (
            settings(workspace=1 << 20),
            r"(no tactics|OutOfMemory).* give more than --workspace 1 \(MiB\), or leave it out",
        ),
        (settings(version_compatible=True), "own version only; leave --version-compatible out"),
        (settings(hardware_compatibility="ampere_plus"), "leave --hardware-compatibility out"),
        (settings(compute_capability="9.9"), r"not build for compute capability 9\.9; it knows 7\.5, 8\.0, 8\.6, 8\.9"),
        (settings(compute_capability="7.5"), "for Turing .*FP32 GEMM is not supported"),
    ],
)
def test_settings_that_cannot_be_built(untouched: Path, given: BuildSettings, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        export_tensorrt(untouched, "float32", given, measuring=LOOSE)


def test_a_graph_that_fails_its_gate_is_not_compiled(untouched: Path) -> None:
    strict = MeasurementSettings(images=4, calibration=8, gates={**DEFAULTS, "float16": Gates(1.0, 0.5, 100.0)})
    with pytest.raises(
        ParityError, match=r"float16 graph fails its gates in ONNX Runtime, so nothing was built: .* gate is"
    ):
        export_tensorrt(untouched, "float16", settings(), measuring=strict)


def test_int8_is_refused_where_it_saves_nothing(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.tensorrt.graph.RTX_KERNEL_BYTES", 1_000_000)
    with pytest.raises(BuildError, match=r"no residual block .* choose --precision float16"):
        export_tensorrt(untouched, "int8", settings(), measuring=LOOSE)


def test_ctrl_c_ends_a_build(untouched: Path) -> None:
    steps: list[str] = []

    def interrupt(step: str) -> None:
        steps.append(step)
        if sum(step.startswith("cloning") for step in steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # for the main thread to hear of it: the rest of this phase takes milliseconds

    # a test run in the background of a shell ignores Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            export_tensorrt(untouched, "float32", settings(), measuring=LOOSE, step=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sum(step.startswith("cloning") for step in steps) < 5  # of some two hundred


@pytest.mark.parametrize("text", ["8", "1:8", "1:8:64:128", "1:x:8", "0:8:64", "-1:8:64", ""])
def test_a_batch_that_is_no_profile(text: str) -> None:
    with pytest.raises(BuildError, match=r"is not MIN:OPT:MAX, three whole numbers from 1, such as 1:8:64"):
        parse_batch_profile(text)


def test_a_precision_that_no_engine_has() -> None:
    with pytest.raises(BuildError, match="'bf16' is not one of float32, float16, int8"):
        parse_precision("bf16")


# the library


def test_a_library_that_is_not_there_or_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("export.tensorrt.library.find_spec", lambda _: None)
        with pytest.raises(
            EngineMissing, match=r"tensorrt cannot be found; run pip install \./client '\.\[tensorrt\]'"
        ):
            find_library("tensorrt")
        with pytest.raises(
            EngineMissing, match=r"pip install \./client '\.\[tensorrt\]'.* or pip install \./client '\.\[rtx\]'"
        ):
            find_library()
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineMissing, match=r"installed but does not load \(libnvinfer\.so\.11: cannot open"):
        find_library("tensorrt")


def test_measurements_of_kernels_are_kept_and_rubbish_is_replaced(
    rtx: Library, typed: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    """TensorRT-RTX has the calls, deprecated and without effect; TensorRT has the effect."""
    path = timing_cache.cache_path(tmp_path / "bundle")
    assert path == tmp_path / "bundle.tensorrt-timings"
    parsed = read(rtx, typed["float32"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for content in (None, b"rubbish"):
            if content:
                path.write_bytes(content)
            config = parsed.builder.create_builder_config()
            timing_cache.load(config, path)
            timing_cache.save(config, path)
            assert path.read_bytes().startswith(b"ptrt")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# the command line


def test_command_line(bundle: Path) -> None:
    options = ("--precision", "fp16", "--batch", "1:2:4", "--images", 4)
    done = run(PAN_EXPORT, "tensorrt", bundle, *options, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    entry, _ = load_bundle(bundle).file("tensorrt_rtx", "float16")
    assert printed["sidecar"]["engine"] == json.loads(entry.model_dump_json())
    assert printed["typed_graph"]["cosine_min"] > 0.999
    assert (printed["engine"], printed["unverified"]) == (None, "PyTorch finds no GPU here")

    again = run(PAN_EXPORT, "tensorrt", bundle, *options)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("error: the bundle already has tensorrt_rtx float16")
    assert again.stderr.count("\n") == 1

    verdicts = json.loads(run(PAN_EXPORT, "verify", bundle, "--images", 4, "--json").stdout)
    assert {verdict["engine"]: (verdict["verdict"], verdict["reason"]) for verdict in verdicts} == {
        "onnx float32": ("pass", None),
        "tensorrt_rtx float16": ("unseen", "PyTorch finds no GPU here"),
    }
