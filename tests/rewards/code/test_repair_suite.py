"""experiments/repair.jsonl: functions that fail their tests, and repairs."""

import json
import pathlib
import re

import pytest

from experiments import suites
from r1jax.data import sources
from r1jax.rewards.code import judge

FOLDER = pathlib.Path(suites.__file__).parent
ROWS = [json.loads(line) for line in (
    FOLDER / 'repair.jsonl').read_text('utf-8').splitlines()]
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


def test_the_sandbox_passes_the_repairs_and_not_the_functions(judged):
  suite = suites.find('repair', str(FOLDER))
  kind, argument = sources.split_task(suite.task, sources.PROMPTS)
  records = sources.PROMPTS[kind](argument, suite.split, 0, None)
  assert len(records) == suite.problems == 20
  for record, row in zip(records, ROWS):
    assert record['prompt'] == row['prompt'] and record['verifier'] == 'code'
    assert judged(row['code'], record['tests']).name == judge.PASSED, row
    broken = BLOCK.search(row['prompt'])[1]
    assert judged(broken, record['tests']).name in (judge.WRONG, judge.CRASH)
