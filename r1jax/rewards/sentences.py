"""Counts the sentences of an English text.

A sentence ends at '.', '!' or '?' (or the full-width marks of Chinese and
Japanese), with the quotes and brackets that close behind it, where white space
or the end of the text follows. A full stop ends none
    behind an abbreviation (Dr. Who, e.g. this) or an initial (J. Smith),
    behind the number of a list's item (1. Wash them),
    as an ellipsis or behind an abbreviation of letters (U.S. law), where the
    next word is in lower case.
Numbers and names keep theirs, since no space follows (3.14, example.com). A
blank line ends a sentence, too, and so does the end of a heading or of an item
of a list; a line without words is none. NLTK's Punkt, which IFEval's own script
uses, learns its abbreviations from a corpus and counts differently here and
there: it takes '1.' for a sentence, and a heading for a part of the next one.
"""

import re

# These end no sentence; those of the second line may.
_ABBREVIATIONS = frozenset(
    'dr mr mrs ms prof st mt rev hon gen col capt lt sgt maj cmdr gov sen rep '
    'pres vs cf approx est fig eq vol pp ed eds dept univ e.g i.e jan feb '
    'mar apr jun jul aug sep sept oct nov dec'.split())
_ENDING = frozenset('inc ltd co corp jr sr etc al ave blvd rd'.split())

# Of an item: 1. or 1) or (a)
_NUMBER = re.compile(r'[ \t]*(?:\d{1,3}[.)]|\(?[a-z\d]{1,3}\))[ \t]+')
_LINE = re.compile(  # a heading or an item of a list
    rf'[ \t]*(?:#{{1,6}}[ \t]|[*+\u2022-][ \t])|{_NUMBER.pattern}')
_END = re.compile(
    r'(?:[.!?]+|[\u3002\uff01\uff1f]+)["\'\u201d\u2019)\]*_]*(?=\s|\Z)'
    r'|[\u3002\uff01\uff1f]+')
_WORD = re.compile(r'[^\s"\'(\[\u201c\u2018*_]+\Z')


def split(text: str) -> list[str]:
  """The sentences of a text, without space around them.

  Example: 'Dr. Who paid $3.50. "Why?" Nobody knew ...' has three.
  """
  return [sentence for block in _blocks(text) for sentence in _of_block(block)]


def count(text: str) -> int:
  """The number of sentences."""
  return len(split(text))


def _blocks(text: str) -> list[str]:
  """The parts of a text that no sentence crosses: paragraphs, items, headings.
  """
  blocks = [[]]
  begun = False  # in an item or a heading: a line that is not indented ends it
  for line in text.splitlines():
    special = bool(_LINE.match(line))
    if special or not line.strip() or begun and not line[0].isspace():
      blocks.append([])
    begun = special or begun and line[:1].isspace()
    number = _NUMBER.match(line)
    blocks[-1].append(line[number.end():] if number else line)
  return [' '.join(lines) for lines in blocks]


def _of_block(block: str) -> list[str]:
  found, begin = [], 0
  for match in _END.finditer(block):
    if _ends(block[max(begin, match.start() - 40):match.start()],
             match.group(), block[match.end():match.end() + 40]):
      found.append(block[begin:match.end()].strip())
      begin = match.end()
  found.append(block[begin:].strip())
  return [sentence for sentence in found if re.search(r'\w', sentence)]


def _ends(before: str, mark: str, after: str) -> bool:
  """Whether a sentence ends at `mark`, between these letters."""
  following = after.lstrip(' "\'(\u201c\u2018[*_')
  if mark[0] != '.' or not following:
    return True
  found = _WORD.search(before)
  word = found.group().lower() if found else ''
  if word in _ABBREVIATIONS or word == 'no' and following[0].isdigit():
    return False
  if mark.startswith('..') or word in _ENDING or '.' in word:
    return not following[0].islower()
  return not (len(word) == 1 and word.isalpha() and word != 'i')
