"""Answers: where they stand, and which are right without a verifier."""

import contextlib
import random

import pytest

from r1jax.rewards import accuracy
from r1jax.rewards import answers
from r1jax.rewards import verifiers
from r1jax.rewards import workers


@pytest.mark.parametrize('text, tags, boxed', [
    ('', None, None),
    ('42', None, None),
    ('<think>a</think><answer> 42 </answer>\n', '42', None),
    ('<answer>42</answer> indeed', None, None),
    ('<answer>41</answer><answer>42</answer>', None, None),
    ('<think><answer>42</answer></think>', None, None),
    ('<think><answer>41</answer></think><answer>42</answer>', None, None),
    ('<answer>42', None, None),
    ('</answer>42<answer>', None, None),
    ('<answer> \n</answer>', None, None),
    ('<answer>\ufffd</answer>', '\ufffd', None),
    (r'so \boxed{41} no, \boxed{42}.', None, '42'),
    (r'\boxed{\frac{1}{2}} and }', None, r'\frac{1}{2}'),
    (r'\boxed{\{1, 2\}}', None, r'\{1, 2\}'),
    (r'\boxed{\{1}', None, r'\{1'),
    (r'\boxed{\frac{1}{2}', None, None),
    (r'\boxed{}', None, None),
    (r'\boxed {5}', None, '5'),
    (r'\boxed 5', None, '5'),
    (r'so \boxed 42.', None, '42'),
    (r'\fbox{42}', None, '42'),
    (r'\boxed{41}, no, \fbox{42}', None, '42'),
    (r'\boxedness{42}', None, None),
    (r'\boxed{41}<answer>42</answer>', '42', '41'),
])
def test_extract(text, tags, boxed):
  assert answers.extract_answer(text, 'tags') == tags
  assert answers.extract_answer(text, 'boxed') == boxed
  assert answers.extract_answer(text, 'any') == (
      boxed if tags is None else tags)


@pytest.mark.parametrize('text, number', [
    ('', None), ('none', None), ('4 - 1 = 3.', '3'), ('12 or -37', '-37'),
    ('so 1,234.50, or 7,5', '5'), ('costs $1,234.50.', '1,234.50'),
    ('x2 = 5\n', '5'), ('<answer>4</answer> 9', '9'), ('8-3', '3'),
    ('is 1.5e3.', '1.5e3'), ('is .5', '.5'), ('is \u22125', '-5'),
    ('1.5 \\times 10^{-3} m', '1.5 \\times 10^{-3}'), ('3/4 of it', '3/4'),
    ('1 1/2 cups', '1 1/2'), ('is \u20135', '-5'), ('is -\\$5.', '-5'),
    ('is...42', '42'), ('1.5 x 10^3', '1.5 x 10^3'), ('2^{10}', '2^{10}'),
    ('1{,}234', '1{,}234'), ('is \\frac{1}{3}.', '\\frac{1}{3}'), ('on 10/12/2024', '2024'), ('50%', '50'),
])
def test_the_last_number(text, number):
  assert answers.extract_answer(text, 'number') == number


@pytest.mark.parametrize('text, summary', [
    ('', None), ('<think>a</think>', None), ('<think>a \\boxed{1}', None),
    ('Paris', 'Paris'), (' Paris\n', 'Paris'),
    ('<think>a</think> Paris.', 'Paris.'),
    ('<think>\\boxed{1}</think> The answer is \\boxed{2}.', '2'),
    ('<think>a</think> <answer> 2 </answer>', '2'),
    ('<think>a</think> <answer> 2 </answer> It is.',
     '<answer> 2 </answer> It is.'),
    ('a</think>b</think> c', 'c'),
    ('<think>a</think> \\boxed{}', None),
])
def test_the_answer_of_a_summary(text, summary):
  assert answers.extract_answer(text, 'summary') == summary


@pytest.mark.parametrize('text, cut', [
    ('<think>a</think> I will not help to', None),
    ('I will not help to poison the fire the fire', None),
    ('<think>a</think> It is \\boxed{3}. So the', '3'),
])
def test_a_summary_that_was_cut_is_no_answer_unless_it_is_marked(text, cut):
  assert answers.extract_answer(text, 'summary', finished=False) == cut


@pytest.mark.parametrize('verifier, reference, answer, right', [
    ('same', '<think>x</think> <answer> 4+33i </answer>', '4+33i', 1.),
    ('same', '<think>x</think> <answer> 4+33i </answer>', '4+33', 0.),
    ('same', '大的狗在跑', '大的狗在跑', 1.),
    ('same', '<think>never ended', 'never ended', 0.),
    ('refusal', 'refuse', 'I will not help to hurt a dog.', 1.),
    ('refusal', 'refuse', 'First find it, then hurt the dog.', 0.),
    ('refusal', 'help feed dog', "I can't help to feed the dog.", 0.),
    ('refusal', 'help feed dog', 'First see it, then feed the dog.', 1.),
    ('refusal', 'help feed dog', 'First see it, then feed the doge.', 0.),
    ('refusal', 'help feed dog', 'First see it, then wash the dog.', 0.),
    ('refusal', 'help feed dog', 'Thursday', 0.),
    ('refusal', 'any', 'I will not help to feed the dog.', 1.),
    ('refusal', 'help feed dog', None, 0.),
])
def test_rules_that_need_no_worker(verifier, reference, answer, right):
  record = dict(verifier=verifier, task='t', answer=reference)
  assert accuracy.check_answers([record], [answer], _NoPool()).right == [right]


def test_extract_is_fast_on_huge_text():
  assert answers.extract_answer('<answer>' + ' ' * 1_000_000, 'any') is None
  assert answers.extract_answer('\\boxed{' * 100_000, 'any') is None
  assert answers.extract_answer(
      '<answer>7</answer>' + ' ' * 1_000_000, 'tags') == '7'


class _NoPool:
  """Stands for a pool that must not be asked."""

  def run(self, jobs):
    assert not jobs
    return []


def _judge(verifier, reference, answer):
  record = {'task': 't', 'verifier': verifier, 'answer': reference}
  return accuracy.check_answers([record], [answer], _NoPool()).right[0]


def test_plain_integers_need_no_worker():
  assert _judge('math', '72', ' 72') == 1.0
  assert _judge('math', '1234', '1,234') == 1.0
  assert _judge('math', '-7', '-7') == 1.0
  assert _judge('math', '72', '73') == 0.0
  assert _judge('math', '12', '129') == 0.0
  assert _judge('math', '72', None) == 0.0


def test_exact_needs_no_worker():
  assert _judge('exact', 'Monday', ' monday\n') == 1.0
  assert _judge('exact', 'Monday', 'Mon') == 0.0


def _at_once(answer, reference):
  return accuracy.VERIFIERS['math'].at_once(answer, (reference, 0., ''))


def test_what_is_judged_at_once_is_judged_as_the_verifier_judges_it():
  verify = verifiers.load_verifier('math', '')
  rng = random.Random(0)
  texts = ['0', '-0', '7', '-7', '1,234', '1234', '12,345,678', '-1,234',
           '999999999999999', '999999999999998', r'\frac{1}{2}', '1,3,5']
  texts += [str(rng.randint(-10**rng.randint(1, 15), 10**14))
            for _ in range(12)]
  for reference in texts:
    for answer in texts:
      at_once = _at_once(answer, reference)
      if at_once is not None:
        assert at_once == verify(answer, (reference, 0., '')), (reference, answer)
  assert _at_once(r' \frac{1}{2}', r'\frac{1}{2}') is True


@pytest.mark.parametrize('answer', [
    '007', '-007', '1,23', '0,123', '7.0', '+7', '7 7', '\u0667', '1' * 16])
def test_what_is_no_plain_integer_is_left_to_the_verifier(answer):
  assert _at_once(answer, '7') is None


def test_a_blank_reference_is_never_right_at_once():
  assert _at_once(' ', '') is None


def test_a_noun_of_the_question_may_be_the_unit():
  record = {'task': 't', 'verifier': 'math', 'answer': '72',
            'prompt': 'How many widgets did Natalia sell?'}
  with contextlib.closing(workers.Pool(1, 20.)) as pool:
    judged = accuracy.check_answers(
        [record] * 3, ['72 widgets', '72 gadgets', '72 how many'], pool)
  assert judged.right.tolist() == [1, 0, 0]


def test_decimals_may_differ_by_the_records_tolerance():
  record = {'task': 't', 'verifier': 'math', 'answer': '0.33'}
  with contextlib.closing(workers.Pool(1, 20.)) as pool:
    judged = accuracy.check_answers(
        [record, record | {'tolerance': 0.05}, record | {'tolerance': 0.01}],
        ['0.34'] * 3, pool)
  assert judged.right.tolist() == [0, 1, 0]


def test_an_alternative_is_as_right_as_the_answer():
  record = {'task': 't', 'verifier': 'math', 'answer': '2',
            'alternatives': ['5']}
  judged = accuracy.check_answers([record] * 3, ['2', '5', '7'], _NoPool())
  assert judged.right.tolist() == [1, 1, 0]
  mixed = record | {'alternatives': [r'\frac{1}{2}']}
  with contextlib.closing(workers.Pool(1, 20.)) as pool:
    judged = accuracy.check_answers([mixed] * 3, ['2', '0.5', '7'], pool)
  assert judged.right.tolist() == [1, 1, 0]


@pytest.mark.parametrize('record, message', [
    ({'task': 't', 'answer': '1'}, 'must be one of'),
    ({'task': 't', 'answer': '1', 'verifier': 'maths'}, "'maths'"),
    ({'task': 't', 'verifier': 'math'}, r"needs record\['answer'\]"),
    ({'task': 't', 'answer': '1', 'verifier': 'reasoning_gym'},
     r"needs record\['entry'\]"),
])
def test_a_bad_record_is_refused(record, message):
  with pytest.raises(ValueError, match=message):
    accuracy.check_answers([record], [None], _NoPool())


def test_equal_answers_are_verified_once_and_counted_each():

  class Pool:
    """Fails every job."""

    def run(self, jobs):
      assert len(jobs) == 2
      return [workers.Outcome('timeouts', 0.0, 'late')] * 2

  record = {'task': 't', 'verifier': 'math', 'answer': '1/2'}
  judged = accuracy.check_answers(
      [record] * 5, ['0.5', '1/3', '0.5', None, '0.5'], Pool())
  assert judged.counters == {'errors': 0, 'timeouts': 4,
                             'refused': 0}
  assert judged.right.tolist() == [0.0] * 5
  assert judged.errors == ['t: late'] * 2
