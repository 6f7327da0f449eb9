"""The names of rewards: a user's stand beside ours, and take no other's place.

A reward function or a reward model is a column of rollouts.jsonl, a metric
reward/NAME and, of a model, a result of evaluations. A function's own columns
are NAME/COLUMN: with no '/' in a name they are apart from all others.
"""

from collections.abc import Iterable

from r1jax import config

TAKEN = frozenset([
    # Columns of a response, in files and reports, besides score.NAMES.
    'step', 'id', 'task', 'prompt', 'answer', 'response', 'tokens', 'finished',
    'reward', 'no_verdict', 'source', 'dropped', 'variety', 'extracted',
    'test', 'sample', 'vote', 'prompt_tokens', 'verdict', 'verdict_detail',
    'step_ends',
    # Metrics reward/...
    'mean', 'std', 'frac_zero_std',
    # Results of an evaluation.
    'n', 'pass@1', 'ci95', 'greedy', 'response_length', 'truncated', 'tasks',
    'verifier', 'samples', 'left_out', 'answered', 'intervals', 'sampling',
    'figures', 'response_tokens'])


def check(field: str, names: Iterable[str], others: Iterable[str] = ()) -> None:
  """Refuses names of the section `config.<field>` that are taken.

  Args:
    field: 'rewards.functions' or 'rewards.models'.
    names: the user's.
    others: what else they cannot be: the parts of score.NAMES, and the names of
      the other section.
  """
  config.check_names(field, names, TAKEN.union(others))
