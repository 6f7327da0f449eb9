"""How often loops run for responses of some lengths: when these are drawn, and
over micro-batches of packed rows.

Nobody knows the lengths before a run. All are the limit, or the user says what
they are on average (config.plan.mean_response_tokens); then they are
log-normal, as in `bench.py:tail`, and do not depend on their prompts. Their
order on the devices is a fixed one.

A loop is named as counts.Loop has it. What is in slots, or in a micro-batch, is
what the programs would have there, which tests compare.
"""

import heapq
import itertools
import math
import statistics

import jax.numpy as jnp
import numpy as np

from r1jax.kernels import attention
from r1jax.kernels import packing
from r1jax.stages import ending

_HALVINGS = 60  # of the interval in which the lengths' scale is sought


def lengths(count: int, mean: float | None, most: int) -> np.ndarray:
  """Tokens of so many responses, i64[count].

  Args:
    count: of responses.
    mean: of them, but for rounding; None: all have `most`.
    most: tokens; longer ones are cut.
  """
  if mean is None:
    return np.full(count, most)
  normal = statistics.NormalDist(sigma=ending.SIGMA)
  spread = np.exp([normal.inv_cdf((n + .5) / count) for n in range(count)])
  cut = lambda scale: np.clip(spread * scale, 1, most)
  # The least and the largest factor that could give such a mean.
  least, largest = 0., most / spread[0]
  for _ in range(_HALVINGS):
    scale = (least + largest) / 2
    least, largest = (scale, largest) if cut(scale).mean() < mean else (
        least, scale)
  return np.random.default_rng(0).permutation(
      np.rint(cut(largest)).astype(np.int64))


def together(tokens: np.ndarray, sizes: list[int]) -> dict[str, float]:
  """Trips of group_sampling's loops: all responses are drawn at once.

  Args:
    tokens: of each response.
    sizes: of the cache, as of group_sampling.cache_sizes.
  """
  edges, trips = np.minimum([0, *sizes], tokens.max()), {}
  for size, (begin, end) in zip(sizes, itertools.pairwise(edges)):
    trips |= _trips(f'tokens_{size}', np.arange(begin, end))
  return trips


def in_slots(tokens: np.ndarray, devices: int, sizes: list[tuple[int, int]]
            ) -> dict[str, float]:
  """Trips of continuous_batching's loops.

  Args:
    tokens: of each response, in the order in which they enter.
    devices: X, each with as many responses and slots as the others.
    sizes: of slots, as of continuous_batching.sizes.
  """
  begin, end = np.empty_like(tokens), np.empty_like(tokens)
  of_device = [x.reshape(devices, -1) for x in (tokens, begin, end)]
  for tokens_N, begin_N, end_N in zip(*of_device):
    free = [0] * (sizes[0][0] // devices)  # when each slot is
    for n, length in enumerate(tokens_N):
      begin_N[n] = free[0]
      end_N[n] = begin_N[n] + length
      heapq.heapreplace(free, end_N[n])
  # The first step without a response that waits, or more than fit into fewer.
  slots = sizes[0][0]
  rooms = [room for number, room in sizes if number == slots]
  fewer = sizes[-1][0] // devices if sizes[-1][0] < slots else 0
  ends_XN = np.sort(of_device[2], 1)
  move = max(begin.max() + 1, ends_XN[:, -fewer - 1].max() if (
      fewer < ends_XN.shape[1]) else 0)
  oldest = np.arange(end.max())  # when the longest response so far began
  for first in np.argsort(-begin, kind='stable'):
    oldest[begin[first]:end[first]] = begin[first]
  filled, trips = np.arange(end.max()) - oldest, {}
  longest = np.maximum.accumulate(filled[:move])
  parts = np.split(filled, np.searchsorted(longest, rooms))
  for (number, room), part in zip(sizes, parts):
    trips |= _trips(f'slots_{number}_{room}', part)
  return trips


def packed(tokens: np.ndarray, prompts: int, parts: int, devices: int,
           columns: int, packed_rows: int, size: int) -> dict[str, float]:
  """Trips of the loop over micro-batches, packed as by stages/micro_batches.py.

  Args:
    tokens: of each response.
    prompts: that these are to.
    parts: of the rollout, with a loop each; the mean over these is given.
    devices: that split a batch.
    columns: of a row.
    packed_rows: of a prompt, in a pass.
    size: rows of a micro-batch.
  """
  repeated = devices // math.gcd(devices, prompts // parts)
  rows = np.asarray(packing.first_fit(jnp.asarray(
      tokens.reshape(prompts * repeated, -1), jnp.int32), columns).rows)
  passes = (-(-rows // packed_rows)).reshape(parts, devices, -1).sum(2).max(1)
  return {'micro_batches': float(np.mean(
      -(-passes // (size // packed_rows // devices))))}


def steps(trips: dict[str, float]) -> int:
  """Steps of decoding, each a token of all that are drawn."""
  return round(sum(n for name, n in trips.items() if '/' not in name))


def _trips(name: str, filled: np.ndarray) -> dict[str, float]:
  """Of a loop over tokens, and that over blocks of the cache within it.

  `filled` are the tokens in the cache, its longest row, before each step.
  """
  blocks = filled // attention.BLOCK + 1
  return {name: float(filled.size),
          f'{name}/cache_blocks': float(blocks.mean()) if filled.size else 0.}
