"""Batches of P identities x K crops, as a pure function of seed and step, so that resuming is exact."""

import numpy as np

from training.data.crops import IntArray
from training.errors import DataError


class IdentitySampler:
    """Batches of P identities with K crops each; every identity occurs once before any is repeated."""

    def __init__(self, labels: IntArray, identities: int, crops: int, seed: int) -> None:
        """`labels` (n,): 0..K-1 for each crop. Raises DataError if there are fewer identities than a batch needs."""
        self.members = [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
        self.identities, self.crops, self.seed = identities, crops, seed
        if len(self.members) < identities:
            raise DataError(
                f"a batch needs {identities} identities and the data set has {len(self.members)} with at least two "
                "crops; lower sampler.identities"
            )

    def __call__(self, step: int) -> IntArray:
        """Indices of the crops of batch `step`, (P * K,)."""
        batches_a_round = len(self.members) // self.identities
        round_, position = divmod(step, batches_a_round)
        order = np.random.default_rng((self.seed, 0, round_)).permutation(len(self.members))
        chosen = order[position * self.identities : (position + 1) * self.identities]
        rng = np.random.default_rng((self.seed, 1, step))
        return np.concatenate([self._draw(self.members[label], rng) for label in chosen])

    def _draw(self, members: IntArray, rng: np.random.Generator) -> IntArray:
        """K crops of one person: all different if there are enough, otherwise repeated."""
        repeats = -(-self.crops // len(members))
        return np.concatenate([rng.permutation(members) for _ in range(repeats)])[: self.crops]
