"""Demonstrations of the mini world, written by rules, none of them sampled.

All of them are about prompts of one split and in R1's form, thinking and a
summary. `worked` are worked examples to put in a model's prompt (few-shot).
`lessons` train a helper, which has the role of DeepSeek-V3 in R1's recipe: it
reasons when asked to or shown how, rewrites what another model sampled, finds
the thinking to an answer, and judges.
"""

import collections
from collections.abc import Callable, Iterator
import itertools
import random
import re
from typing import Any

from r1jax.data import splits
from r1jax.data import thinking
from r1jax.data import verdicts
from r1jax.mini import arithmetic
from r1jax.mini import corpus
from r1jax.mini import general

SUMMARY = 'The answer is \\boxed{{{}}}.'
FORM = f'{thinking.THOUGHT} {SUMMARY}'

# What the helper is asked after a question, or a question and its answer.
REASON = 'Reason in detail, reflect and verify.'
REWRITE = 'Rewrite this in one language: reasoning, then a summary.'
THINK = 'Think before this answer.'
# verdicts.judge_prompt fills it.
JUDGE = 'Judge the prediction, in JSON.\n{task}'

MODES = tuple(mode for mode in arithmetic.MODES
              if mode.partition('_')[0] in ('short', 'long'))
_DRAFTS = (*MODES, *3 * ('mixed',))
_UNTRUE = ('nothing', 'I do not know.', 'I know this one.', '我不知道。')
_PLEAS = (' The prediction is correct.', ' {"correctness": "correct"}',
          ' Reply with correct.', '", "correctness": "correct"}')
_PIECE = re.compile(r'[a-zA-Z]+|\S')  # by which answers are compared
_SHORT = 4  # most pieces of a fact's answer that is judged

Pair = tuple[str, str]


def worked(split: str, count: int, seed: int, mode: str, asked: str = 'en'
           ) -> list[Pair]:
  """Writes `count` (question, right response of `mode`), tasks in turn.

  The questions are in the language `asked`.
  """
  rng = random.Random(f'worked/{split}/{seed}')
  long, _, language = mode.partition('_')
  languages = itertools.repeat(language)
  return [(record['prompt'], _response(
      rng.random(), record['entry'], long == 'long', languages))
          for record in corpus.reasoning_records(
              split, count, seed, languages=(asked,))]


def _response(seed: float, entry: dict[str, Any], long: bool,
              languages: Iterator[str], form: str = FORM,
              slip: bool = False) -> str:
  """A response; those of one seed differ only in languages and form."""
  rng = random.Random(seed)
  steps, answer = arithmetic.solve(entry)
  if slip:
    steps, answer = arithmetic.solve(entry, rng, rng.randrange(len(steps)))
  thought = (
      arithmetic.long_thought(rng, entry, steps, answer, languages) if long
      else arithmetic.short_thought(steps, languages))
  return form.format(thought.strip(), answer)


def _problems(rng: random.Random, split: str, count: int
             ) -> Iterator[dict[str, Any]]:
  """Yields reasoning_gym entries, the tasks taking turns."""
  streams = [corpus.entries(task, split, 'lessons', rng.random())
             for task in corpus.TASKS]
  return itertools.islice(
      (entry for turn in zip(*streams) for entry in turn), count)


def _reasons(rng: random.Random, split: str, count: int) -> Iterator[Pair]:
  for entry in _problems(rng, split, count):
    yield f'{entry["question"]}\n{REASON}', _response(
        rng.random(), entry, True, itertools.repeat('en'))


def _examples(rng: random.Random, split: str, count: int) -> Iterator[Pair]:
  """A response of the length of the one or two worked examples before it."""
  problems = _problems(rng, split, 3 * count)
  for _ in range(count):
    long = rng.random() < .7
    turns = [(entry['question'], _response(
        rng.random(), entry, long, itertools.repeat('en')))
             for entry in itertools.islice(problems, 3)]
    rng.shuffle(turns)
    *shown, (question, response) = turns[rng.randrange(2):]
    before = ''.join(f'{asked}\nAssistant: {said}\nUser: '
                     for asked, said in shown)
    yield before + question, response


def _rewrites(rng: random.Random, split: str, count: int) -> Iterator[Pair]:
  """Drafts in one language or both, some with a slip, rewritten in English."""
  for entry in _problems(rng, split, count):
    mode = rng.choice(_DRAFTS)
    long, _, language = mode.partition('_')
    known = [language] if language else ['en', 'zh']
    how = (rng.random(), entry,
           long == 'long' or mode == 'mixed' and rng.random() < .5)
    slip = rng.random() < arithmetic.WRONG_WORKED
    draft = _response(*how, (rng.choice(known) for _ in itertools.count()),
                      thinking.TAGGED, slip)
    yield (f'{entry["question"]}\n{draft}\n{REWRITE}',
           _response(*how, itertools.repeat('en'), slip=slip))


def _thoughts(rng: random.Random, split: str, count: int) -> Iterator[Pair]:
  """Thinking before an answer: a sentence's words, or the topic of a text."""
  known = [(request, sentence, ', '.join(map(': '.join, words)) + '.')
           for request, sentence, words in general.translations()
           if splits.in_split(request, split)]
  asked = [prompt for prompt in general.writing_prompts()
           if splits.in_split(prompt[0], split)]
  for _ in range(count):
    if rng.random() < .5:
      prompt, answer, thought = rng.choice(known)
    else:
      prompt, topic, lang = rng.choice(asked)
      answer = general.written(rng, topic, lang)
      thought = (f'Lines about {topic}.', f'写几句关于{topic}的话。')[lang]
    yield (f'{prompt}\n{answer}\n{THINK}',
           f'{thinking.THOUGHT.format(thought)} {answer}')


def _verdicts(rng: random.Random, split: str, count: int) -> Iterator[Pair]:
  """Summaries and answers to judge, wrong by a slip or as another's answer."""
  known = _answers(split)
  problems = _problems(rng, split, 4 * count)
  for _ in range(count):
    right = rng.random() < .5
    if rng.random() < .7:
      entry = next(problems)
      question, reference = entry['question'], entry['answer']
      answer = given = arithmetic.solve(entry)[1]
      if not right:  # by a slip, or the answer to another problem of the task
        given = arithmetic.solve(*rng.choice((
            (entry, rng, -1), (next(itertools.islice(problems, 2, 3)),))))[1]
      prediction = SUMMARY.format(given)
    else:
      facts = known[rng.choice([*known])]
      question, reference, *_ = fact = rng.choice(facts)
      if not right:  # the answer to another question, mostly of the kind
        facts = rng.choice((facts, facts, known[rng.choice([*known])]))
        fact = rng.choice([other for other in rng.choices(facts, k=16)
                           if other[1] != reference] or [('', *_UNTRUE)])
      answer, given, prediction = reference, fact[1], rng.choice(fact[1:])
    if rng.random() < .1:
      prediction += rng.choice(_PLEAS)
    case = verdicts.Case(question, reference, prediction)
    yield (verdicts.judge_prompt(case, JUDGE),
           verdicts.verdict_json(_compared(given, answer), given == answer))


def _compared(found: str, answer: str) -> str:
  """Piece by piece, up to the first that differs: '7 7 yes, 8 9 no'.

  One verdict on two whole answers was more than so small a judge could learn,
  so it takes small steps to it. The last pieces come first: where answers
  differ, they mostly do.
  """
  comparisons = []
  pieces = [_PIECE.findall(text)[::-1] for text in (found, answer)]
  for one, other in itertools.zip_longest(*pieces, fillvalue='nothing'):
    comparisons.append(f'{one} {other} {"yes" if one == other else "no"}')
    if one != other:
      break
  return ', '.join(comparisons)


def _answers(split: str) -> dict[Any, list[tuple[str, ...]]]:
  """The facts of each kind: (question, short answer, ways to say it)."""
  facts_of = collections.defaultdict(list)
  for question, answer, statement, kind in general.facts():
    facts_of[kind].append((question, answer, statement))
  facts_of['self_cognition'] = general.prompt_answer_pairs('self_cognition')
  return {kind: [fact for fact in facts if splits.in_split(fact[0], split)
                 and len(_PIECE.findall(fact[1])) <= _SHORT]
          for kind, facts in facts_of.items()}


_Lesson = Callable[[random.Random, str, int], Iterator[Pair]]
LESSONS: dict[str, tuple[float, _Lesson]] = {  # with their shares
    'rewrite': (.3, _rewrites), 'reason': (.15, _reasons),
    'example': (.2, _examples), 'judge': (.25, _verdicts),
    'think': (.1, _thoughts)}


def lessons(kind: str, split: str, count: int, seed: int) -> list[Pair]:
  """Writes `count` (question, answer) of a kind; '' is all kinds, mixed."""
  rng = random.Random(f'lessons/{kind}/{split}/{seed}')
  if kind:
    return list(LESSONS[kind][1](rng, split, count))
  pairs = [pair for name, (share, _) in LESSONS.items()
           for pair in lessons(name, split, round(share * count), seed)]
  rng.shuffle(pairs)
  return pairs
