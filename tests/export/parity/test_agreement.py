"""The comparison and its gate, on engines whose faults are known."""

import numpy as np
import pytest

from bundle import ImageArray
from export.errors import ExportError, ParityError
from export.parity.agreement import check_gates, format_cosine, in_batches
from export.parity.gates import DEFAULTS, Gates, parse_gate
from tests.export.conftest import compare
from training.embed import Floats

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 2, 3), np.uint8)
PROJECTION = np.random.default_rng(1).normal(size=(24, 16))


def exact(images: ImageArray) -> Floats:
    """A model: pixels through a fixed projection, to unit length."""
    rows = images.reshape(len(images), -1) @ PROJECTION
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def turned(images: ImageArray, cosine: float) -> Floats:
    """The same vectors, turned by a known angle."""
    rows = exact(images).astype(np.float64)
    side = np.roll(rows, 1, axis=1)
    side -= (side * rows).sum(1, keepdims=True) * rows
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.asarray(cosine * rows + np.sqrt(1 - cosine**2) * side, np.float32)


def test_a_known_angle_is_measured_and_judged() -> None:
    agreement = compare(exact, lambda images: turned(images, 0.9999), IMAGES, (1, 4))
    assert agreement.cosine_min == pytest.approx(0.9999, abs=1e-7)
    assert agreement.cosine_mean == pytest.approx(0.9999, abs=1e-7)
    check_gates(agreement, Gates(0.9998, 0.999999, 0.0))
    with pytest.raises(ParityError, match=r"min cosine 1 - 1\.0e-04 at batch 1, the gate is 1 - 1\.0e-05"):
        check_gates(agreement, DEFAULTS["float32"])


def test_one_bad_crop_at_one_batch_size_is_found() -> None:
    def engine(images: ImageArray) -> Floats:
        rows = exact(images)
        if len(images) == 4:
            rows[2] = turned(images[2:3], 0.99)[0]
        return rows

    agreement = compare(exact, engine, IMAGES, (1, 2, 4))
    assert agreement.cosine[2][0] > 0.999999
    assert agreement.cosine[4][0] == pytest.approx(0.99, abs=1e-6)
    with pytest.raises(ParityError, match="at batch 4"):
        check_gates(agreement, DEFAULTS["float32"])


def test_a_vector_that_depends_on_its_batch_fails_within_the_cosine_gate() -> None:
    def engine(images: ImageArray) -> Floats:
        return turned(images, 0.999995) if len(images) > 1 else exact(images)

    agreement = compare(exact, engine, IMAGES, (1, 5))
    assert agreement.cosine_min > 0.99999
    with pytest.raises(ParityError, match="depends on its batch"):
        check_gates(agreement, DEFAULTS["float32"])


def test_a_collapsed_network_is_refused() -> None:
    def constant(images: ImageArray) -> Floats:
        return np.repeat(np.eye(1, 16, dtype=np.float32), len(images), axis=0)

    with pytest.raises(ParityError, match="collapsed"):
        check_gates(compare(constant, constant, IMAGES), DEFAULTS["float32"])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda rows: rows * np.float32(1.01), "not 1"),
        (lambda rows: np.where(np.arange(16) == 3, np.float32(np.nan), rows), "NaN or infinity"),
        (lambda rows: rows[:, :8], r"\(10, 8\), PyTorch \(10, 16\)"),
    ],
)
def test_rows_that_are_no_descriptors_are_refused(fault, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ParityError, match=message):
        compare(exact, lambda images: fault(exact(images)), IMAGES)


def test_batches_are_always_full() -> None:
    seen = []

    def engine(images: ImageArray) -> Floats:
        seen.append(len(images))
        return exact(images)

    rows = in_batches(engine, IMAGES, 32)
    np.testing.assert_array_equal(rows, exact(IMAGES))
    in_batches(engine, IMAGES, 7)
    assert seen == [32, 7, 7]


def test_cosines_near_one_can_be_read() -> None:
    assert format_cosine(0.98213) == "0.98213"
    assert format_cosine(1 - 2.4e-7) == "1 - 2.4e-07"


def test_a_worse_ranking_fails_where_there_are_queries_enough() -> None:
    """Vectors within the cosine gate whose nearest neighbours are others."""
    people = np.random.default_rng(2).integers(0, 256, (300, 4, 2, 3), np.uint8)
    people[150:] = people[:150]  # everybody is seen twice

    def confused(images: ImageArray) -> Floats:
        rows = exact(images)
        if len(images) == 300:  # the ranking, not the comparison of descriptors
            rows[150:300] = np.roll(rows[150:300], 1, axis=0)
        return rows

    few = compare(exact, confused, people[:10], (4,), people=5)
    assert few.mAP_difference == 0.0
    check_gates(few, DEFAULTS["int8"])
    many = compare(exact, confused, people, (4,), people=150)
    assert (many.queries, many.cosine_min > 0.999999) == (150, True)
    assert many.mAP_difference < -90
    with pytest.raises(ParityError, match=r"ranks worse than PyTorch: mAP -9\d\.\d\d points over 150 queries"):
        check_gates(many, DEFAULTS["int8"])
    parity = many.parity(DEFAULTS["int8"])
    assert (parity.mAP_difference, parity.gate_mAP_loss) == (many.mAP_difference, 0.5)


def test_a_gate_is_read_as_it_is_written() -> None:
    assert parse_gate("int8:0.97") == ("int8", Gates(0.97, 0.9999, 0.5))
    assert parse_gate("fp16:0.99:1.5") == parse_gate("float16:0.99:1.5")
    assert parse_gate("float16:0.99:1.5") == ("float16", Gates(0.99, 0.9999, 1.5))
    assert parse_gate("float16:0.99:1.5:0.99999") == ("float16", Gates(0.99, 0.99999, 1.5))
    for wrong in ("int8", "int4:0.9", "int8:high", "int8:2", "int8:0.9:-1", "int8:0.9:0.5:3", "int8:0.9:0.5:0.9:1"):
        with pytest.raises(ExportError, match=r"such as int8:0\.97:0\.3"):
            parse_gate(wrong)
