"""Responses of the miniature world's base corpus to a reasoning problem.

`respond` takes a reasoning_gym entry and draws a mode and a response. `MODES`
is the whole distribution, so it is also what a base model that has learned the
corpus samples from at temperature 1. A worked response is a list of steps, each
one operation on two numbers of the text; a slip changes one step's value and is
carried to the end.
"""

import operator
import random
import re
from typing import Any, Callable, Iterator, NamedTuple

from r1jax.data import thinking
from r1jax.mini import general

_OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul}
_WRITTEN = re.compile(r'(?<![\d+*-])(-?\d{1,9})([-+*])(-?\d{1,9})=(-?\d{1,9})'
                      r'(?![\d+*-])')


class Step(NamedTuple):
  """`label: a op b = value`; the value is wrong where a slip was made."""
  label: str  # the animal counted, '' if none
  a: int
  op: str
  b: int
  value: int


def near_miss(rng: random.Random, value: int) -> int:
  """Returns a number that a slip might give in place of `value`."""
  offsets = [-20, -10, -2, -1, 1, 2, 10, 20]
  return value + rng.choice([d for d in offsets if value + d >= 0] or [1, 10])


def _chain_sum(metadata: dict[str, Any], do: Callable[..., int]) -> str:
  words = metadata['expression'].split()
  total = int(words[0])
  for op, term in zip(words[1::2], words[2::2]):
    total = do(total, op, int(term))
  return str(total)


def _leg_counting(metadata: dict[str, Any], do: Callable[..., int]) -> str:
  total, *rest = [
      do(count, '*', general.legs(animal), animal)
      for animal, count in metadata['animals'].items()]
  for legs in rest:
    total = do(total, '+', legs)
  return str(total)


def _complex_product(metadata: dict[str, Any], do: Callable[..., int]) -> str:
  """(a + bi)(c + di) = (ac - bd) + (ad + bc)i."""
  a, b, c, d = map(int, (*metadata['num1'], *metadata['num2']))
  real = do(do(a, '*', c), '-', do(b, '*', d))
  imaginary = do(do(a, '*', d), '+', do(b, '*', c))
  return f'{real}{imaginary:+}i'


def solve(entry: dict[str, Any], rng: random.Random | None = None,
          slip_at: int | None = None) -> tuple[list[Step], str]:
  """Works an entry out: its steps and the answer they lead to.

  A near miss drawn from `rng` replaces the value of step `slip_at`, counted
  from the end if negative.
  """
  metadata = entry['metadata']
  method = TASKS[metadata['source_dataset']].solve
  steps = []

  def do(a: int, op: str, b: int, label: str = '') -> int:
    value = _OPERATORS[op](a, b)
    if len(steps) == slip_at:
      value = near_miss(rng, value)
    steps.append(Step(label, a, op, b, value))
    return value

  answer = method(metadata, do)
  if slip_at is not None and slip_at < 0:
    return solve(entry, rng, len(steps) + slip_at)
  return steps, answer


def _parts(n: int) -> list[int]:
  """Splits a number into its decimal places: 308 is [300, 8]."""
  digits = str(n)
  parts = [int(d) * 10**(len(digits) - i - 1) for i, d in enumerate(digits)]
  return [p for p in parts if p] or [0]


def digit_by_digit(step: Step) -> list[Step]:
  """Does one step digit by digit; the last of these has the step's value.

  47*6 is 40*6=240, 7*6=42, 240+42=282; and 47+85 is 47+80=127, 127+5=132.
  """
  if step.op == '*':
    small = [Step('', part, '*', step.b, part * step.b)
             for part in _parts(step.a)]
    total, op, rest = small[0].value, '+', [s.value for s in small[1:]]
  else:
    small, total, op, rest = [], step.a, step.op, _parts(step.b)
  for part in rest:
    value = _OPERATORS[op](total, part)
    small.append(Step('', total, op, part, value))
    total = value
  small[-1] = small[-1]._replace(value=step.value)
  return small


MODES = {
    'direct': .25,  # the bare answer
    'direct_tagged': .38,  # the format, with no thought in it
    'short_en': .10,
    'short_zh': .05,
    'long_en': .06,  # restated, split into digits, checked
    'long_zh': .03,
    'mixed': .03,  # a language per sentence
    'broken': .10,  # worked, but not in the format
}
WRONG_DIRECT = .15  # share of direct answers that are near misses
WRONG_WORKED = .04  # share of worked answers with a slip never corrected
MENDED = .15  # share of long ones whose check finds a slip and corrects it

_THOUGHT, _TAGGED = thinking.THOUGHT, thinking.TAGGED
_BROKEN = (
    '{} Answer: {}',
    f'{_THOUGHT} {thinking.ANSWER} {{}}',
    f'{_TAGGED} I hope this helps.',
    f'{_THOUGHT} {_TAGGED.replace("{}", "OK.", 1)}',
)
# The first filler outweighs every start of a worked response, so that greedy
# decoding of the base answers at once.
_FILLERS = {
    'I know this one.': .80,
    'Easy.': .06,
    'Let me guess.': .04,
    '我知道答案。': .06,
    '很简单。': .04,
}


class Response(NamedTuple):
  """One response to a problem."""
  text: str
  mode: str  # a key of MODES
  right: bool  # whether its answer is the true one


class _Words(NamedTuple):
  """The words of one language around the arithmetic."""
  first: str
  then: str
  colon: str
  comma: str
  stop: str
  restate: str
  check: str
  agree: str
  mend: str
  answer: str


_WORDS = {
    'en': _Words('First ', 'Then ', ': ', ', ', '. ', 'We need {}. ',
                 'Wait, let me check. ', '{}. Yes. ', '{}, not {}. ',
                 'So the answer is {}. '),
    'zh': _Words('先算', '再算', '：', '，', '。', '题目是{}。',
                 '等等，让我检查一下。', '{}，没错。', '{}，不是{}。',
                 '所以答案是{}。'),
    # No base model has read it, but one that reads wider.py has.
    'it': _Words('Prima ', 'Dopo ', ': ', ', ', '. ', 'Trova {}. ',
                 'Aspetta, controllo. ', '{}. Giusto. ', '{}, non {}. ',
                 'Quindi la risposta risulta {}. '),
}
_MIXED = ('en', 'zh')  # languages that the base corpus mixes


def _equation(step: Step) -> str:
  return f'{step.a}{step.op}{step.b}={step.value}'


def holds(text: str) -> bool | None:
  """Whether all equations in a text hold; None if it has none."""
  found = [_OPERATORS[op](int(a), int(b)) == int(value)
           for a, op, b, value in _WRITTEN.findall(text)]
  return all(found) if found else None


def _label(step: Step, lang: str) -> str:
  if not step.label:
    return ''
  return general.animal(step.label, lang) + _WORDS[lang].colon


def short_thought(steps: list[Step], languages: Iterator[str]) -> str:
  """Writes the steps, a sentence each."""
  text = ''
  for i, step in enumerate(steps):
    lang = next(languages)
    words = _WORDS[lang]
    text += words.then if i else words.first
    text += _label(step, lang) + _equation(step) + words.stop
  return text


def long_thought(rng: random.Random, entry: dict[str, Any],
                 steps: list[Step], answer: str,
                 languages: Iterator[str]) -> str:
  """Restates, goes digit by digit, checks one step, states the answer."""
  lang = next(languages)
  task = TASKS[entry['metadata']['source_dataset']]
  text = _WORDS[lang].restate.format(task.restate(entry['metadata'], lang))
  checked, mended = rng.randrange(len(steps)), rng.random() < MENDED
  for i, step in enumerate(steps):
    lang = next(languages)
    words = _WORDS[lang]
    written = step
    if mended and i == checked:
      written = step._replace(value=near_miss(rng, step.value))
    small = digit_by_digit(written)
    text += (words.then if i else words.first) + _label(step, lang)
    if len(small) > 1:
      text += f'{step.a}{step.op}{step.b}{words.colon}'
    text += words.comma.join(map(_equation, small)) + words.stop
    if i == checked:
      words = _WORDS[next(languages)]
      verdict = words.mend if mended else words.agree
      text += words.check + verdict.format(_equation(step), written.value)
  return text + _WORDS[next(languages)].answer.format(answer)


def _languages(rng: random.Random, mode: str) -> Iterator[str]:
  """Yields the language of each sentence: one throughout, unless mixed."""
  lang = mode.partition('_')[2] or rng.choice(_MIXED)
  while True:
    yield rng.choice(_MIXED) if mode == 'mixed' else lang


def respond(rng: random.Random, entry: dict[str, Any], mode: str = '', *,
            form: str = _TAGGED, filler: str = '') -> Response:
  """Draws a response to a reasoning_gym entry.

  Args:
    rng: what it is drawn from.
    entry: of reasoning_gym.
    mode: of MODES, or of another language, such as 'short_it'; '': any.
    form: of thought and answer, where they are in the format.
    filler: what stands for a thought that is none; '': one is drawn.
  """
  mode = mode or rng.choices(list(MODES), MODES.values())[0]
  steps, true = solve(entry)
  direct = mode.startswith('direct')
  answer = true
  if rng.random() < (WRONG_DIRECT if direct else WRONG_WORKED):
    steps, answer = solve(
        entry, rng, -1 if direct else rng.randrange(len(steps)))
  right = answer == true
  if mode == 'direct':
    return Response(answer, mode, right)
  if mode == 'direct_tagged':
    filler = filler or rng.choices(list(_FILLERS), _FILLERS.values())[0]
    return Response(form.format(filler, answer), mode, right)
  languages = _languages(rng, mode)
  if mode.startswith('long') or mode == 'mixed' and rng.random() < .5:
    thought = long_thought(rng, entry, steps, answer, languages)
  else:
    thought = short_thought(steps, languages)
  form = rng.choice(_BROKEN) if mode == 'broken' else form
  return Response(form.format(thought.strip(), answer), mode, right)


def _restate_sum(metadata: dict[str, Any], lang: str) -> str:
  del lang
  return metadata['expression'].replace(' ', '')


def _restate_animals(metadata: dict[str, Any], lang: str) -> str:
  return _WORDS[lang].comma.join(
      general.counted(count, name, lang)
      for name, count in metadata['animals'].items())


def _restate_product(metadata: dict[str, Any], lang: str) -> str:
  del lang
  return '*'.join(f'({int(real)}+{int(imaginary)}i)' for real, imaginary in (
      metadata['num1'], metadata['num2']))


class Task(NamedTuple):
  """A dataset of reasoning_gym, and how the corpus works its problems out."""
  # Of its generator: a direct answer needs the whole sum in one pass, a worked
  # one never more than two numbers at a time.
  settings: dict[str, Any]
  solve: Callable[[dict[str, Any], Callable[..., int]], str]  # metadata, do
  restate: Callable[[dict[str, Any], str], str]  # metadata, language
  negative: bool = False  # whether intermediate values may be below 0

  def suits(self, entry: dict[str, Any]) -> bool:
    """Whether a problem may be in the corpus."""
    return self.negative or all(step.value >= 0 for step in solve(entry)[0])


TASKS = {
    'chain_sum': Task(
        dict(min_terms=6, max_terms=6, min_digits=1, max_digits=1),
        _chain_sum, _restate_sum),
    'leg_counting': Task(
        dict(min_animals=3, max_animals=3, min_instances=1, max_instances=9),
        _leg_counting, _restate_animals),
    'complex_arithmetic': Task(
        dict(min_real=1, max_real=9, min_imag=1, max_imag=9, operations=('*',),
             operations_weights=[1.]),
        _complex_product, _restate_product, negative=True),
}
