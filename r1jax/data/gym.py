"""Problems of any reasoning_gym dataset, the same in every process.

Some of its generators iterate over sets of strings or draw from the global
random state, so what they make depends on Python's hash seed and on what ran
before. They therefore run in a process of their own, in which both are fixed:
    python -m r1jax.data.gym '{"name": "chain_sum", "split": "train", ...}'
"""

import json
import os
import pathlib
import pickle
import random
import subprocess
import sys
from typing import Any

from r1jax import errors
from r1jax.data import splits

_PATIENCE = 40  # problems drawn for each one kept before giving up
_REFUSED = 2  # exit status


def generate(name: str, split: str, seed: int, size: int,
             config: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns `size` distinct entries of a dataset: question, answer, metadata.

  A problem belongs to 'heldout' iff a hash of its text says so (splits), else
  to 'train': the two are disjoint for all seeds, sizes and settings.

  Args:
    name: a dataset registered in reasoning_gym.
    split: 'train' or 'heldout'.
    seed: of its generator.
    size: number of entries.
    config: settings of the dataset, fields of its reasoning_gym config.

  Raises:
    ConfigError: the dataset, split or a setting is unknown, or there are fewer
      problems.
  """
  splits.check(split)
  request = json.dumps(
      dict(name=name, split=split, seed=seed, size=size, config=config))
  root = str(pathlib.Path(__file__).parents[2])
  path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
  done = subprocess.run(
      [sys.executable, '-m', __name__, request], capture_output=True,
      env={**os.environ, 'PYTHONHASHSEED': '0', 'PYTHONPATH': path},
      check=False)
  stderr = done.stderr.decode().strip()
  if done.returncode == _REFUSED:
    field, _, message = stderr.rpartition('\n')[2].partition(': ')
    raise errors.ConfigError(field.removeprefix('config.'), message)
  if done.returncode:
    raise RuntimeError(f'reasoning_gym {name!r} failed:\n{stderr}')
  return pickle.loads(done.stdout)


def _generate(name: str, split: str, seed: int, size: int,
              config: dict[str, Any]) -> list[dict[str, Any]]:
  """Does the work of `generate`, in the process made for it."""
  import reasoning_gym  # pylint: disable=g-import-not-at-top
  from reasoning_gym import factory  # pylint: disable=g-import-not-at-top
  errors.check_choice('data.task', name, factory.DATASETS)
  draws = size * _PATIENCE + 200
  random.seed(seed)
  try:
    dataset = reasoning_gym.create_dataset(
        name, seed=seed, size=draws, **config)
  except (AssertionError, TypeError, ValueError) as e:  # from its config
    raise errors.ConfigError(
        'data.options', f'reasoning_gym {name!r} refuses {config}: '
        f'{e}') from e
  entries = {}
  for i in range(draws):
    if len(entries) == size:
      break
    entry = dataset[i]
    if splits.in_split(entry['question'], split):
      entries.setdefault(entry['question'], entry)
  if len(entries) < size:
    raise errors.ConfigError(
        'data.options.size', f'expected at most the {len(entries)} distinct '
        f'{split!r} problems that {name!r} makes in {draws} draws, received '
        f'{size}')
  return list(entries.values())


if __name__ == '__main__':
  try:
    _found = _generate(**json.loads(sys.argv[1]))
  except errors.ConfigError as e:
    print(e, file=sys.stderr)
    sys.exit(_REFUSED)
  sys.stdout.buffer.write(pickle.dumps(_found))
