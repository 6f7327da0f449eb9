"""pass@k: the chance that at least one of k responses is right.

The estimate from n responses of which c are right is 1 - C(n-c, k) / C(n, k):
the share of sets of k among them with a right one, which is unbiased (Chen et
al., arXiv 2107.03374, eq. 1). 1 - (1 - c/n)^k is not. From n responses there is
no figure for more than n, nor for k > 1 from greedy ones, which are all the
same.
"""

import math


def estimate(n: int, correct: int, k: int) -> float:
  """pass@k of a problem with `correct` of n responses right.

  Raises:
    ValueError: k is not 1 to n, or `correct` not 0 to n.
  """
  if not 1 <= k <= n:
    raise ValueError(f'pass@{k} needs at least {k} responses to each problem, '
                     f'received {n}')
  if not 0 <= correct <= n:
    raise ValueError(f'{correct} of {n} responses are right')
  return 1. - math.comb(n - correct, k) / math.comb(n, k)


def sizes(samples: int) -> list[int]:
  """The k that are reported of so many samples: powers of two, and all."""
  powers = [1 << power for power in range(samples.bit_length())]
  return sorted({*(k for k in powers if k <= samples), samples})
