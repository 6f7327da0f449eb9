"""What the third-party verifiers accept, and what never reaches them."""

import sys

import pytest

from r1jax.rewards import verifiers


@pytest.mark.parametrize('reference, right, wrong', [
    ('72', ['72', '72.0', '$72', '72 dollars', r'\$72', r'72\text{ cm}', '$72$',
            r'\boxed{72}', 'x = 72', '144/2'],
     ['73', '720', '7', '0.72', '2x+3', '72x', '\ufffd', '()', 'seventy']),
    ('0.7', ['0.7', '.7', '7/10', r'\frac{7}{10}', '0.70'],
     ['0', '1', '0.75', '7', '0.7001']),
    (r'\frac{1}{2}', ['0.5', '1/2', r'$\frac{2}{4}$'], ['1', '2', '0.05']),
    ('2x+3', ['3 + 2x', '$2x + 3$'], ['2x+7', '2', '3']),
    (r'\sqrt{2}', ['sqrt(2)', '2^{1/2}'], ['2', r'\sqrt{3}']),
    ('(1, 2)', ['(1,2)'], ['(2,1)', '1', '[1, 2]']),
])
def test_math(reference, right, wrong):
  pytest.importorskip('math_verify')
  verify = verifiers.load_verifier('math', '')
  for answer in right:
    assert verify(answer, reference), answer
  for answer in wrong:
    assert not verify(answer, reference), answer


def test_a_reference_that_is_not_mathematics_is_an_error():
  pytest.importorskip('math_verify')
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


@pytest.mark.parametrize('answer', _CODE[:4])
def test_code_is_kept_from_math(answer):
  assert verifiers.refuse_unsafe('math', 'gsm8k', answer)
  assert verifiers.refuse_unsafe('math', 'gsm8k', f'$\\text{{{answer}}}$')


@pytest.mark.parametrize('answer', [
    '72', '72 dollars.', r'\frac{1}{2}', 'f(x) = 2ab(c + d)', 'x_{1}, x_{2}',
    r'\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}', "f'(x)", '72. So',
    r'50\%'])
def test_mathematics_is_not_refused(answer):
  assert verifiers.refuse_unsafe('math', 'gsm8k', answer) is None


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
