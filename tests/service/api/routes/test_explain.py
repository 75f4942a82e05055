"""Part masks and compatibility maps over HTTP, from a second graph that is loaded by the first call."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle import Manifest, load_bundle, load_crop, save_manifest, sha256_file
from pan_reid import schemas
from service.core.settings import Settings
from tests.support.bundles import HEIGHT, WIDTH, write_bundle
from tests.support.pictures import encode, person, png
from tests.support.servers import running

PARTS = 2


def add_explain(folder: Path) -> Path:
    """A graph with masks of red and green in cells of 8 pixels, and a compatibility map of blue in cells of 16."""
    nodes = [
        helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["fine"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("AveragePool", ["planes"], ["coarse"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Gather", ["fine", "red_green"], ["masks"], axis=1),
        helper.make_node("Gather", ["coarse", "blue_blue"], ["compatibility_1"], axis=1),
    ]
    shapes = {"masks": (8, 4), "compatibility_1": (4, 2)}
    graph = helper.make_graph(
        nodes,
        "maps",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", PARTS, *at]) for name, at in shapes.items()],
        [numpy_helper.from_array(np.array(parts), name) for name, parts in
         (("red_green", [0, 1]), ("blue_blue", [2, 2]))],
    )  # fmt: skip
    path = folder / "explain.float32.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    data = load_bundle(folder).manifest.model_dump(mode="json")
    entry = {"name": path.name, "purpose": "explain", "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    data["files"].append({**data["files"][0], **entry})
    save_manifest(folder, Manifest.model_validate(data))
    return folder


def truth(picture: bytes) -> tuple[np.ndarray, np.ndarray]:
    pixels = load_crop(picture, HEIGHT, WIDTH).astype(np.float64)
    fine = pixels.reshape(8, 8, 4, 8, 3).mean((1, 3))
    coarse = pixels.reshape(4, 16, 2, 16, 3).mean((1, 3))
    return fine[..., :2].transpose(2, 0, 1), np.stack([coarse[..., 2]] * 2)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    bundle = add_explain(write_bundle(tmp_path_factory.mktemp("explained")))
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"))) as client:
        yield client


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("x", picture)) for picture in pictures]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_each_crop_gets_its_own_maps(api: httpx.Client, encoding: str) -> None:
    answer = api.post("/v1/explain", files=files(png(1), b"no picture", png(2)), data={"encoding": encoding})
    assert answer.status_code == 207
    found = schemas.Explanations.model_validate_json(answer.content)
    assert found.fingerprint == api.get("/v1/model").json()["fingerprint"]
    first, bad, last = found.explanations
    assert bad.error is not None
    assert (bad.error.code, bad.maps) == ("unsupported-image", None)
    for one, picture in ((first, png(1)), (last, png(2))):
        assert one.maps is not None
        assert [shown.name for shown in one.maps] == ["masks", "compatibility_1"]
        for shown, expected in zip(one.maps, truth(picture), strict=True):
            assert shown.shape == list(expected.shape)
            values = shown.values
            if isinstance(values, str):
                assert encoding == "base64"
                values = np.frombuffer(base64.b64decode(values), "<f4").reshape(shown.shape).tolist()
            np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_frame_with_boxes_is_explained_by_crop(api: httpx.Client) -> None:
    frame = encode(person(5, 0, height=200, width=100))
    crop = encode(person(5, 0, height=200, width=100).crop((10, 20, 80, 180)))
    answer = api.post("/v1/explain", files=files(frame), data={"boxes": json.dumps([[10, 20, 70, 160]])})
    maps = schemas.Explanations.model_validate_json(answer.content).explanations[0].maps
    assert maps is not None
    np.testing.assert_allclose(maps[0].values, truth(crop)[0], rtol=1e-5)


def test_too_many_crops_are_refused(api: httpx.Client) -> None:
    answer = api.post("/v1/explain", files=files(*[png(1)] * 17))
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    answer = api.post("/v1/explain", files=files(b"bad", b"worse"))
    assert (answer.status_code, answer.json()["code"]) == (422, "unusable-images")


def test_concurrent_calls_load_the_graph_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    loaded: list[str] = []
    session = onnxruntime.InferenceSession

    def counted(path: str, *arguments: object, **options: object) -> object:
        loaded.append(Path(path).name)
        return session(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    bundle = add_explain(write_bundle(tmp_path / "bundle"))
    (tmp_path / "data").mkdir()
    with running(Settings(bundle=bundle, data=tmp_path / "data")) as client:
        assert loaded == ["model.onnx"]
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(client.post("/v1/explain", files=files(png(1))).status_code)
            )
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 6
        assert loaded == ["model.onnx", "explain.float32.onnx"]


def test_without_the_graph_the_error_says_how_to_export_it(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path)) as client:
        answer = client.post("/v1/explain", files=files(png(1)))
        assert (answer.status_code, answer.json()["code"]) == (409, "no-explain-graph")
        assert "pan-export onnx --explain" in answer.json()["detail"]


def test_a_failing_graph_is_reported_and_does_not_affect_the_engine(tmp_path: Path) -> None:
    bundle = add_explain(write_bundle(tmp_path / "bundle"))
    path = bundle / "explain.float32.onnx"
    path.write_bytes(b"no graph")
    data = json.loads((bundle / "manifest.json").read_text())
    data["files"][1] |= {"bytes": 8, "sha256": sha256_file(path)}
    save_manifest(bundle, Manifest.model_validate(data))
    (tmp_path / "data").mkdir()
    with running(Settings(bundle=bundle, data=tmp_path / "data")) as client:
        for _ in range(2):
            answer = client.post("/v1/explain", files=files(png(1)))
            assert (answer.status_code, answer.json()["code"]) == (503, "engine-failed")
        assert client.post("/v1/embeddings", files=files(png(1))).status_code == 200
