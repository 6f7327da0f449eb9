"""Reasoning problems in three languages are the same problems."""

import re

import pytest
import sentencepiece

from r1jax.data import splits
from r1jax.mini import corpus
from r1jax.mini import general
from r1jax.mini import italian
from r1jax.mini import lessons
from r1jax.mini import questions
from r1jax.mini import sources
from r1jax.rewards import language


def _records(*languages):
  return corpus.reasoning_records('heldout', 90, seed=5, languages=languages)


def test_a_problem_is_the_same_in_every_language():
  english = _records('en')
  for lang in ('zh', 'it'):
    other = _records(lang)
    assert [r['entry'] for r in other] == [r['entry'] for r in english]
    assert [r['answer'] for r in other] == [r['answer'] for r in english]
    for record, known in zip(other, english):
      numbers = [re.findall(r'\d+', r['prompt']) for r in (record, known)]
      assert sorted(numbers[0]) == sorted(numbers[1])
      assert splits.held_out(known['prompt'])


def test_a_question_is_in_its_language():
  known = language.Languages(questions.LANGUAGES)
  for lang in questions.LANGUAGES:
    for record in _records(lang):
      assert known.of(record['prompt']) == lang, record['prompt']
      assert known.share(record['prompt'], lang) == 1.


def test_languages_take_turns_after_tasks():
  records = _records('zh', 'it')
  asked = [language.Languages(('zh', 'it')).of(r['prompt']) for r in records]
  assert asked == 15 * (3 * ['zh'] + 3 * ['it'])
  assert [r['task'] for r in records] == 30 * list(corpus.TASKS)


def test_every_animal_has_a_name_in_italian_of_its_own():
  assert set(italian.ANIMALS) == set(general.animals())
  names = list(italian.ANIMALS.values())
  assert len(set(names)) == len(names) and all(n.isascii() for n in names)
  assert general.counted(2, 'bee', 'it') == 'ape 2'


def test_worked_examples_are_asked_and_answered_in_chosen_languages():
  pairs = lessons.worked('train', 30, 0, 'long_zh', 'it')
  known = language.Languages(questions.LANGUAGES)
  for asked, said in pairs:
    assert known.of(asked) == 'it'
    assert language.consistency(known, said, 'zh') == 1.


def test_the_vocabulary_writes_all_of_them_without_bytes():
  pieces = sentencepiece.SentencePieceProcessor(model_file=str(corpus.MODEL))
  for lang in questions.LANGUAGES:
    for record in _records(lang):
      assert not any(pieces.IsByte(piece)
                     for piece in pieces.encode(record['prompt']))


@pytest.mark.parametrize('options, message', [
    (dict(languages='fr'), 'languages'), (dict(languages=()), 'one language')])
def test_an_unknown_language_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    sources.mini_reasoning('', 'train', 0, 4, **options)
  with pytest.raises(ValueError, match='asked'):
    sources.mini_worked('short_en', 'train', 0, 4, asked='fr')
