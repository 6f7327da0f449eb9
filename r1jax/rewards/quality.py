"""Quality values of steps, inferred from the ends of a tree of responses.

ReST-MCTS* (arXiv 2406.03816): the process rewards that a value model learns
come from the answers alone. A step is right if a right response goes through
it. It moves the quality value v of what is before it, 0 of the prompt, by

    w = (1 - v) / (m + 1)    towards 1 if it is right, towards 0 if not

and the value is never below 0. m is the reasoning distance: the fewest steps
from here to a right end; of a wrong step, from the last right node above it
(as in the authors' code). So the values of a right response of K steps are 1/K,
2/K, ..., 1, where no other is shorter.
"""

from collections.abc import Sequence
Steps = Sequence[str]


def values(responses: Sequence[Steps], right: Sequence[bool]
           ) -> list[list[float | None]]:
  """The quality value of each step of all responses to one prompt.

  Args:
    responses: their steps. Equal beginnings are one path of the tree.
    right: whether the answer of each is right.

  Returns:
    Values from 0 to 1; None where no response is right: nothing is known of the
    distance then.
  """
  distance = {}  # of the nodes above right ends, by their path
  for steps, one in zip(responses, right):
    for depth, path in enumerate(_paths(steps) if one else ()):
      left = len(steps) - depth
      distance[path] = min(left, distance.get(path, left))
  if not distance:
    return [[None] * len(steps) for steps in responses]
  return [_along(steps, distance) for steps in responses]


def _along(steps: Steps, distance: dict[tuple[str, ...], int]) -> list[float]:
  value, found, left = 0., [], distance[()]
  for path in _paths(steps)[1:]:
    left = distance.get(path, left)
    weight = (1 - value) / (left + 1)
    value = max(value + (weight if path in distance else -weight), 0.)
    found.append(value)
  return found


def _paths(steps: Steps) -> list[tuple[str, ...]]:
  """(), (first,), (first, second), ..."""
  return [tuple(steps[:n]) for n in range(len(steps) + 1)]
