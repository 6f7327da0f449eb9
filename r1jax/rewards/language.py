"""The language-consistency reward: a chain of thought keeps to one language.

The share of its words that are of the target language (DeepSeek-R1, arXiv
2501.12948, 2.3.2). A word's language is known by its script; where two
languages share a script, by simplemma's dictionaries, which load when first
needed. Chinese, Japanese and Thai are written without spaces: each of their
characters counts as a word. Code, mathematics and single letters, which name
variables, do not count.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import functools
import re
import sys
from typing import NamedTuple
import unicodedata

import numpy as np

from r1jax import errors
from r1jax.data import thinking

MIXED = 0.1  # a text with more words than this in other languages is mixed

_LATIN = ('ca cs cy da de en es et fi fr ga gl hr hu id is it la lt lv ms nb '
          'nl nn pl pt ro sk sl sq sv sw tl tr').split()
_SCRIPTS = dict.fromkeys(_LATIN, ('LATIN',)) | {
    'ar': ('ARABIC',), 'bg': ('CYRILLIC',), 'el': ('GREEK',),
    'fa': ('ARABIC',), 'he': ('HEBREW',), 'hi': ('DEVANAGARI',),
    'hy': ('ARMENIAN',), 'ja': ('HIRAGANA', 'KATAKANA', 'CJK'),
    'ka': ('GEORGIAN',), 'ko': ('HANGUL',), 'mk': ('CYRILLIC',),
    'ru': ('CYRILLIC',), 'th': ('THAI',), 'uk': ('CYRILLIC',),
    'zh': ('CJK',)}
_UNSPACED = ('CJK', 'HIRAGANA', 'KATAKANA', 'THAI')
_DICTIONARY = {'hr': 'hbs'}  # simplemma's name, where it differs

_NO_LANGUAGE = re.compile(
    r'```.*?```|~~~.*?~~~|`[^`\n]*`'  # code
    # Mathematics; no match starts within another, or time would be quadratic.
    # A price is not one, by Pandoc's rule: no space inside, no digit after.
    r'|\$\$.*?\$\$|\$(?!\s)[^$\n]*(?<!\s)\$(?!\d)'
    r'|\\\[(?:(?!\\\[).)*?\\\]|\\\((?:(?!\\\().)*?\\\)'
    r'|\\begin\{([a-zA-Z]+\*?)\}(?:(?!\\begin\{).)*?\\end\{\1\}'
    r'|\\(?:begin|end)\{[a-zA-Z]+\*?\}|\\[a-zA-Z]+'
    r'|(?a:</?\w+>)|https?://[!-~]*', re.DOTALL)


class Languages:
  """A detector of the languages with these ISO 639-1 codes."""

  def __init__(self, codes: Sequence[str]):
    """Raises ConfigError for none, or for a code that is not known."""
    if not codes:
      raise errors.expected('rewards.languages', 'at least one', codes)
    for code in codes:
      errors.check_choice('rewards.languages', code, _SCRIPTS)
    self.codes = tuple(codes)

  def share(self, text: str, target: str) -> float:
    """The share of words that may be of `target`; 1 for a text without any."""
    return _share(self._counts(text), target)

  def of(self, text: str) -> str:
    """The language that most words may be of; the first of equals."""
    return self._most(self._counts(text))

  def due(self, prompt: str, response: str) -> str:
    """The language that a response should be in: the prompt's.

    If the prompt has no word of any, such as "12 * 34 = ?": the response's own.
    """
    spoken = self._counts(prompt)
    return self._most(spoken if any(spoken) else self._counts(response))

  def mixed(self, text: str) -> bool:
    """Whether more than a tenth of its words are not of its language."""
    counts = self._counts(text)
    return _share(counts, self._most(counts)) < 1 - MIXED

  def _counts(self, text: str) -> dict[tuple[str, ...], int]:
    """How many words of a text may be of which languages; (): of none."""
    words = words_of(text)
    found = collections.Counter()
    for index, count in enumerate(np.bincount(words.script).tolist()):
      script = _SCRIPTS_MET[index]
      possible = tuple(c for c in self.codes if script in _SCRIPTS[c])
      if count and len(possible) > 1 and script not in _UNSPACED:
        found.update(_in_dictionary(word, possible)
                     for word, _ in words.pairs(script))
      elif count:
        found[possible] += count
    return found

  def _most(self, counts: Mapping[tuple[str, ...], int]) -> str:
    return max(self.codes, key=lambda code: _of(counts, code))


def _of(counts: Mapping[tuple[str, ...], int], code: str) -> int:
  """How many words may be of a language."""
  return sum(count for codes, count in counts.items() if code in codes)


def _share(counts: Mapping[tuple[str, ...], int], code: str) -> float:
  return _of(counts, code) / sum(counts.values()) if counts else 1.


def consistency(languages: Languages, text: str, target: str) -> float:
  """The share of a response's thinking that is in `target`, 0 to 1.

  The thinking is what comes before </think>, or without it the whole response.
  Mathematics alone scores 1, an empty thought 0.

  Example: "<think> First 3+4=7. 再算7*2=14。 </think> 14", for "en", has the
  words First, 再, 算: 1/3.
  """
  _, opened, rest = text.partition(thinking.THINK)
  thought, _, _ = (rest if opened else text).partition(thinking.END_OF_THINKING)
  return languages.share(thought, target) if thought.strip() else 0.


class Words(NamedTuple):
  """The words of a text; a word is letters of one script, with their accents.

  Of a script without spaces it is one letter, of another at least two.
  """
  text: str
  start: np.ndarray  # i[W], where in the text a word begins
  length: np.ndarray  # i[W]
  script: np.ndarray  # i[W], index into _SCRIPTS_MET

  def pairs(self, script: str | None = None) -> Iterator[tuple[str, str]]:
    """Yields each word, in lower case, and its script; or those of one script.
    """
    chosen = slice(None) if script is None else (
        self.script == _SCRIPTS_MET.index(script))
    for at, length, index in zip(*(
        x[chosen].tolist() for x in (self.start, self.length, self.script))):
      yield self.text[at:at + length].lower(), _SCRIPTS_MET[index]


def words_of(text: str) -> Words:
  """The words of a text without its code and mathematics.

  Arrays of code points, since a Python loop over the letters of a rollout takes
  longer than all other rewards together.
  """
  text = _NO_LANGUAGE.sub(' ', text)
  point = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
  for new in set(point[_KIND[point] == _UNKNOWN].tolist()):
    _KIND[new] = _kind(chr(new))
  kind = _KIND[point]
  at = np.flatnonzero(kind != _ACCENT)
  kind = kind[at]
  begins = (kind < len(_UNSPACED)) | (np.diff(kind, prepend=_ACCENT) != 0)
  start, kind = at[begins], kind[begins]
  length = np.diff(start, append=len(text))
  word = (kind < _NONE) & ((length > 1) | (kind < len(_UNSPACED)))
  return Words(text, start[word], length[word], kind[word])


# The kind of each code point: an index into the scripts, in the order in which
# they are met and those without spaces first, or one of these.
_NONE, _ACCENT, _UNKNOWN = 997, 998, 999
_SCRIPTS_MET = list(_UNSPACED)
_KIND = np.full(sys.maxunicode + 1, _UNKNOWN, np.int16)


def _kind(letter: str) -> int:
  script = _script(letter)
  if not script:
    return _NONE if script is None else _ACCENT
  if script not in _SCRIPTS_MET:
    _SCRIPTS_MET.append(script)
  return _SCRIPTS_MET.index(script)


def _script(letter: str) -> str | None:
  """LATIN, CJK, ... for a letter, "" for an accent; None for anything else."""
  if unicodedata.category(letter).startswith('M'):
    return ''
  if not letter.isalpha():
    return None
  first, *rest = re.split('[ -]', unicodedata.name(letter, 'UNKNOWN'))
  name = rest[0] if first in ('FULLWIDTH', 'HALFWIDTH') else first
  return 'CJK' if name == 'IDEOGRAPHIC' else name


def _in_dictionary(word: str, codes: tuple[str, ...]) -> tuple[str, ...]:
  """The languages that know a word; of one in no dictionary, a name, all."""
  return tuple(code for code in codes if _known(word, code)) or codes


@functools.lru_cache(maxsize=1 << 16)
def _known(word: str, code: str) -> bool:
  import simplemma  # pylint: disable=g-import-not-at-top
  return simplemma.is_known(word, lang=_DICTIONARY.get(code, code))
