"""Shows candidates for training to a person, who accepts, edits or drops each.

    python -m r1jax.review --candidates=/tmp/cold/kept-*.jsonl \
        --out=/tmp/cold/reviewed.jsonl

DeepSeek-R1's cold-start data was refined by hand (arXiv 2501.12948, 2.3.1).
A key and Enter decide: a accepts, e edits (in $EDITOR), d drops, u takes the
last decision back, q stops. What was decided stands in OUT.decisions at once;
started again it goes on behind it. OUT is written whenever it stops: what was
accepted, in the order of the candidates, each with how it was decided.
"""

from collections.abc import Callable, Sequence
import hashlib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from typing import Any

from absl import app
from absl import flags

from r1jax import config as config_lib
from r1jax.data import jsonl_rows
from r1jax.training import jsonl

_CANDIDATES = flags.DEFINE_string(
    'candidates', None, 'JSONL with a prompt and a response a line; * for '
    'several files.', required=True)
_OUT = flags.DEFINE_string(
    'out', None, 'JSONL of what was accepted.', required=True)

_KEYS = {'a': 'accepted', 'e': 'edited', 'd': 'dropped'}
_ASK = '[a]ccept  [e]dit  [d]rop  [u]ndo  [q]uit > '

Record = dict[str, Any]


def review(candidates: Sequence[Record], out: pathlib.Path, *,
           ask: Callable[[str], str] = input,
           edit: Callable[[str], str] | None = None,
           say: Callable[[str], Any] = print) -> dict[str, int]:
  """Asks about every candidate not yet decided, until 'q' or an end of input.

  Args:
    candidates: with 'prompt' and 'response'.
    out: where what was accepted goes; its decisions are kept beside it.
    ask: shows a line, returns what was typed.
    edit: returns a text as the person wants it.
    say: shows a text.

  Returns:
    {'accepted': ..., 'edited': ..., 'dropped': ..., 'left': ...}.
  """
  out.parent.mkdir(parents=True, exist_ok=True)
  log = out.with_name(out.name + '.decisions')
  decided = {row['id']: row for row in jsonl.read(log)}
  jsonl.write(log, decided.values())  # without the torn line of a kill
  names = [_name(record) for record in candidates]
  order = [name for name in decided if name in set(names)]
  place = 0
  while place < len(candidates):
    name, record = names[place], candidates[place]
    if name in decided:
      place += 1
      continue
    say(_shown(record, place, len(candidates)))
    key = _key(ask)
    if key == 'q':
      break
    if key == 'u':
      if order:
        undone = order.pop()
        del decided[undone]
        jsonl.write(log, decided.values())
        place = names.index(undone)
      continue
    row = {'id': name, 'decision': _KEYS[key]}
    if key == 'e':
      try:
        row['response'] = (edit or _in_editor)(record['response'])
      except (OSError, subprocess.CalledProcessError) as problem:
        say(f'not edited: {problem}; the editor is that of $EDITOR')
        continue
    decided[name] = row
    order.append(name)
    jsonl.append(log, [row])
  jsonl.write(out, _accepted(candidates, names, decided))
  count = lambda what: sum(
      decided[name]['decision'] == what for name in names if name in decided)
  return {what: count(what) for what in _KEYS.values()} | {
      'left': sum(name not in decided for name in names)}


def _accepted(candidates: Sequence[Record], names: Sequence[str],
              decided: dict[str, Record]) -> list[Record]:
  found = []
  for record, name in zip(candidates, names):
    row = decided.get(name, {'decision': 'dropped'})
    if row['decision'] != 'dropped':
      found.append(record | {
          'response': row.get('response', record['response']),
          'review': row['decision']})
  return found


def _name(record: Record) -> str:
  text = '\0'.join((record['prompt'], record['response']))
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]


def _shown(record: Record, place: int, count: int) -> str:
  rule = '─' * 72
  source = record.get('source', '')
  if isinstance(source, dict):
    source = ', '.join(f'{k} {v}' for k, v in source.items())
  return (f'\n{rule}\n{place + 1} of {count}   {record.get("task", "")}   '
          f'{source}\n{rule}\n{record["prompt"]}\n{rule}\n'
          f'{record["response"]}\n{rule}')


def _key(ask: Callable[[str], str]) -> str:
  """The letter of one of the choices; the end of input and Ctrl-C quit."""
  while True:
    try:
      key = ask(_ASK).strip().lower()[:1]
    except (EOFError, KeyboardInterrupt):
      return 'q'
    if key in (*_KEYS, 'u', 'q'):
      return key


def _in_editor(text: str) -> str:
  """The text as it was saved in $EDITOR."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'response.txt'
    path.write_text(text, 'utf-8')
    command = shlex.split(os.environ.get('EDITOR', 'vi'))
    subprocess.run([*command, str(path)], check=True)
    return path.read_text('utf-8').rstrip('\n')


def _candidates(pattern: str) -> list[Record]:
  """The rows of the files; ConfigError names one that lacks a field."""
  with config_lib.renamed('config.data.task', '--candidates'):
    rows = jsonl_rows.rows(pattern, 'train')
  for place, row in rows:
    for field in ('prompt', 'response'):
      if not isinstance(row.get(field), str):
        raise config_lib.ConfigError(
            f'--candidates: {place} has no text in field {field!r}')
  return [row for _, row in rows]


def main(argv):
  del argv
  out = pathlib.Path(_OUT.value)
  try:
    counts = review(_candidates(_CANDIDATES.value), out)
  except config_lib.ConfigError as problem:
    print(f'error: {problem}', file=sys.stderr)
    sys.exit(2)
  print('\n' + ', '.join(f'{what} {n}' for what, n in counts.items())
        + f'; {out}')


if __name__ == '__main__':
  app.run(main)
