"""Colour jitter and TrivialAugment against Pillow's and the standard library's operations, image by image."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from tests.export.conftest import SPEC
from training.data import AugmentConfig, augment, augment_pixels
from training.data import trivial_augment as trivial
from training.data.colour import jitter, recolour
from training.model import Normalise, to_planes

OFF = AugmentConfig(flip=0, shift=0, zoom=0, erase=0)
STRENGTHS = (-0.9, -0.4, 0.0, 0.3, 1.0)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Smooth noise of different ranges, and one image of one colour: (5, 40, 20, 3)."""
    random = np.random.default_rng(0)
    blocks = random.integers(30, 226, (5, 8, 4, 3), dtype=np.uint8)
    crops = np.stack([np.asarray(Image.fromarray(each).resize((20, 40))) for each in blocks])
    crops[1] //= 3
    crops[4] = (10, 200, 90)
    return crops


def planes(crops: np.ndarray) -> torch.Tensor:
    return to_planes(torch.from_numpy(crops))


def by_pillow(crops: np.ndarray, change: Callable[[Image.Image, float], Image.Image]) -> torch.Tensor:
    changed = [
        np.asarray(change(Image.fromarray(crop), strength)) for crop, strength in zip(crops, STRENGTHS, strict=True)
    ]
    return planes(np.stack(changed))


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "posterise": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "solarise": lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s))),  # type: ignore[arg-type]
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalise": lambda image, _: ImageOps.equalize(image),
}


@pytest.mark.parametrize("name", PILLOW)
def test_recolouring_is_the_operation_of_pillow(name: str, crops: np.ndarray) -> None:
    got = getattr(trivial, name)(planes(crops), torch.tensor(STRENGTHS))
    exact = name in ("posterise", "solarise", "equalise")
    torch.testing.assert_close(got, by_pillow(crops, PILLOW[name]), rtol=0, atol=0 if exact else 2)  # Pillow rounds


@pytest.mark.parametrize("name", trivial.MOVING)
def test_movement_is_the_affine_transform_of_pillow(name: str, crops: np.ndarray) -> None:
    """In pixels, as Pillow counts, at the centre: borders are blended in other ways."""
    height, width = crops.shape[1:3]
    moving, strengths = torch.full((5,), trivial.MOVING.index(name)), 0.6 * torch.tensor(STRENGTHS)
    matrix = trivial.movement(moving, strengths, height / width)
    got = augment(planes(crops), OFF, torch.Generator(), matrix)

    def change(image: Image.Image, strength: float) -> Image.Image:
        x, y, s = width / 2, height / 2, 0.6 * strength
        if name == "rotate":
            return image.rotate(30 * s, Image.Resampling.BILINEAR)
        rows = {
            "shear_x": (1, 0.3 * s, -0.3 * s * y, 0, 1, 0),
            "shear_y": (1, 0, 0, 0.3 * s, 1, -0.3 * s * x),
            "translate_x": (1, 0, 0.3 * s * width, 0, 1, 0),
            "translate_y": (1, 0, 0, 0, 1, 0.3 * s * height),
        }
        return image.transform(image.size, Image.Transform.AFFINE, rows[name], Image.Resampling.BILINEAR)

    centre = (slice(None), slice(None), slice(10, 30), slice(6, 14))
    torch.testing.assert_close(got[centre], by_pillow(crops, change)[centre], rtol=0, atol=1.01)  # Pillow truncates
    assert (got[centre] - planes(crops)[centre]).abs().max() > 10


def test_one_operation_of_each_kind_is_drawn_for_its_share_of_the_images() -> None:
    pixel = torch.randint(20, 200, (400, 3, 32, 20), generator=torch.Generator().manual_seed(1)).float()
    changed, matrix = trivial.trivial_augment(pixel, 0.5, torch.Generator().manual_seed(0))
    recoloured = (changed != pixel).flatten(1).any(1)
    moved = (matrix != torch.eye(3)).flatten(1).any(1)
    assert not (recoloured & moved).any()
    assert recoloured.float().mean() == pytest.approx(0.5 * 8 / 14, abs=0.08)
    assert moved.float().mean() == pytest.approx(0.5 * 5 / 14, abs=0.08)


def test_jitter_turns_the_chroma_of_the_standard_library(crops: np.ndarray) -> None:
    """Saturation and hue in colorsys' YIQ, then brightness, then contrast about the mean luma, pixel by pixel."""
    brightness, contrast, saturation, hue = (
        torch.tensor(x) for x in ([1.1, 0.9], [0.8, 1.15], [1.1, 0.5], [0.1, -0.3])
    )
    got = recolour(planes(crops[:2]), brightness, contrast, saturation, hue)
    for image in range(2):
        pixels = crops[image].reshape(-1, 3).astype(float)
        turned = np.exp(2j * np.pi * float(hue[image])) * float(saturation[image])
        rows = []
        for pixel in pixels:
            luma, i, q = colorsys.rgb_to_yiq(*pixel)
            chroma = complex(i, q) * turned
            # colorsys.yiq_to_rgb clips to 0..1, so the equations of its module are solved here
            red = luma + 0.9468822170900693 * chroma.real + 0.6235565819861433 * chroma.imag
            green = luma - 0.27478764629897834 * chroma.real - 0.6356910791873801 * chroma.imag
            blue = luma - 1.1085450346420322 * chroma.real + 1.7090069284064666 * chroma.imag
            rows.append([float(brightness[image]) * each for each in (red, green, blue)])
        bright = np.array(rows)
        mean = np.mean([colorsys.rgb_to_yiq(*pixel)[0] for pixel in bright])
        expected = np.clip(mean + float(contrast[image]) * (bright - mean), 0, 255).reshape(40, 20, 3)
        np.testing.assert_allclose(got[image].permute(1, 2, 0).numpy(), expected, atol=0.01)


def test_jitter_changes_its_share_of_the_images_and_by_no_more_than_its_strength() -> None:
    grey = torch.full((300, 3, 4, 4), 100.0)
    changed = jitter(grey, 0.4, (0.2, 0.0, 0.5, 0.5), torch.Generator().manual_seed(0))
    assert (changed - grey).abs().amax((1, 2, 3)).gt(0.01).float().mean() == pytest.approx(0.4, abs=0.08)
    assert changed.min() >= 80 - 0.01
    assert changed.max() <= 120 + 0.01
    torch.testing.assert_close(changed[:, 0], changed[:, 2])  # grey has no hue


def test_without_colour_options_the_pixels_are_those_of_the_plain_augmentation(crops: np.ndarray) -> None:
    normalise, config = Normalise(SPEC), AugmentConfig()
    plain = augment(normalise(planes(crops)), config, torch.Generator().manual_seed(3))
    assert torch.equal(augment_pixels(planes(crops), normalise, config, torch.Generator().manual_seed(3)), plain)


def test_colour_and_movement_reach_the_batch_and_repeat_with_the_seed(crops: np.ndarray) -> None:
    config = OFF.model_copy(update={"jitter": 1.0, "trivial": 1.0})
    normalise, many = Normalise(SPEC), planes(np.repeat(crops, 8, 0))
    first, again, other = (
        augment_pixels(many, normalise, config, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.isfinite().all()
