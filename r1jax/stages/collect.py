"""Mixes the examples of several sources into one data set for fine-tuning.

R1's cold-start data and its 800 thousand SFT samples are such mixtures
(DeepSeek-R1, arXiv 2501.12948, 2.3.1 and 2.3.3). Every line of collected.jsonl
names its part and the source of the example; collected.json counts examples
kept and left out. An example found in two parts counts for the part that comes
first in alphabetical order. Both files depend only on the config and the data
it reads, so an interrupted run is simply run again.
"""

from collections.abc import Collection, Sequence
import collections
import functools
import pathlib
import random
from typing import Any

from r1jax import config as config_lib
from r1jax import errors
from r1jax.rewards import filters
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import loop

COLLECTED = 'collected.jsonl'

Record = dict[str, Any]


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads the parts; trains nothing."""
  from r1jax.data import sources  # imported here: it brings reasoning_gym
  config_lib.check_names('collect', config.collect)
  parts, limits = {}, {}
  for name, part in config.collect.items():
    where = f'collect.{name}'
    with errors.section('data', at=where):
      parts[name] = sources.answered(
          part.task, 'train', config.seed, part.rows, part.options.to_dict())
    limits[name] = part.order, part.rows
    if not parts[name]:
      raise errors.expected(f'{where}.task', 'at least one answer', part.task)
  return loop.Stage(0, *train_state.empty_state(mesh), step=None,
                    finish=functools.partial(
                        write_collected, workdir, config.seed, parts, limits))


def write_collected(workdir: str, seed: int, parts: dict[str, list[Record]],
                    limits: dict[str, tuple[str, int | None]], summary) -> str:
  """Writes the union, whole or not at all; returns the closing words.

  `limits` are each part's order, and the most rows taken from it.
  """
  del summary
  seen, lines, table = set(), [], {}
  for name, records in parts.items():
    order, most = limits[name]
    distinct = fresh(records, seen)
    random.Random(f'{seed}/{name}').shuffle(distinct)
    if order == 'curated':
      distinct = curated(distinct)
    taken = distinct[:most]
    seen.update(map(_said, taken))  # a later part may take what was cut off
    lines += [{key: row[key] for key in ('prompt', 'response', 'task')}
              | {'source': _source(name, row)} for row in taken]
    table[name] = {
        'tasks': dict(sorted(collections.Counter(
            row['task'] for row in taken).items())),
        'repeats': len(records) - len(distinct),
        'beyond_rows': len(distinct) - len(taken)}
  folder = pathlib.Path(workdir)
  random.Random(seed).shuffle(lines)
  files.write_output(folder / COLLECTED, lines)
  files.write_json(folder / 'collected.json', table)
  return (f'{describe(table)}\n'
          f'collected: {len(lines)} answers in {folder / COLLECTED}\n'
          f'next: SFT, --config.data.task=jsonl:{folder / COLLECTED}')


def describe(table: dict[str, dict[str, Any]]) -> str:
  """A line per part: how many examples it has, and how many were left out."""
  return '\n'.join(
      f'{name}: {sum(counts["tasks"].values())} (' + ', '.join(
          f'{task} {count}' for task, count in counts['tasks'].items())
      + f'); left out: {counts["repeats"]} that repeat others, '
      f'{counts["beyond_rows"]} beyond its rows'
      for name, counts in table.items())


def fresh(records: Sequence[Record], seen: Collection[tuple[str, str]]
          ) -> list[Record]:
  """The records not yet `seen`; of duplicates, the first."""
  own = {}
  for row in records:
    own.setdefault(_said(row), row)
  return [row for said, row in own.items() if said not in seen]


def _said(row: Record) -> tuple[str, str]:
  return row['prompt'], ' '.join(row['response'].split())


def _source(name: str, row: Record) -> dict[str, Any]:
  """The source of a record, with the name of its part added."""
  source = row.get('source', {})
  if not isinstance(source, dict) or 'part' in source:  # collected before
    source = {'source': source}
  return {'part': name, **source}


def curated(records: Sequence[Record]) -> list[Record]:
  """The best first: tasks take turns, responses that reflect come first.

  Every prompt has one response before any has a second. After LIMA (arXiv
  2305.11206), where a thousand examples are chosen for variety and quality.
  """
  turns, rank = collections.Counter(), {}
  asked = collections.Counter()
  better = sorted(range(len(records)), key=lambda n: (
      not filters.reflections(records[n]['response']), n))
  for n in better:
    row = records[n]
    again = asked[row['prompt']]
    asked[row['prompt']] += 1
    rank[n] = (again, turns[row['task'], again], n)
    turns[row['task'], again] += 1
  return [records[n] for n in sorted(rank, key=rank.get)]
