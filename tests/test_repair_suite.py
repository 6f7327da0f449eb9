"""experiments/repair.jsonl: functions that fail their tests, and repairs."""

import json
import pathlib
import re

import pytest

ROWS = [json.loads(line) for line in (
    pathlib.Path(__file__).parents[1] / 'experiments' / 'repair.jsonl'
).read_text('utf-8').splitlines()]
BLOCK = re.compile(r'\n```python\n(.*?\n\n\n)(.*)\n```$', re.S)


def _passes(program, tests):
  """In this process: the rows are the repository's own."""
  known = {}
  exec(program, known)  # pylint: disable=exec-used
  try:
    exec(tests, known)  # pylint: disable=exec-used
  except (AssertionError, IndexError, RecursionError, ValueError):
    return False
  return True


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row['task_id'])
def test_the_function_fails_the_tests_shown_and_its_repair_passes_all(row):
  broken, shown = BLOCK.search(row['prompt']).groups()
  source = row['tests']['source']
  assert source.startswith(shown + '\n')  # and more that are not shown
  assert not _passes(broken, shown)
  assert _passes(row['code'], source)


def test_they_are_twenty_of_different_kinds():
  assert len({row['task_id'] for row in ROWS}) == len(ROWS) == 20
