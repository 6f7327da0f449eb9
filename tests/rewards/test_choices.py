"""Tests of multiple choice: which letter a response gives."""

import time

import pytest

from r1jax.rewards import accuracy
from r1jax.rewards import choices

OPTIONS = ('12 J', 'A dog', 'Vitamin A', '3/4')


@pytest.mark.parametrize('answer, letter', [
    ('C', 'C'), ('c', 'C'), ('(C)', 'C'), ('(c)', 'C'), ('**C**', 'C'),
    ('C.', 'C'), ('C)', 'C'), ('[C]', 'C'), ('$C$', 'C'), ('Option C', 'C'),
    ('C - Vitamin A', 'C'), ('C \u2013 the last', 'C'),
    ('C) Vitamin A', 'C'), ('**C) Vitamin A.**', 'C'), ('C. vitamin a', 'C'),
    ('Vitamin A', 'C'), ('A dog.', 'B'), ('3/4', 'D'), ('12  J', 'A'),
    ('A) 12 J', 'A'), ('A', 'A'), ('B: it barks', 'B'),
    (r'\boxed{C}', 'C'), (r'So it is \boxed{\text{C}}.', 'C'),
    (r'\boxed{(C)}', 'C'), (r'\boxed{\text{(C) Vitamin A}}', 'C'),
    (r'\boxed{3/4}', 'D'), (r'\boxed{\mathbf{D}}', 'D'),
    (r'\boxed{A} no, \boxed{B}', 'B'),
    ('Some words.\n\nAnswer: C', 'C'), ('Answer: (C)', 'C'),
    ('**Answer: C**', 'C'), ('**Answer:** C', 'C'), ('Answer:\nC', 'C'),
    ('answer: c', 'C'), ('ANSWER: C', 'C'), ('Answer: C.', 'C'),
    ('Answer: $C$', 'C'), ('Answer: C) Vitamin A', 'C'),
    ('Answer: Vitamin A', 'C'), ('Answer: 12 J', 'A'),
    ('Final Answer: D', 'D'), ('The correct answer: D', 'D'),
    ('Answer: C because A is poisonous', 'C'),
    ('Answer: A because it is so', 'A'), (r'Answer: \(C\)', 'C'),
    ('The correct answer is A as shown above.', 'A'), (r'Answer: \[C\]', 'C'),
    ('Answer: C (A is wrong)', 'C'),
    ('The answer is C.', 'C'), ('The answer is (C), since it heals.', 'C'),
    ('I say the correct answer is **B**', 'B'),
    ('Hence the answer is: option D.', 'D'), ('so the answer: D', 'D'),
    ('Option C is correct, because of its ring.', 'C'),
    ('Thus choice (B) is the best.', 'B'),
    ('\u7b54\u6848\uff1aC', 'C'), ('\u6240\u4ee5\u7b54\u6848\u662f B', 'B'),
    ('\u6545\u9009D\u3002', 'D'),
    ('The answer is A.\nOn reflection:\nAnswer: B', 'B'),
    ('Answer: A\nWait, it barks.\nAnswer: B', 'B'),
    ('(A) is too much, (D) too little.\nIt must be (B).', 'B'),
    ('It must be **B**, I think', 'B'),
    (r'Answer: \boxed{B}', 'B'),
    ('<think> Answer: A </think> Answer: B', 'B'),
    ('A quarter is missing.\nD', 'D'),
])
def test_the_letter_of_an_answer(answer, letter):
  assert choices.letter(answer, OPTIONS) == letter


@pytest.mark.parametrize('answer', [
    'A dog has four legs', 'I am sure', 'B cells are formed in marrow',
    'So A dog it is, or a cat', 'No idea', '', 'a dogma',
    'Answer: A or B', 'Answer: A, C', 'Answer: A/B', 'Answer: (A) and (C)',
    'Answer: A and B', 'Answer: both A and B', 'Answer: not B',
    r'\boxed{A, C}', r'\boxed{A \text{ or } B}', 'It is (A) or (B)',
    'Answer: E', 'Answer: F) 12', r'\boxed{7}', 'Answer: unknown',
    'Answer: A dog has four legs', 'The answer is A dogged pursuit',
    'The answer is not A.', '<think> Answer: C </think> I give up.',
    '<think> Answer: C', 'Answer:', "Answer: D'Arcy", 'A-B',
    '12 J or 3/4', 'Answer: B) 12 J', 'A) 3/4',
])
def test_what_gives_no_letter(answer):
  assert choices.letter(answer, OPTIONS) is None


def test_a_statement_without_a_letter_is_not_helped_by_an_earlier_one():
  assert choices.letter('Answer: A\nAnswer: neither', OPTIONS) is None
  assert choices.letter(r'Answer: A. Or rather \boxed{42}', OPTIONS) is None


def test_a_text_of_two_options_is_neither():
  assert choices.letter('42', ('42', '42', '7', '8')) is None
  assert choices.letter('7', ('42', '42', '7', '8')) == 'C'


def test_letters_go_as_far_as_the_options():
  assert choices.letter('Answer: C', ('yes', 'no')) is None
  assert choices.letter('Answer: J', tuple('0123456789')) == 'J'
  assert choices.letter('Answer: J') == 'J'
  assert choices.letter('Answer: K') is None


def test_answers_are_checked_by_their_record_and_against_each_other():
  record = dict(verifier='choice', task='gpqa', answer='C', options=OPTIONS)
  given = ['Answer: C', 'Vitamin A', 'Answer: B', 'A dog walks', None]
  checked = accuracy.check_answers([record] * 5, given, pool=_NoPool())
  assert checked.right.tolist() == [1, 1, 0, 0, 0]
  vote = record | dict(answer='I say: Vitamin A.\nAnswer: C')
  checked = accuracy.check_answers([vote] * 2, ['(C)', '(B)'], pool=_NoPool())
  assert checked.right.tolist() == [1, 0]
  assert not choices.same_choice('no letter', ('no letter', OPTIONS))
  plain = dict(verifier='choice', task='mine', answer='B')
  checked = accuracy.check_answers([plain], ['Answer: B'], pool=_NoPool())
  assert checked.right.tolist() == [1]


class _NoPool:
  """No answer goes to a worker."""

  def run(self, jobs):
    assert not jobs
    return []


@pytest.mark.parametrize('text', [
    'answer is ', 'Answer: ', '(A) ', '\n', ' ', '*', r'\boxed{', 'option ',
    'Answer:\n', '**A', '# ', '\u9009', 'the '], ids=repr)
def test_hostile_answers_take_no_time(text):
  begun = time.process_time()
  choices.letter(text * (100_000 // len(text)), OPTIONS)
  assert time.process_time() - begun < 3
