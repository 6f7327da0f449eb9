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

from r1jax import interrupts
from r1jax import terminal

if __name__ == '__main__':  # before the imports, which take their time
  interrupts.install()
  terminal.secure()

# pylint: disable=wrong-import-position
import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import fcntl
import fnmatch
import hashlib
import os
import pathlib
import shlex
import signal
import subprocess
import tempfile
from typing import Any

from r1jax import command
from r1jax import config as config_lib
from r1jax import errors
from r1jax import workdir as workdir_lib
from r1jax.data import json_lines
from r1jax.training import files

_KEYS = {'a': 'accepted', 'e': 'edited', 'd': 'dropped'}
_UNDONE = 'undone'  # the decision that takes back one before it
_ASK = '[a]ccept  [e]dit  [d]rop  [u]ndo  [q]uit > '

Record = dict[str, Any]


def review(candidates: Sequence[Record], out: pathlib.Path, *,
           ask: Callable[[str], str] = input,
           edit: Callable[[str], str] | None = None,
           say: Callable[[str], Any] = terminal.say) -> dict[str, int]:
  """Asks about every candidate not yet decided, until 'q' or the end of input.

  A signal that asks to stop is as 'q'.

  Args:
    candidates: with 'prompt' and 'response'.
    out: where accepted candidates go; the decisions are kept beside it.
    ask: shows a line, returns what was typed.
    edit: returns a text as the person wants it.
    say: shows a text.

  Returns:
    {'accepted': ..., 'edited': ..., 'dropped': ..., 'left': ...}.

  Raises:
    ConfigError: names --out; it is no file, or another review writes it.
  """
  log = _decisions_path(out)
  for path in (out, log):
    if path.exists() and not path.is_file():
      raise errors.ConfigError('--out', errors.no_file(path))
  out.parent.mkdir(parents=True, exist_ok=True)
  records: dict[str, Record] = {}
  for record in candidates:
    records.setdefault(_record_id(record), record)
  with _alone(log):
    decided = _decided(log)
    write = lambda: files.write_rows(out, _accepted(records, decided))
    write()  # where that is refused, nobody decides in vain
    try:
      _ask_each(records, decided, log, ask, edit or _in_editor, say)
    except interrupts.Stopped:
      pass
    finally:
      with interrupts.noted():
        write()
  counts = collections.Counter(
      decided[each]['decision'] if each in decided else 'left'
      for each in records)
  return {decision: counts[decision] for decision in (*_KEYS.values(), 'left')}


def _ask_each(records: Mapping[str, Record], decided: dict[str, Record],
              log: pathlib.Path, ask: Callable[[str], str],
              edit: Callable[[str], str], say: Callable[[str], Any]) -> None:
  """Asks, and adds to `decided` and to the file `log` what is decided."""
  while left := [each for each in records if each not in decided]:
    interrupts.check()
    current = left[0]
    say(_describe(records[current], len(records) - len(left), len(records)))
    key = _read_key(ask)
    if key == 'q':
      return
    row = {'id': current, 'decision': _KEYS.get(key, _UNDONE)}
    if key == 'u':
      mine = [each for each in decided if each in records]
      if not mine:
        say('there is no decision to undo')
        continue
      row['id'] = mine[-1]
    if key == 'e':
      text = _edit(records[current]['response'], edit, say)
      if text is None:
        continue
      row['response'] = text
    with interrupts.noted():
      files.append_rows(log, [row])
      _decide(decided, row)


def _decide(decided: dict[str, Record], row: Record) -> None:
  """Adds a decision, in the order of time, or takes one back."""
  decided.pop(row['id'], None)
  if row['decision'] != _UNDONE:
    decided[row['id']] = row


def _decided(log: pathlib.Path) -> dict[str, Record]:
  """The decisions in a file, from which a line that a kill cut is removed."""
  files.cut_rows(log, log.read_bytes().rfind(b'\n') + 1)
  decided = {}
  for row in files.read_rows(log):
    if not {'id', 'decision'} <= row.keys():
      raise errors.ConfigError(
          '--out', f'{log}: expected decisions of a review, received '
          f'{str(row)[:80]}; name another file')
    _decide(decided, row)
  return decided


def _decisions_path(out: pathlib.Path) -> pathlib.Path:
  """The file of the decisions that lead to `out`."""
  return out.with_name(out.name + '.decisions')


@contextlib.contextmanager
def _alone(log: pathlib.Path) -> Iterator[None]:
  """Inside, no other review adds to `log`, which is made if need be."""
  with open(log, 'ab') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
      raise errors.ConfigError(
          '--out', f'another review adds to {log} now; end it first, or name '
          'another file') from problem
    except OSError:
      pass  # a file system that has no locks
    yield


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
  return terminal.visible(f'\n{rule}\n{index + 1} of {count}   '
                  f'{record.get("task", "")}   {source}\n{rule}\n'
                  f'{record["prompt"]}\n{rule}\n{record["response"]}\n{rule}')


def _read_key(ask: Callable[[str], str]) -> str:
  """The letter of one of the choices; the end of input quits."""
  while True:
    try:
      key = ask(_ASK).strip().lower()[:1]
    except EOFError:
      return 'q'
    if key in (*_KEYS, 'u', 'q'):
      return key


def _edit(text: str, edit: Callable[[str], str],
          say: Callable[[str], Any]) -> str | None:
  """The edited text; None, after saying why, if there is none."""
  try:
    edited = edit(text)
    problem = None if edited.strip() else 'the text is empty; d drops it'
  # ValueError: $EDITOR is not a command line, or what it saved is not UTF-8.
  except (OSError, ValueError, subprocess.CalledProcessError) as error:
    problem = f'{error}; $EDITOR names the editor'
  if problem is None:
    return edited
  say(f'not edited: {problem}')
  return None


def _in_editor(text: str) -> str:
  """The text as it was saved in $EDITOR, whose Ctrl-C is until it ends."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'response.txt'
    path.write_text(text, 'utf-8')
    editor = shlex.split(os.environ.get('EDITOR', 'vi'))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
      subprocess.run([*editor, str(path)], check=True, preexec_fn=lambda:
                     signal.signal(signal.SIGINT, signal.SIG_DFL))
    finally:
      signal.signal(signal.SIGINT, before)
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


def main() -> None:
  parser = command.Parser(description=__doc__.partition('\n')[0])
  parser.add_argument(
      '--candidates', required=True,
      help='JSONL with a prompt and a response per line; * for several files')
  parser.add_argument('--out', required=True, help='JSONL of what was accepted')
  args = parser.parse_args()
  with command.reported():
    interrupts.begin()
    out = pathlib.Path(workdir_lib.expanded(args.out, '--out'))
    pattern = workdir_lib.expanded(args.candidates, '--candidates')
    with errors.faults(out):
      counts = review(_candidates(pattern, out), out)
  terminal.say('\n' + ', '.join(
      f'{decision} {n}' for decision, n in counts.items()) + f'; {out}')
  if interrupts.asked():
    command.end_stopped()


if __name__ == '__main__':
  main()
