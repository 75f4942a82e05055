"""Finding the library, names of engines, and the timing cache."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from export.errors import BuildError, EngineMissing
from export.tensorrt import timing_cache
from export.tensorrt.engine_file import built_for, engine_name
from export.tensorrt.library import Library, find_library
from export.tensorrt.runtime import Gpu
from tests.export.tensorrt.conftest import read, settings


def test_a_missing_or_broken_library_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_tensorrt_needs_a_gpu_and_names_the_engine_after_it() -> None:
    tensorrt = Library("tensorrt", SimpleNamespace(__version__="11.4.0.106"), None)
    compatible = settings(hardware_compatibility="ampere_plus", version_compatible=True)
    target = built_for(tensorrt, compatible, Gpu("NVIDIA H100 80GB HBM3", "9.0"))
    name = "model.float16.tensorrt-11.4.0.106-nvidia-h100-80gb-hbm3-sm9.0-ampere_plus-later-versions.engine"
    assert engine_name(tensorrt, "float16", target) == name
    with pytest.raises(BuildError, match=r"PyTorch finds no GPU here; .* --library tensorrt_rtx"):
        built_for(tensorrt, compatible, None)
    with pytest.raises(BuildError, match="leave --compute-capability out"):
        settings(compute_capability="8.9").validate(tensorrt)


def test_the_timing_cache_is_saved_and_an_invalid_one_is_replaced(
    rtx: Library, typed: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    """TensorRT-RTX has the same calls, deprecated and without effect."""
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
