"""A wider base corpus, to measure what R1's recipe leaves behind.

Beside the base corpus (corpus.py) it has three things that the base has never
read, so that a model which has can lose them: problems asked in Chinese and
Italian, each answered in its own language or, less often, in another;
several problems in a row, all answered in one manner, from which a model learns
to follow examples; and functions to repair.
"""

import random
from typing import Any

from r1jax.data import thinking
from r1jax.mini import arithmetic
from r1jax.mini import corpus
from r1jax.mini import lessons
from r1jax.mini import questions
from r1jax.mini import repair

KINDS = {'base': .3, 'one': .3, 'row': .15, 'repair': .25}  # of documents
_MODES = {  # of a response; * is a language
    'direct': .22, 'direct_tagged': .33, 'short_*': .28, 'long_*': .17}
_OWN = 2 / 3  # share of thoughts in the language of the question
_OTHER = {'en': 'zh', 'zh': 'en', 'it': 'en'}
_FILLERS = {'en': 'I know this one.', 'zh': '我知道答案。',
            'it': 'Conosco la risposta.'}
_IN_A_ROW = (2, 3, 4)  # problems


def documents(count: int, seed: int) -> list[str]:
  """Writes the corpus: dialogues and plain texts, without end marks."""
  rng = random.Random(f'wider/{seed}')
  problems = {task: corpus.entries(task, 'train', 'wider', seed)
              for task in corpus.TASKS}
  repairs = repair.problems(rng, 'train')
  kinds = rng.choices(list(KINDS), KINDS.values(), k=count)
  base = iter(corpus.documents(max(kinds.count('base'), 1), seed + 1))

  def entry() -> dict[str, Any]:
    return next(problems[rng.choice(corpus.TASKS)])

  def dialogues(number: int) -> str:
    manner = _manner(rng)
    return '\n'.join(_dialogue(rng, entry(), *manner) for _ in range(number))

  def of_kind(kind: str) -> str:
    if kind == 'base':
      return next(base)
    if kind == 'repair':
      problem = next(repairs)
      return corpus.dialogue(problem[0], repair.answered(rng, problem))
    return dialogues(1 if kind == 'one' else rng.choice(_IN_A_ROW))

  return [of_kind(kind) for kind in kinds]


def _manner(rng: random.Random) -> tuple[str, str, str, str]:
  """How problems in a row are asked and answered: language, mode, forms."""
  asked = rng.choice(questions.LANGUAGES)
  said = asked if rng.random() < _OWN else _OTHER[asked]
  mode = rng.choices(list(_MODES), _MODES.values())[0].replace('*', said)
  form = rng.choice((thinking.TAGGED, lessons.FORM))
  return asked, mode, form, _FILLERS[said]


def _dialogue(rng: random.Random, entry: dict[str, Any], asked: str, mode: str,
              form: str, filler: str) -> str:
  response = arithmetic.respond(rng, entry, mode, form=form, filler=filler)
  return corpus.dialogue(questions.asked(entry, asked), response.text)
