"""The data set that rejection sampling leaves, and a table of what it dropped.

rollouts.jsonl has every response, with the reason why the filters drop it, if
they do. Two more filters need the whole run and are applied here, per prompt
text: duplicates of a kept response, and responses beyond `per_prompt`. Samples
of a prompt are exchangeable, so the first ones are kept.

The kept responses go to kept-00000.jsonl, kept-00001.jsonl, ..., one line each
with its prompt and source. kept.json counts, per task, the kept responses and
the dropped ones by reason. All files depend on the rollouts alone: after an
interruption they are written again, without loss or duplicates.
"""

import collections
from collections.abc import Iterator, Mapping
import hashlib
import itertools
import json
import pathlib
import re
from typing import Any

from r1jax.rewards import filters
from r1jax.training import files

SHARDS = 'kept-*.jsonl'
KEPT = 'kept'
_OWN = re.compile(r'kept-\d{5,}\.jsonl')  # not a person's kept-reviewed.jsonl


def write_kept(folder: pathlib.Path, shard_rows: int, source: Mapping[str, Any],
               per_prompt: int | None = None) -> dict[str, dict[str, int]]:
  """Writes shards of `shard_rows` lines each, and kept.json; returns its table.

  Args:
    folder: the workdir of the run.
    shard_rows: lines of a shard; the last has fewer.
    source: of every record, beside where in the run it was sampled.
    per_prompt: the most responses kept of a prompt; None: all.
  """
  table = collections.defaultdict(collections.Counter)
  lines = _lines(folder, source, per_prompt, table)
  shards = []
  while (shard := list(itertools.islice(lines, shard_rows))) or not shards:
    shards.append(folder / f'kept-{len(shards):05}.jsonl')
    files.write_output(shards[-1], shard)
  for path in set(folder.glob(SHARDS)).difference(shards):
    if _OWN.fullmatch(path.name):
      path.unlink()  # of a longer run before
  found = {task: dict(counts) for task, counts in sorted(table.items())}
  files.write_json(folder / 'kept.json', found)
  return found


def _lines(folder: pathlib.Path, source: Mapping[str, Any],
           per_prompt: int | None, table: dict[str, collections.Counter]
           ) -> Iterator[dict[str, Any]]:
  """Yields the kept responses, and counts all by task and reason."""
  answers = collections.defaultdict(set)  # by prompt, of those that are kept
  sample = collections.Counter()
  for row in files.stream_rows(folder / 'rollouts.jsonl'):
    sampled = {name: row[name] for name in ('step', 'id')}
    if 'source' in row:
      sampled['draft'] = row['source']
    sampled['sample'] = sample[row['step'], row['id']]
    sample[row['step'], row['id']] += 1
    seen = answers[_digest(row['prompt'])]
    said = _digest(row['response'].split())
    reason = row['dropped'] or (
        'duplicate' if said in seen else
        'per_prompt' if len(seen) == per_prompt else '')
    table[row['task']][reason or KEPT] += 1
    if reason:
      continue
    seen.add(said)
    yield {name: row[name] for name in (
        'prompt', 'response', 'answer', 'task')} | {
            'source': {**source, **sampled}}


def _digest(value: Any) -> bytes:
  """SHA-256 of a text or its words: the texts themselves may not fit in memory.
  """
  return hashlib.sha256(json.dumps(value).encode()).digest()


def total_counts(table: Mapping[str, Mapping[str, int]]
                 ) -> collections.Counter[str]:
  """The counts of all tasks together, by reason."""
  return sum(map(collections.Counter, table.values()), collections.Counter())


def counts_table(table: Mapping[str, Mapping[str, int]]) -> str:
  """The table as text: a row per task, a column per reason that occurs."""
  every = total_counts(table)
  columns = [KEPT, *(name for name in filters.REASONS if every[name])]
  rows = [('task', *columns)] + [
      (task, *(str(counts.get(name, 0)) for name in columns))
      for task, counts in [*table.items(), ('all', every)]]
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join(
      '  '.join([row[0].ljust(widths[0]), *(
          cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
      for row in rows)
