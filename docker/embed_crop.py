"""Embed one drawn crop over REST and compare the answer with what the model is by definition. Part of image-check."""

import sys

import httpx
import numpy as np

from bundle import load_crop
from tests.service.bundles import HEIGHT, WIDTH, reference_embedding
from tests.service.pictures import png

url = sys.argv[1]
crop = png(identity=1)
answer = httpx.post(f"{url}/v1/embeddings", content=crop, headers={"Content-Type": "image/png"}, trust_env=False)
answer.raise_for_status()
embedding = np.array(answer.json()["embeddings"][0]["embedding"])
expected = reference_embedding(load_crop(crop, HEIGHT, WIDTH)[None])[0]
cosine = float(embedding @ expected)
print(f"embedded one crop: {len(embedding)} numbers, cosine {cosine:.7f} with the reference")
if embedding.shape != expected.shape or not np.isclose(cosine, 1.0, atol=1e-5):
    sys.exit("the embedding is not the reference's")
