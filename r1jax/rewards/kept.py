"""Answers that a policy gives again are not verified again.

A policy gives the same answers to a problem at every evaluation and epoch.
Comparing formulas takes a tenth of a millisecond to many, so what was found is
kept, by a digest of all that the verifier is given: 32 bytes and an outcome
each, the latest of them.
"""

import hashlib
import pickle
from typing import Sequence

from r1jax.rewards import workers

_MOST = 1 << 16


class Pool(workers.Pool):
  """A pool of verifiers whose outcomes are functions of their jobs alone.

  An outcome that is not 'ok' is not kept: what was late may not be so again.
  """

  def __init__(self, limit: int, timeout_seconds: float, most: int = _MOST):
    """As of any pool; `most`: outcomes that are kept."""
    super().__init__(limit, timeout_seconds)
    self._most = most
    self._kept = {}  # {digest of a job: Outcome}, those met last at the end

  def run(self, jobs: Sequence[workers.Job], together: bool = False
          ) -> list[workers.Outcome]:
    names = list(map(_digest, jobs))
    found = {name: self._kept.pop(name) for name in dict.fromkeys(names)
             if name in self._kept}
    left = {name: job for name, job in zip(names, jobs) if name not in found}
    self._kept |= found  # whatever comes of the others
    found |= zip(left, super().run(list(left.values()), together), strict=True)
    self._kept |= {name: found[name] for name in left
                   if found[name].status == 'ok'}
    while len(self._kept) > self._most:
      del self._kept[next(iter(self._kept))]
    return [found[name] for name in names]


def _digest(job: workers.Job) -> bytes:
  return hashlib.sha256(pickle.dumps(tuple(job))).digest()
