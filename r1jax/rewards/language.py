"""The language-consistency reward: a chain of thought keeps to one language.

The share of its words that are of the target language (DeepSeek-R1, arXiv
2501.12948, 2.3.2). A word's language is known by its script; where two
languages share a script, by simplemma's dictionaries, which load when first
needed. Chinese, Japanese and Thai are written without spaces: each of their
characters counts as a word. Code, mathematics and single letters, which name
variables, do not count.
"""

import functools
import re
from typing import Iterator, Sequence
import unicodedata

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
_THOUGHT = re.compile(
    rf'(?:.*?{thinking.THINK})?(.*?)(?:{thinking.END_OF_THINKING}|\Z)',
    re.DOTALL)


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
    words = [self._of_word(*word) for word in words_of(text)]
    return sum(target in word for word in words) / len(words) if words else 1.

  def of(self, text: str) -> str:
    """The language that most words may be of; the first of equals."""
    words = [self._of_word(*word) for word in words_of(text)]
    return max(self.codes, key=lambda code: sum(code in word for word in words))

  def due(self, prompt: str, response: str) -> str:
    """The language that a response should be in: the prompt's.

    If the prompt has no word of any, such as "12 * 34 = ?": the response's own.
    """
    spoken = any(self._of_word(*word) for word in words_of(prompt))
    return self.of(prompt if spoken else response)

  def mixed(self, text: str) -> bool:
    """Whether more than a tenth of its words are not of its language."""
    return self.share(text, self.of(text)) < 1 - MIXED

  def _of_word(self, word: str, script: str) -> tuple[str, ...]:
    """The languages a word may be of.

    A word in no dictionary, such as a name, may be of each that has its script.
    """
    possible = tuple(c for c in self.codes if script in _SCRIPTS[c])
    if len(possible) < 2 or script in _UNSPACED:
      return possible
    return tuple(c for c in possible if _known(word, c)) or possible


def consistency(languages: Languages, text: str, target: str) -> float:
  """The share of a response's thinking that is in `target`, 0 to 1.

  The thinking is what comes before </think>, or without it the whole response.
  Mathematics alone scores 1, an empty thought 0.

  Example: "<think> First 3+4=7. 再算7*2=14。 </think> 14", for "en", has the
  words First, 再, 算: 1/3.
  """
  thought = _THOUGHT.match(text).group(1)
  return languages.share(thought, target) if thought.strip() else 0.


def words_of(text: str) -> Iterator[tuple[str, str]]:
  """Yields each word, in lower case, with its script: 'LATIN', 'CJK', ..."""
  word, script = [], None
  for letter in _NO_LANGUAGE.sub(' ', text) + ' ':
    kind = _script(letter)
    if kind == '' or kind == script and kind not in (None, *_UNSPACED):
      word.append(letter)
      continue
    if script and (len(word) > 1 or script in _UNSPACED):
      yield ''.join(word).lower(), script
    word, script = [letter], kind


@functools.lru_cache(maxsize=None)
def _script(letter: str) -> str | None:
  """LATIN, CJK, ... for a letter, "" for an accent; None for anything else."""
  if unicodedata.category(letter).startswith('M'):
    return ''
  if not letter.isalpha():
    return None
  first, *rest = re.split('[ -]', unicodedata.name(letter, 'UNKNOWN'))
  name = rest[0] if first in ('FULLWIDTH', 'HALFWIDTH') else first
  return 'CJK' if name == 'IDEOGRAPHIC' else name


@functools.lru_cache(maxsize=1 << 16)
def _known(word: str, code: str) -> bool:
  import simplemma  # pylint: disable=g-import-not-at-top
  return simplemma.is_known(word, lang=_DICTIONARY.get(code, code))
