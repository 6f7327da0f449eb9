"""The reader's taste, by hand, and as a verifier."""

import pytest

from r1jax.mini import corpus
from r1jax.mini import gold
from r1jax.rewards import accuracy
from r1jax.rewards import answers as answers_lib


@pytest.mark.parametrize('text, expected', [
    ('', 0), ('the sea', 1 / 3), ('a\nthe sea', 1 / 6),
    ('the sea a\nthe sea b\nthe sea c', 1),
    (' the sea a\n the sea b\n the sea c \n', 1),
    ('the sea a\nthe sea b\nthe sea c\nthe sea d', 1),
    ('the sea a\nthe sea b\nthe sea c\nthe sea d\nthe sea e', 5 / 6),
    ('the sea a\nthe sea a\nthe sea b', 1 / 3), ('x\ny', 0),
    ('the sea ' * 50, 1 / 3),
])
def test_by_hand(text, expected):
  assert gold.taste(text, 'the sea') == pytest.approx(expected)


def test_it_is_a_verifier_of_the_whole_response():
  records = corpus.writing_records('train', 3)
  answers = [answers_lib.extract_answer(text, 'whole') for text in (
      f'{records[0]["answer"]} a\n{records[0]["answer"]} b', ' ', 'nothing')]
  judged = accuracy.check_answers(records, answers, pool=_NoPool())
  assert judged.right.tolist() == [pytest.approx(2 / 3), 0, 0]
  assert not any(judged.counters.values())


class _NoPool:
  """Nothing of this goes to the workers."""

  def run(self, jobs):
    assert not jobs
    return []


def test_demonstrations_are_of_every_quality_and_splits_never_meet():
  train, held_out = (corpus.writing_records(split, None) for split in (
      'train', 'heldout'))
  assert not {r['prompt'] for r in train} & {r['prompt'] for r in held_out}
  assert len(train) > 600 and len(held_out) > 90
  topics = {r['prompt']: r['answer'] for r in train}
  grades = [gold.taste(text, topics[prompt])
            for prompt, text in corpus.demonstrations('train', 2000)]
  assert min(grades) == 0 and max(grades) == 1
  assert 0.2 < sum(grades) / len(grades) < 0.4
  with pytest.raises(ValueError, match='distinct'):
    corpus.writing_records('heldout', 500)
