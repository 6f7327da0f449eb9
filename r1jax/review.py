"""Shows candidates for training to a person, who accepts, edits or drops each.

    python -m r1jax.review --candidates=/tmp/cold/kept-*.jsonl \
        --out=/tmp/cold/reviewed.jsonl

DeepSeek-R1's cold-start data was refined by hand (arXiv 2501.12948, 2.3.1).
A key and Enter decide: a accepts, e edits (in $EDITOR), d drops, u takes the
last decision back, q stops. What was decided stands in OUT.decisions at once;
started again it goes on behind it. OUT is written whenever it stops: what was
accepted, in the order of the candidates, each with how it was decided; what is
not decided yet is not in it. Equal candidates are one.
"""

from collections.abc import Callable, Mapping, Sequence
import fnmatch
import hashlib
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from typing import Any
import unicodedata

from absl import app
from absl import flags

from r1jax import config as config_lib
from r1jax import errors
from r1jax.data import json_lines
from r1jax.training import files

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
  log = _log(out)
  decided = {row['id']: row for row in files.read_rows(log)}
  files.write_rows(log, decided.values())  # without the torn line of a kill
  records: dict[str, Record] = {}
  for record in candidates:
    records.setdefault(_name(record), record)
  names = [*records]
  order = [name for name in decided if name in records]
  place = 0
  try:
    while place < len(names):
      name = names[place]
      if name in decided:
        place += 1
        continue
      say(_shown(records[name], place, len(names)))
      key = _key(ask)
      if key == 'q':
        break
      if key == 'u':
        if not order:
          say('there is no decision to take back')
        else:
          undone = order.pop()
          del decided[undone]
          files.write_rows(log, decided.values())
          place = names.index(undone)
        continue
      row = {'id': name, 'decision': _KEYS[key]}
      if key == 'e':
        text = _edited(records[name]['response'], edit or _in_editor, say)
        if text is None:
          continue
        row['response'] = text
      decided[name] = row
      order.append(name)
      files.append_rows(log, [row])
  finally:
    files.write_rows(out, _accepted(records, decided))
  count = lambda what: sum(
      decided[name]['decision'] == what for name in names if name in decided)
  return {what: count(what) for what in _KEYS.values()} | {
      'left': sum(name not in decided for name in names)}


def _log(out: pathlib.Path) -> pathlib.Path:
  return out.with_name(out.name + '.decisions')


def _accepted(records: Mapping[str, Record], decided: Mapping[str, Record]
              ) -> list[Record]:
  found = []
  for name, record in records.items():
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
    source = ', '.join(
        f'{k} {v}' for k, v in config_lib.flatten(source).items())
  return _visible(f'\n{rule}\n{place + 1} of {count}   '
                  f'{record.get("task", "")}   {source}\n{rule}\n'
                  f'{record["prompt"]}\n{rule}\n{record["response"]}\n{rule}')


def _visible(text: str) -> str:
  """The text with what steers a terminal, or hides in it, as escapes."""
  return ''.join(
      letter if letter in '\n\t' or unicodedata.category(letter) not in (
          'Cc', 'Cf', 'Cs') else ascii(letter)[1:-1] for letter in text)


def _key(ask: Callable[[str], str]) -> str:
  """The letter of one of the choices; the end of input and Ctrl-C quit."""
  while True:
    try:
      key = ask(_ASK).strip().lower()[:1]
    except (EOFError, KeyboardInterrupt):
      return 'q'
    if key in (*_KEYS, 'u', 'q'):
      return key


def _edited(text: str, edit: Callable[[str], str],
            say: Callable[[str], Any]) -> str | None:
  """The text as the person wants it; None, having said why, if it is not."""
  try:
    found = edit(text)
    problem = None if found.strip() else 'nothing is left, which is [d]rop'
  except KeyboardInterrupt:
    problem = 'interrupted'
  # ValueError: $EDITOR is no command line, or what it saved is not UTF-8.
  except (OSError, ValueError, subprocess.CalledProcessError) as e:
    problem = f'{e}; the editor is that of $EDITOR'
  if problem is None:
    return found
  say(f'not edited: {problem}')
  return None


def _in_editor(text: str) -> str:
  """The text as it was saved in $EDITOR."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'response.txt'
    path.write_text(text, 'utf-8')
    command = shlex.split(os.environ.get('EDITOR', 'vi'))
    subprocess.run([*command, str(path)], check=True)
    return path.read_text('utf-8').rstrip('\n')


def _candidates(pattern: str, out: pathlib.Path) -> list[Record]:
  """The rows of the files.

  Raises:
    ConfigError: a row lacks a field; or what is written beside or to `out` is
      among the files, or will be.
  """
  try:
    rows = json_lines.read_rows(pattern, 'train')
  except errors.ConfigError as problem:
    raise errors.ConfigError('--candidates', problem.message) from problem
  read = {pathlib.Path(place.rpartition(':')[0]).resolve() for place, _ in rows}
  like = pathlib.Path(pattern.replace('{split}', 'train'))
  for path in (out, _log(out)):
    if path.resolve() in read or (
        path.parent.resolve() == like.parent.resolve()
        and fnmatch.fnmatchcase(path.name, like.name)):
      raise errors.ConfigError(
          f'--out: {path} is, or would be, one of --candidates={pattern}; '
          'name a file of another folder, or one of another name')
  for place, row in rows:
    for field in ('prompt', 'response'):
      if not isinstance(row.get(field), str):
        raise errors.ConfigError(
            f'--candidates: {place} has no text in field {field!r}')
  return [row for _, row in rows]


def main(argv):
  del argv
  out = pathlib.Path(_OUT.value)
  try:
    counts = review(_candidates(_CANDIDATES.value, out), out)
  except errors.ConfigError as problem:
    print(f'error: {problem}', file=sys.stderr)
    sys.exit(2)
  print('\n' + ', '.join(f'{what} {n}' for what, n in counts.items())
        + f'; {out}')


if __name__ == '__main__':
  app.run(main)
