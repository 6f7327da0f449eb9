r"""Multiple choice: the letter that a response gives as its answer.

What counts is the last statement of an answer: \boxed{C}, a line 'Answer: C',
or a sentence 'the answer is (C)', 'option C is correct'. Without one the last
line is the answer: C, (C), **C**, C) with its text, the text alone, or a
sentence with just one letter in brackets or bold. Nothing in the thinking
counts, no letter within a sentence ('A dog ...'), and no statement that leaves
several open ('A or B', '(A) and (C)', A with the text of C): it is wrong.
"""

from collections.abc import Iterator, Sequence
import re

from r1jax.data import thinking
from r1jax.rewards import answers

LETTERS = 'ABCDEFGHIJ'

_WORDS = ('A', 'I')  # letters that are words, too
_REASON = re.compile(r'(?:because|since|as|due to|is (?:correct|right))\b')

# 'Answer: C', at the beginning of a line; what follows may be on the next one.
_LINE = re.compile(
    r'^[ \t>*_#-]*(?:the[ \t]+)?(?:(?:my|final|correct|best|right)[ \t]+)*'
    r'(?:answer|\u7b54\u6848)(?:[ \t]+(?:choice|option|letter))?[ \t*_]*'
    r'[:\uff1a][\s*_]*(.*)', re.IGNORECASE | re.MULTILINE)
# 'the answer is C', 'so the answer: C', '\u6545\u9009C'.
_SENTENCE = re.compile(
    r'(?:(?:answer|choice|option)\s*(?:\s(?:is|(?:would|must|should)\ be)\b'
    r'\s*[:\uff1a]?|[:\uff1a])|\u7b54\u6848[\u662f\u4e3a]?[:\uff1a]?'
    r'|\u9009\u62e9?[:\uff1a]?)\s*(?=(.{0,120}))', re.IGNORECASE)
# 'option C is correct'
_CHOSEN = re.compile(
    r'(?:option|choice|answer)\s+[*_$(\[]*([A-J])[*_$)\]]*\s+is\s+(?:the\s+)?'
    r'(?:correct|right|best|answer)', re.IGNORECASE)
_MARKED = re.compile(r'\([A-J]\)|\*\*[A-J]\*\*|\[[A-J]\]')

_COMMAND = re.compile(r'\\(?:text|textbf|mathrm|mathbf|bf|rm)(?![a-z])')
_IDLE = re.compile(r'\\[()\[\]]|[*_`$"\u201c\u201d{}]')
# A letter, what closes it, and the rest of the line.
_BEGIN = re.compile(
    r'(?i:(?:option|choice|answer)\s+)?[(\[]?([A-Ja-j])(?![\w\'\u2019-])'
    r'((?:\s?[)\].:,;\u3002\uff0c\uff1a]|\s[-\u2013\u2014]\s)*)\s*(.*)')
# A further letter right behind it, as in 'A or B', 'A/B', 'A, C'.
_FURTHER = re.compile(r'(?:and|or|[,/&+])\s*(?:or\s+|and\s+)?[(\[]?[A-J]\b')


def letter(answer: str, options: Sequence[str] = ()) -> str | None:
  """The letter that an answer gives, or None if it gives none, or several.

  Args:
    answer: a response, or the part of it that holds the answer.
    options: the texts of the options, in order; (): not known, any letter to J.
  """
  text = thinking.summary(answer)
  statements = sorted(_statements(text, options))
  if statements:
    return statements[-1][1] or None
  last = text.rstrip().rpartition('\n')[2]
  found = _read(last, options, closed=True)
  if found is None:
    marked = _marked(last)
    found = marked.pop() if len(marked) == 1 else None
  return found if found and found in _letters(options) else None


def same_choice(answer: str, terms: str | tuple[str, Sequence[str]]) -> bool:
  """Whether two answers give one letter; `terms`: the other and the options.

  The other is the right letter, or a response, too, as in a vote.
  """
  other, options = (terms, ()) if isinstance(terms, str) else terms
  found = letter(answer, options)
  return found is not None and found == letter(other, options)


def _letters(options: Sequence[str]) -> str:
  return LETTERS[:len(options)] or LETTERS


def _statements(text: str, options: Sequence[str]
               ) -> Iterator[tuple[int, str]]:
  """The place and letter of each statement of an answer; '' for no letter."""
  boxed = answers.extract_answer(text, 'boxed')
  if boxed is not None:
    yield max(text.rfind(r'\boxed'), text.rfind(r'\fbox')), (
        _read(boxed, options) or '')
  for match in _LINE.finditer(text):
    if not answers.extract_answer(match[1], 'boxed'):
      yield match.start(), _read(match[1], options) or ''
  for match in _SENTENCE.finditer(text):
    found = _read(match[1], options)
    if found:
      yield match.start(), found
  for match in _CHOSEN.finditer(text):
    if match[1].upper() in _letters(options):
      yield match.start(), match[1].upper()


def _read(text: str, options: Sequence[str], closed: bool = False
         ) -> str | None:
  """The letter that a text begins with, or whose option it is.

  `closed`: behind the letter is a mark or nothing, as in 'C) 42'.
  """
  spoken = _plain(text)
  texts = [_plain(option).casefold() for option in options]
  letters = _letters(options)
  match = _BEGIN.fullmatch(spoken)
  if match and (found := match[1].upper()) in letters:
    marks, rest = match[2], match[3].rstrip('. ')
    if not rest:
      return found
    if rest.casefold() in texts:  # of this letter, or of another one
      return found if rest.casefold() == texts[letters.index(found)] else None
    if _FURTHER.match(marks.strip() + rest if ',' in marks else rest) or (
        _marked(text) - {found}):
      return None
    if match[1].isupper() and (
        marks or not closed and (rest[0] == '(' or rest[0].islower() and (
            found not in _WORDS or _REASON.match(rest)))):
      return found
  if spoken and texts.count(spoken.casefold()) == 1:
    return letters[texts.index(spoken.casefold())]
  return None


def _marked(text: str) -> set[str]:
  """The letters in brackets or bold."""
  return {match[0].strip('()*[]') for match in _MARKED.finditer(text)}


def _plain(text: str) -> str:
  """A text without what only decorates it."""
  text = _IDLE.sub('', _COMMAND.sub('', text))
  return ' '.join(text.split()).rstrip('.')
