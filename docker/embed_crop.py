"""Embed a synthetic crop over REST and compare the vector with a reference implementation. Part of image-check."""

import os
import sys

import httpx
import numpy as np

from bundle import load_crop
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import png

url = f"{sys.argv[1]}/v1/embeddings"
crop = png(identity=1)
headers = {"Content-Type": "image/png"}
if httpx.post(url, content=crop, headers=headers, trust_env=False).status_code != 401:
    sys.exit("the service answers without an API key")
headers["Authorization"] = f"Bearer {os.environ['PAN_API_KEY']}"
answer = httpx.post(url, content=crop, headers=headers, trust_env=False)
answer.raise_for_status()
embedding = np.array(answer.json()["embeddings"][0]["embedding"])
expected = reference_embedding(load_crop(crop, HEIGHT, WIDTH)[None])[0]
cosine = float(embedding @ expected)
print(f"embedded one crop: {len(embedding)} numbers, cosine {cosine:.7f} with the reference")
if embedding.shape != expected.shape or not np.isclose(cosine, 1.0, atol=1e-5):
    sys.exit("the embedding differs from the reference")
