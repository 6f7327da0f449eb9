"""Puts answers of several origins together: what a fine-tuning learns from.

R1's cold start and its 800 thousand samples are such unions (DeepSeek-R1,
arXiv 2501.12948, 2.3.1 and 2.3.3). Every line of collected.jsonl says which
part it is of and where that has it from; collected.json counts them. What two
parts have is of the one whose name comes first in the alphabet. Both files are
functions of the config and of what it reads, so a run that is interrupted is
run again and nothing is lost.
"""

from collections.abc import Iterator, Sequence
import collections
import functools
import pathlib
import random
from typing import Any

from r1jax import config as config_lib
from r1jax.rewards import filters
from r1jax.stages import setup as setup_lib
from r1jax.training import jsonl
from r1jax.training import loop
from r1jax.training import summary as summary_lib

NAME = 'collected.jsonl'
_ORDERS = ('random', 'curated')

Record = dict[str, Any]


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads what is to be collected; trains nothing."""
  from r1jax.data import sources  # reasoning_gym behind it
  parts = {}
  for name, part in config.collect.items():
    where = f'collect.{name}'
    config_lib.check_choice(f'{where}.order', part.order, _ORDERS)
    with config_lib.renamed('config.data', f'config.{where}'):
      parts[name] = sources.answered(
          part.task, 'train', config.seed, part.rows, part.options.to_dict())
    if not parts[name]:
      raise config_lib.error(f'{where}.task', 'at least one answer', part.task)
  return loop.Stage(0, *setup_lib.no_state(mesh), step=None,
                    finish=functools.partial(write, config, workdir, parts))


def write(config, workdir: str, parts: dict[str, list[Record]], summary) -> str:
  """Writes the union, whole or not at all; returns the closing words."""
  del summary
  seen, lines, table = set(), [], {}
  for name, records in parts.items():
    part, order = config.collect[name], random.Random(f'{config.seed}/{name}')
    records = list(fresh(records, seen))
    order.shuffle(records)
    if part.order == 'curated':
      records = curated(records)
    records = records[:part.rows]
    lines += [{key: row[key] for key in ('prompt', 'response', 'task')}
              | {'source': {'part': name, **row.get('source', {})}}
              for row in records]
    table[name] = dict(sorted(collections.Counter(
        row['task'] for row in records).items()))
  folder = pathlib.Path(workdir)
  random.Random(config.seed).shuffle(lines)
  jsonl.write(folder / NAME, lines)
  summary_lib.write_json(folder / 'collected.json', table)
  counts = '\n'.join(
      f'{name}: {sum(tasks.values())} (' + ', '.join(
          f'{task} {count}' for task, count in tasks.items()) + ')'
      for name, tasks in table.items())
  return (f'{counts}\ncollected: {len(lines)} answers in {folder / NAME}\n'
          f'next: SFT, --config.data.task=jsonl:{folder / NAME}')


def fresh(records: Sequence[Record], seen: set) -> Iterator[Record]:
  """Yields what no record before has said to the same prompt."""
  for row in records:
    said = row['prompt'], ' '.join(row['response'].split())
    if said not in seen:
      seen.add(said)
      yield row


def curated(records: Sequence[Record]) -> list[Record]:
  """The best first: the tasks taking turns, those that reflect on themselves.

  One response a prompt comes before a second to any. After LIMA (arXiv
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
