"""Shows candidates for training to a person, who accepts, edits or drops each.

    python -m r1jax.review --candidates=/tmp/cold/kept-*.jsonl \
        --out=/tmp/cold/reviewed.jsonl

DeepSeek-R1's cold-start data was refined by hand (arXiv 2501.12948, 2.3.1).
A key and Enter decide: a accepts, e edits (in $EDITOR), d drops, u undoes the
last decision, q stops. Every decision is written to OUT.decisions at once;
started again, the review continues after the last. OUT is written whenever it
stops: the accepted candidates in their order, each with its decision. Equal
candidates are shown once.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import fnmatch
import hashlib
import os
import pathlib
import shlex
import subprocess
import tempfile
from typing import Any
import unicodedata

from absl import app
from absl import flags as absl_flags

from r1jax import command
from r1jax import config as config_lib
from r1jax import errors
from r1jax import terminal
from r1jax import workdir as workdir_lib
from r1jax.data import json_lines
from r1jax.training import files

_CANDIDATES = absl_flags.DEFINE_string(
    'candidates', None, 'JSONL with a prompt and a response per line; * for '
    'several files.', required=True)
_OUT = absl_flags.DEFINE_string(
    'out', None, 'JSONL of what was accepted.', required=True)

_KEYS = {'a': 'accepted', 'e': 'edited', 'd': 'dropped'}
_ASK = '[a]ccept  [e]dit  [d]rop  [u]ndo  [q]uit > '

Record = dict[str, Any]


def review(candidates: Sequence[Record], out: pathlib.Path, *,
           ask: Callable[[str], str] = input,
           edit: Callable[[str], str] | None = None,
           say: Callable[[str], Any] = terminal.say) -> dict[str, int]:
  """Asks about every candidate not yet decided, until 'q' or the end of input.

  Args:
    candidates: with 'prompt' and 'response'.
    out: where accepted candidates go; the decisions are kept beside it.
    ask: shows a line, returns what was typed.
    edit: returns a text as the person wants it.
    say: shows a text.

  Returns:
    {'accepted': ..., 'edited': ..., 'dropped': ..., 'left': ...}.
  """
  out.parent.mkdir(parents=True, exist_ok=True)
  log = _decisions_path(out)
  decided = {row['id']: row for row in files.read_rows(log)}
  files.write_rows(log, decided.values())  # without a line that a kill cut
  records: dict[str, Record] = {}
  for record in candidates:
    records.setdefault(_record_id(record), record)
  ids = [*records]
  history = [each for each in decided if each in records]
  index = 0
  try:
    while index < len(ids):
      current = ids[index]
      if current in decided:
        index += 1
        continue
      say(_describe(records[current], index, len(ids)))
      key = _read_key(ask)
      if key == 'q':
        break
      if key == 'u':
        if not history:
          say('there is no decision to undo')
        else:
          undone = history.pop()
          del decided[undone]
          files.write_rows(log, decided.values())
          index = ids.index(undone)
        continue
      row = {'id': current, 'decision': _KEYS[key]}
      if key == 'e':
        text = _edit(records[current]['response'], edit or _in_editor, say)
        if text is None:
          continue
        row['response'] = text
      decided[current] = row
      history.append(current)
      files.append_rows(log, [row])
  finally:
    files.write_rows(out, _accepted(records, decided))
  counts = collections.Counter(
      decided[each]['decision'] if each in decided else 'left' for each in ids)
  return {decision: counts[decision] for decision in (*_KEYS.values(), 'left')}


def _decisions_path(out: pathlib.Path) -> pathlib.Path:
  """The file of the decisions that lead to `out`."""
  return out.with_name(out.name + '.decisions')


def _accepted(records: Mapping[str, Record], decided: Mapping[str, Record]
              ) -> list[Record]:
  """The records to train on, as accepted or edited."""
  accepted = []
  for name, record in records.items():
    row = decided.get(name, {'decision': 'dropped'})
    if row['decision'] != 'dropped':
      accepted.append(record | {
          'response': row.get('response', record['response']),
          'review': row['decision']})
  return accepted


def _record_id(record: Record) -> str:
  """An id that equal candidates share."""
  text = '\0'.join((record['prompt'], record['response']))
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]


def _describe(record: Record, index: int, count: int) -> str:
  """A candidate as it is shown, between rules."""
  rule = '─' * 72
  source = record.get('source', '')
  if isinstance(source, dict):
    source = ', '.join(
        f'{k} {v}' for k, v in config_lib.flatten(source).items())
  return _visible(f'\n{rule}\n{index + 1} of {count}   '
                  f'{record.get("task", "")}   {source}\n{rule}\n'
                  f'{record["prompt"]}\n{rule}\n{record["response"]}\n{rule}')


def _visible(text: str) -> str:
  """The text with control and invisible characters as escapes."""
  return ''.join(
      letter if letter in '\n\t' or unicodedata.category(letter) not in (
          'Cc', 'Cf', 'Cs') else ascii(letter)[1:-1] for letter in text)


def _read_key(ask: Callable[[str], str]) -> str:
  """The letter of one of the choices; the end of input and Ctrl-C quit."""
  while True:
    try:
      key = ask(_ASK).strip().lower()[:1]
    except (EOFError, KeyboardInterrupt):
      return 'q'
    if key in (*_KEYS, 'u', 'q'):
      return key


def _edit(text: str, edit: Callable[[str], str],
          say: Callable[[str], Any]) -> str | None:
  """The edited text; None, after saying why, if there is none."""
  try:
    edited = edit(text)
    problem = None if edited.strip() else 'the text is empty; d drops it'
  except KeyboardInterrupt:
    problem = 'interrupted'
  # ValueError: $EDITOR is not a command line, or what it saved is not UTF-8.
  except (OSError, ValueError, subprocess.CalledProcessError) as error:
    problem = f'{error}; $EDITOR names the editor'
  if problem is None:
    return edited
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
  """The rows of the files that `pattern` names.

  Raises:
    ConfigError: a row lacks a field; or `out`, or the file of decisions, is or
      would be among the files.
  """
  try:
    rows = json_lines.read_rows(pattern, 'train')
  except errors.ConfigError as problem:
    raise errors.ConfigError('--candidates', problem.message) from problem
  paths = {path.resolve() for path in json_lines.paths(pattern, 'train')}
  wanted = pathlib.Path(pattern.replace('{split}', 'train'))
  for path in (out, _decisions_path(out)):
    if path.resolve() in paths or (
        path.parent.resolve() == wanted.parent.resolve()
        and fnmatch.fnmatchcase(path.name, wanted.name)):
      raise errors.ConfigError(
          '--out', f'{path} is, or would be, one of --candidates={pattern}; '
          'name a file of another folder, or one of another name')
  for line, row in rows:
    for field in ('prompt', 'response'):
      if not isinstance(row.get(field), str):
        raise errors.ConfigError(
            '--candidates', f'{line} has no text in field {field!r}')
  return [row for _, row in rows]


def main(argv):
  del argv
  with command.reported():
    out = pathlib.Path(workdir_lib.expanded(_OUT.value, '--out'))
    pattern = workdir_lib.expanded(_CANDIDATES.value, '--candidates')
    with errors.faults(out):
      counts = review(_candidates(pattern, out), out)
  terminal.say('\n' + ', '.join(
      f'{decision} {n}' for decision, n in counts.items()) + f'; {out}')


if __name__ == '__main__':
  terminal.secure()
  app.run(main)
