"""Smaller descriptors and the explain graph, compared with explicit formulas and with PyTorch."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from bundle import load_bundle
from export.bundles.projection import check_size, fit_projection
from export.engines import onnx_embedder
from export.errors import ExportError
from export.parity.samples import synthetic_samples
from tests.export.bundles.test_exporter import PAN_TRAIN, run
from tests.export.command import pan_export
from tests.export.conftest import SPEC, Traced
from training.data import read_data
from training.embed import embed_crops, torch_embedder
from training.model import Normalise, to_planes


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with a train split of 24 crops."""
    data = tmp_path_factory.mktemp("reduce") / "people"
    small = ("--train-identities", 6, "--test-identities", 3, "--cameras", 2, "--crops-per-camera", 2)
    assert run(PAN_TRAIN, "synth", data, *small, "--workers", 1).returncode == 0
    return data


@pytest.fixture(scope="module")
def exported(
    checkpoint: Path, people: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    """A bundle with 16-dimensional descriptors and the explain graph, and the JSON that the command printed."""
    out = tmp_path_factory.mktemp("small") / "bundle"
    done = pan_export("onnx", checkpoint, out, "--data", people, "--dim", 16, "--explain", "--images", 8, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return out, json.loads(done.stdout)


def test_the_projection_is_the_principal_components_of_training_crops(
    exported: tuple[Path, dict[str, object]], people: Path, pan_c: Traced
) -> None:
    out, _ = exported
    bundle = load_bundle(out)
    model = bundle.manifest.model
    assert (model.embedding_size, bundle.manifest.output.dim, model.reduced_from) == (16, 16, 1536)
    # the definition: eigenvectors of the covariance in order of falling eigenvalue
    full = torch_embedder(pan_c.network, SPEC)
    train = embed_crops(full, read_data(people).train, SPEC).astype(np.float64)
    mean = train.mean(0)
    _, vectors = np.linalg.eigh(np.cov((train - mean).T))
    crops = synthetic_samples(SPEC, 8).images_NHW3
    expected = (full(crops) - mean) @ vectors[:, ::-1][:, :16]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    actual = onnx_embedder(bundle.file("onnx", "float32")[1], 1)(crops)
    # the sign of an eigenvector is arbitrary, so inner products are compared
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-4)


def test_a_reduced_model_has_its_own_fingerprint_evaluation_and_calibration(
    exported: tuple[Path, dict[str, object]], pan_c: Traced
) -> None:
    out, printed = exported
    manifest = load_bundle(out).manifest
    properties = {entry.key: entry.value for entry in pan_c.model.metadata_props}
    assert manifest.model.fingerprint != properties["fingerprint"]
    assert manifest.evaluation is not None
    sizes = {size["dim"]: size for size in printed["sizes"]}  # type: ignore[attr-defined]
    assert set(sizes) == {16}  # 24 training crops span fewer than 128 dimensions
    assert manifest.calibration is not None
    assert manifest.evaluation.mAP == pytest.approx(sizes[16]["mAP"], abs=1e-6)


def test_whitened_projections_have_unit_covariance() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 8)) * np.arange(1, 9)
    projected = fit_projection(rows.astype(np.float32), whiten=True)(rows.astype(np.float32))
    np.testing.assert_allclose(np.cov(projected.T), np.eye(8), atol=1e-4)


def test_more_dimensions_than_the_crops_span_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    check_size(fit_projection(rows, whiten=False), 9)
    with pytest.raises(ExportError, match="more than the 9 dimensions"):
        check_size(fit_projection(rows, whiten=False), 10)
    done = pan_export("onnx", checkpoint, tmp_path / "bundle", "--dim", 16, "--images", 4)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pass the data set of the training with --data" in done.stderr


def test_explain_graph_computes_masks_and_equation_2(exported: tuple[Path, dict[str, object]], pan_c: Traced) -> None:
    """Compared with masks and Eq. 2 computed from the layers of the network."""
    entry, path = load_bundle(exported[0]).file("onnx", "float32", "explain")
    assert entry.parity is not None
    crops = synthetic_samples(SPEC, 3).images_NHW3
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["masks", "compatibility_1", "compatibility_2", "compatibility_3"]
    masks, *maps = session.run(names, {"images": crops})
    network = pan_c.network
    with torch.inference_mode():
        *middle, x4 = network.backbone(Normalise(SPEC)(to_planes(torch.from_numpy(crops))))
        parts = torch.cat([scale.spatial(x4) for scale in network.parts.scales], 1)
        gates = torch.cat([scale.channel(x4).expand(-1, -1, scale.parts, 1) for scale in network.parts.scales], 2)
        part_BCI = torch.einsum("bihw,bchw->bci", parts, x4) / x4[0, 0].numel() * gates[..., 0]
        np.testing.assert_allclose(masks, parts, atol=1e-4)
        for found, pam, x in zip(maps, network.pams, middle, strict=True):
            phi, psi = (
                torch.einsum("dc,bci->bdi", pam.phi.weight, part_BCI),
                torch.einsum("dc,bchw->bdhw", pam.psi.weight, x),
            )
            theta = torch.einsum("bdi,bdhw->bihw", phi, psi)
            np.testing.assert_allclose(found, theta, rtol=1e-3, atol=1e-3 * float(theta.abs().max()))


def test_verify_skips_the_explain_graph(exported: tuple[Path, dict[str, object]]) -> None:
    done = pan_export("verify", exported[0], "--images", 4, "--json")
    assert done.returncode == 0
    verdicts = {verdict["engine"]: verdict["verdict"] for verdict in json.loads(done.stdout)}
    assert verdicts == {"onnx float32": "pass", "onnx float32 explain": "unseen"}
