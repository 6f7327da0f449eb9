"""Changes of one place in r1jax that a test must notice.

    python tests/mutations.py             # all, two hours on two cores
    python tests/mutations.py WORD ...    # those of files named so

Each line of mutations.jsonl has the text of a file that is replaced, by what,
and the test that then fails: an operator, a constant, an axis or a bound of a
kernel, a model, a reward or a stage. Where no test can tell, 'same' says why. A
text that is no longer there, since the code has changed, is counted.
"""

import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
_NOT_COPIED = shutil.ignore_patterns('.git', '__pycache__', '.pytest_cache')


def mutations(words: list[str]) -> list[dict[str, str]]:
  """The lines of the list whose files are named by a word; all without one."""
  path = pathlib.Path(__file__).with_suffix('.jsonl')
  rows = map(json.loads, path.read_text('utf-8').splitlines())
  return [row for row in rows
          if not words or any(word in row['file'] for word in words)]


def outcome(tree: pathlib.Path, row: dict[str, str]) -> str:
  """What became of a change in a copy of the tree: 'killed', 'SURVIVED', ..."""
  path = tree / row['file']
  source = path.read_text('utf-8')
  parts = source.split(row['before'])
  place = row.get('nth', 0) + 1
  if len(parts) <= place:
    return 'gone'
  if 'same' in row:
    return 'same'
  path.write_text(row['before'].join(parts[:place]) + row['after']
                  + row['before'].join(parts[place:]), 'utf-8')
  try:
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-x', '-q', '-n', '0', row['test']],
        cwd=tree, capture_output=True, check=False, timeout=900,
        env=os.environ | {'PYTHONPATH': str(tree)})
  except subprocess.TimeoutExpired:
    return 'killed'
  finally:
    path.write_text(source, 'utf-8')
  return {0: 'SURVIVED', 1: 'killed', 2: 'killed'}.get(  # 2: in collecting it
      done.returncode, f'pytest: status {done.returncode}')


def main(words: list[str]) -> None:
  counts = collections.Counter()
  with tempfile.TemporaryDirectory() as temporary:
    tree = pathlib.Path(temporary) / 'tree'
    shutil.copytree(ROOT, tree, ignore=_NOT_COPIED, symlinks=True)
    for row in mutations(words):
      found = outcome(tree, row)
      counts[found] += 1
      print(f'{found:9} {row["file"]}: {row["before"]!r} -> {row["after"]!r}',
            f'[{row.get("test") or row["same"]}]', flush=True)
  print(dict(counts))
  sys.exit(bool(counts.keys() - {'killed', 'gone', 'same'}))


if __name__ == '__main__':
  main(sys.argv[1:])
