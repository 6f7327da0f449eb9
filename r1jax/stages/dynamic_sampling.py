"""DAPO's dynamic sampling (arXiv 2503.14476, eq. 11).

Groups of equal rewards have no advantage. They are replaced by those of further
rounds; those that are still missing weigh 0.
"""

from collections.abc import Callable

import numpy as np

from r1jax.stages import scoring


def equal_groups(reward_BG: np.ndarray) -> np.ndarray:
  """bool[B]: all rewards of a group are equal, and its advantages 0."""
  return np.all(reward_BG == reward_BG[:, :1], axis=1)


def replace_equal_groups(
    scored: scoring.Scored, group: int, most: int,
    further: Callable[[int], scoring.Scored]) -> scoring.Scored:
  """The rollout of a step, with groups of further rounds for equal ones.

  Args:
    scored: the first round.
    group: G, responses per prompt.
    most: rounds, the first included.
    further: number of a round, from 1 -> its scored rollout.
  """
  rounds, prompts = [scored], len(scored.reward) // group
  while True:
    reward_BG = np.concatenate(
        [one.reward for one in rounds]).reshape(-1, group)
    keep_B = ~equal_groups(reward_BG)
    if keep_B.sum() >= prompts or len(rounds) == most:
      break
    rounds.append(further(len(rounds)))
  chosen_B = np.sort(np.argsort(~keep_B, kind='stable')[:prompts])
  if len(rounds) > 1:
    scored = scoring.select_groups(rounds, chosen_B, group)
  rows_B = np.arange(len(scored.rows)).reshape(-1, group)[chosen_B]
  kept_B = keep_B[chosen_B]
  return scored._replace(
      drawn=len(keep_B), dropped=len(keep_B) - int(kept_B.sum()),
      kept=np.repeat(kept_B, group),
      kept_rows=[scored.rows[n] for n in rows_B[kept_B].flat])
