"""Cameras: position, light, colours, sharpness and noise, the same for all crops of a camera.

White balance differs so much between cameras that a raw colour does not match across them.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from bundle import ImageArray
from training.synth.raster import Floats

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a synthetic world, numbered from 1. Angles in radians, distance in metres."""

    number: int
    elevation: float
    distance: float
    walkway: float  # walking direction relative to the camera: 0 towards it, pi/2 across
    light: tuple[float, float, float]  # towards the light, view axes
    ambient: float
    balance: tuple[float, float, float]  # gain of red, green, blue
    saturation: float
    contrast: float
    gamma: float
    haze: float  # added brightness of black
    sharpness: float  # native resolution, as a share of the crop's
    noise: float
    jpeg_quality: int


def sample_camera(seed: int, number: int) -> Camera:
    """The camera `number` of the world `seed`; the same arguments always give the same camera."""
    rng = np.random.default_rng([seed, 2, number])
    light = np.array([rng.uniform(-0.9, 0.9), rng.uniform(0.3, 1.0), rng.uniform(0.35, 0.9)])
    light /= np.linalg.norm(light)
    warmth, tint = rng.choice([-1, 1]) * rng.uniform(0.04, 0.16), rng.normal(0, 0.03)
    exposure = rng.normal(0, 0.08)
    balance = np.exp(exposure + np.array([warmth, tint, -warmth]))
    return Camera(
        number=number,
        elevation=float(rng.uniform(0.03, 0.5)),
        distance=float(rng.uniform(4.0, 9.0)),
        walkway=float(rng.choice([0.0, np.pi / 4, np.pi / 2, -np.pi / 4]) + rng.normal(0, 0.15)),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.35, 0.65)),
        balance=(float(balance[0]), float(balance[1]), float(balance[2])),
        saturation=float(rng.uniform(0.75, 1.1)),
        contrast=float(rng.uniform(0.85, 1.15)),
        gamma=float(np.exp(rng.normal(0, 0.08))),
        haze=float(rng.uniform(0.0, 0.05)),
        sharpness=float(rng.uniform(0.6, 1.0)),
        noise=float(rng.uniform(0.004, 0.025)),
        jpeg_quality=int(rng.integers(60, 92)),
    )


def expose(scene: Floats, camera: Camera, rng: np.random.Generator) -> ImageArray:
    """The image of a scene (H, W, 3) in 0..1: uint8 of the same shape. `rng` determines light and noise."""
    height, width, _ = scene.shape
    image = scene * _falling_light(height, width, rng)
    image = image * (np.array(camera.balance, np.float32) * np.float32(np.exp(rng.normal(0, 0.08))))
    grey = (image @ LUMA)[..., None]
    image = grey + camera.saturation * (image - grey)
    image = 0.45 + camera.contrast * (image - 0.45)
    image = np.clip(image, 0, 1) ** camera.gamma
    image = camera.haze + (1 - camera.haze) * image
    soft = _soften(image, camera.sharpness * rng.uniform(0.75, 1.0))
    noisy = soft + rng.normal(0, camera.noise, image.shape)
    return np.clip(np.rint(noisy * 255), 0, 255).astype(np.uint8)


def _falling_light(height: int, width: int, rng: np.random.Generator) -> Floats:
    """A brightness gradient, sometimes with the edge of a shadow, as gains (height, width, 1)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    way = rng.uniform(0, 2 * np.pi)
    across = np.cos(way) * x + np.sin(way) * y
    gain = 1 + rng.uniform(0, 0.22) * across
    if rng.random() < 0.2:
        gain *= np.where(across > rng.uniform(-0.7, 0.7), 1.0, rng.uniform(0.55, 0.8))
    return np.asarray(gain[..., None], np.float32)


def _soften(image: Floats, sharpness: float) -> Floats:
    """Downsample to `sharpness` times the resolution and back."""
    height, width, _ = image.shape
    picture = Image.fromarray(np.clip(image * 255, 0, 255).astype(np.uint8))
    small = picture.resize((max(8, round(width * sharpness)), max(8, round(height * sharpness))), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
