"""The wider corpus: what the base has not read, and nothing held out."""

import re

import pytest

from r1jax.data import splits
from r1jax.mini import corpus
from r1jax.mini import questions
from r1jax.mini import wider
from r1jax.rewards import language

LANGUAGES = language.Languages(questions.LANGUAGES)
DIALOGUE = re.compile(r'User: (.*?)\nAssistant: (.*?)(?=\nUser: |\Z)', re.S)


@pytest.fixture(name='documents', scope='module')
def _documents():
  return wider.documents(1500, seed=3)


def _dialogues(documents):
  return [DIALOGUE.findall(text) for text in documents]


def test_a_document_has_up_to_four_problems_in_one_manner(documents):
  rows = [row for row in _dialogues(documents) if len(row) > 1]
  assert {len(row) for row in rows} == {2, 3, 4}
  assert abs(len(rows) / len(documents) - wider.KINDS['row']) < .04
  for row in rows:
    assert len({LANGUAGES.of(asked) for asked, _ in row}) == 1
    assert len({(said.count('<think>'), said.count('<answer>'),
                 said.count('\\boxed{')) for _, said in row}) == 1
    assert len({asked for asked, _ in row}) == len(row)


def test_thoughts_are_mostly_in_the_language_of_the_question(documents):
  found = {lang: [] for lang in questions.LANGUAGES}
  for row in _dialogues(documents):
    asked, said = row[-1] if row else ('', '')
    lang = LANGUAGES.of(asked)
    if (lang != 'en' or len(row) > 1) and '</think>' in said:
      thought = said.partition('</think>')[0].removeprefix('<think>')
      found[lang].append(LANGUAGES.share(thought, lang) == 1.)
  for lang, own in found.items():
    assert len(own) > 50 and abs(sum(own) / len(own) - 2 / 3) < .15, lang


def test_no_problem_of_it_is_held_out(documents):
  """An English question says so itself; the others, by the entries drawn."""
  for row in _dialogues(documents):
    for asked, _ in row:
      if LANGUAGES.of(asked) == 'en':
        assert splits.in_split(asked, 'train'), asked
  held_out = {lang: {r['prompt'] for r in corpus.reasoning_records(
      'heldout', 600, 20, languages=(lang,))} for lang in ('zh', 'it')}
  for row in _dialogues(documents):
    for asked, _ in row:
      assert not any(asked in prompts for prompts in held_out.values())


def test_repairs_are_a_share_and_the_corpus_is_of_its_seed(documents):
  repairs = [text for text in documents if 'assert f(' in text]
  assert abs(len(repairs) / len(documents) - wider.KINDS['repair']) < .04
  assert wider.documents(20, 3) != wider.documents(20, 4)
  assert wider.documents(20, 3) == wider.documents(20, 3)


def test_the_base_corpus_goes_on_within_it(documents):
  base = set(corpus.documents(
      round(1500 * wider.KINDS['base'] * 1.2), seed=4))
  share = sum(text in base for text in documents) / len(documents)
  assert abs(share - wider.KINDS['base']) < .05
