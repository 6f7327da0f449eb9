"""What the third-party verifiers accept, and what never reaches them."""

import sys

import pytest

from r1jax.rewards import verifiers


def test_math_compares_with_a_reference_and_a_tolerance():
  verify = verifiers.load_verifier('math', '')
  assert verify('0.5', r'\frac{1}{2}') and not verify('0.51', '0.5')
  assert verify('0.51', ('0.5', 0.05, '')) and not verify('0.51', ('0.5', 0., ''))


def test_a_blank_reference_is_an_error():
  with pytest.raises(ValueError, match='not mathematics'):
    verifiers.load_verifier('math', '')('1', '')


def test_reasoning_gym_pays_for_the_whole_answer_only():
  pytest.importorskip('reasoning_gym')
  verify = verifiers.load_verifier('reasoning_gym', 'chain_sum')
  entry = {'answer': '12'}
  assert verify('12', entry) and verify('+012.0', entry)
  # Its own scorer gives this wrong number two thirds of a mark.
  assert not verify('129', entry)
  assert not verify('the answer is 12', entry)


_CODE = [
    "__import__('os').system('touch x')",
    '().__class__.__base__.__subclasses__()',
    "eval('1')", 'exec("1")', "open('x','w')", 'exit()', 'x.diff(y)',
    'lambda: 1', '(lambda: os.system(1))()', '[i for i in (1).__dir__()]',
    "f'{exit()}'", "S('exit()')", 'sympify(1)', 'x1.evalf(5)',
]


@pytest.mark.parametrize('answer', _CODE)
def test_code_is_kept_from_what_evaluates(answer):
  for task in verifiers.LITERAL_TASKS | verifiers.FORMULA_TASKS:
    assert verifiers.refuse_unsafe('reasoning_gym', task, answer), task


@pytest.mark.parametrize('answer', _CODE)
def test_math_evaluates_nothing(answer):
  """Every text reaches the grammar, which knows no name but its own."""
  assert verifiers.refuse_unsafe('math', 'gsm8k', answer) is None
  assert not verifiers.load_verifier('math', '')(answer, '1')


def test_long_answers_are_refused():
  assert '1001 characters' in verifiers.refuse_unsafe(
      'math', 'gsm8k', '1' * 1_001)
  assert verifiers.refuse_unsafe('math', 'gsm8k', '1' * 1_000) is None
  # And looking at long text takes no time.
  assert verifiers.refuse_unsafe(
      'reasoning_gym', 'countdown', '1' * 9_999 + '!')


def test_every_scorer_that_evaluates_its_answer_is_known():
  """Runs all reasoning_gym scorers on text that shows when it is compiled.

  A dataset that a new version adds and that evaluates answers fails here
  until it is in LITERAL_TASKS or FORMULA_TASKS.
  """
  factory = pytest.importorskip('reasoning_gym.factory')
  evaluating = set()
  scoring = []  # the task at work; a hook cannot be taken off, only idle

  def hook(event, args):
    if scoring and event == 'compile' and 'marker' in str(args[0]):
      evaluating.update(scoring)

  sys.addaudithook(hook)
  for task in sorted(factory.DATASETS):
    if task == 'composite':  # made of others, scores by them
      continue
    dataset = factory.create_dataset(task, seed=1, size=1)
    entry = dataset[0]
    reference = str(entry['answer'])
    assert verifiers.refuse_unsafe(
        'reasoning_gym', task, reference) is None, task
    scoring.append(task)
    for answer in ('marker', '[marker]', 'marker + 1', '1, marker',
                   'x = marker(2)', "{'a': marker}"):
      try:
        dataset.score_answer(answer, entry)
      except (ArithmeticError, AttributeError, LookupError, TypeError,
              ValueError):
        pass  # a scorer may dislike the text; a worker would count it
    scoring.clear()
  assert evaluating == verifiers.LITERAL_TASKS | verifiers.FORMULA_TASKS
