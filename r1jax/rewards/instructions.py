r"""Instructions that a rule can check: IFEval's 25 kinds (arXiv 2311.07911).

A prompt of IFEval has instructions such as 'length_constraints:number_words'
with {'relation': 'at least', 'num_words': 300}. A response is right if it
follows all of them (prompt-level accuracy, strict). Loosely, an instruction is
followed if one of eight variants of the response follows it: with or without
its first line, its last line, and Markdown's asterisks (section 2.3 there).

The rules are those of IFEval, table 1, and where that is open of its own
script: ---, too, begins with the mark of an item. Where the script takes an
argument for a pattern or another letter, here it is the text that the prompt
has: the keyword 'c++', the letter '#'. Languages, sentences and words in
capitals are told by rules of our own (written_language.py, sentences.py) rather
than by langdetect and NLTK: a few responses may be judged otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import re
from typing import Any, NamedTuple

from r1jax import errors
from r1jax.data import thinking
from r1jax.rewards import sentences
from r1jax.rewards import written_language

_LESS, _LEAST = 'less than', 'at least'
_OPTIONS = ('My answer is yes.', 'My answer is no.', 'My answer is maybe.')
_CLOSED = '.,?!\'"'  # the first word of a paragraph ends before these

Instruction = tuple[str, dict[str, Any]]  # its kind, and its arguments


###############################################################################
# Types of arguments
###############################################################################


def _count(value: Any) -> bool:
  return type(value) is int and value >= 0


def _text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())


def _texts(value: Any) -> bool:
  return isinstance(value, list) and bool(value) and all(map(_text, value))


def _letter(value: Any) -> bool:
  return isinstance(value, str) and len(value) == 1


def _relation(value: Any) -> bool:
  return value in (_LESS, _LEAST)


def _language(value: Any) -> bool:
  return isinstance(value, str) and value in written_language.CODES


_EXPECTED = {
    _count: 'a count', _text: 'a text', _texts: 'a list of texts',
    _letter: 'one letter', _relation: f'{_LESS!r} or {_LEAST!r}',
    _language: 'a language that its words tell, of '
               + ' '.join(sorted(written_language.CODES))}


###############################################################################
# Rules: (response, arguments) -> whether it follows
###############################################################################


def _compare(number: int, relation: str, bound: int) -> bool:
  return number < bound if relation == _LESS else number >= bound


def _all_keywords(text, keywords):
  return all(word.casefold() in text.casefold() for word in keywords)


def _keyword_frequency(text, keyword, frequency, relation):
  times = text.casefold().count(keyword.strip().casefold())
  return _compare(times, relation, frequency)


def _no_forbidden_word(text, forbidden_words):
  return not any(
      re.search(rf'(?<!\w){re.escape(word.strip())}(?!\w)', text, re.IGNORECASE)
      for word in forbidden_words)


def _letter_frequency(text, letter, let_frequency, let_relation):
  return _compare(text.lower().count(letter.lower()), let_relation,
                  let_frequency)


def _in_language(text, language):
  return language in written_language.possible(text)


def _number_of_sentences(text, num_sentences, relation):
  return _compare(sentences.count(text), relation, num_sentences)


def _number_of_words(text, num_words, relation):
  return _compare(len(re.findall(r'\w+', text)), relation, num_words)


def _number_of_paragraphs(text, num_paragraphs):
  """Paragraphs are divided by ***; none may be empty but at the ends."""
  first, *rest = text.split('***')
  inner = [first, *rest] if first.strip() else rest
  if inner and not inner[-1].strip():
    inner.pop()
  return len(inner) == num_paragraphs and all(map(str.strip, inner))


def _first_word_of_paragraph(text, num_paragraphs, nth_paragraph, first_word):
  paragraphs = list(filter(None, map(str.strip, re.split(r'\n[ \t]*\n', text))))
  if not 0 < nth_paragraph <= len(paragraphs) == num_paragraphs:
    return False
  word = paragraphs[nth_paragraph - 1].split()[0].lstrip('\'"')
  return re.split(f'[{_CLOSED}]', word)[0].casefold() == first_word.casefold()


def _number_of_placeholders(text, num_placeholders):
  return len(re.findall(r'\[[^\[\]\n]+\]', text)) >= num_placeholders


def _postscript(text, postscript_marker):
  """P.S. may be written P. S., and is no part of P.P.S."""
  marker = re.escape(postscript_marker.strip()).replace(r'\.', r'\.\s?')
  return bool(re.search(rf'(?<![\w.]){marker}', text, re.IGNORECASE))


def _number_of_bullets(text, num_bullets):
  """A line that begins with - or one * is an item, whatever follows."""
  return len(re.findall(r'^[ \t]*(?:\*[^*]|-)', text, re.MULTILINE)
             ) == num_bullets


def _one_of_the_options(text):
  return any(option in text for option in _OPTIONS)


def _number_of_highlights(text, num_highlights):
  """What is within asterisks of a line, single or double, and not blank."""
  found = re.findall(r'\*[^\n*]+\*', text.replace('**', '\n')) + re.findall(
      r'\*\*[^\n*]+\*\*', text)
  return sum(bool(part.strip('* ')) for part in found) >= num_highlights


def _number_of_sections(text, section_spliter, num_sections):
  return len(re.findall(rf'{re.escape(section_spliter.strip())}\s?\d+', text)
             ) >= num_sections


def _json_format(text):
  inner = re.sub(r'\A```(?:json)?|```\Z', '', text.strip(), flags=re.IGNORECASE)
  try:
    json.loads(inner)
  except (ValueError, RecursionError):
    return False
  return True


def _title(text):
  return any(title.strip() for title in re.findall(r'<<([^\n<>]+)>>', text))


def _two_responses(text):
  """Divided by ******, and different."""
  first, *rest = text.split('******')
  parts = [part.strip() for part in (first, *rest)]
  parts = parts[not parts[0]:len(parts) - (not parts[-1])]
  return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _repeats_the_prompt(text, prompt_to_repeat):
  return text.strip().casefold().startswith(prompt_to_repeat.strip().casefold())


def _ends_with(text, end_phrase):
  return text.strip().strip('"').casefold().endswith(
      end_phrase.strip().casefold())


def _capital_words(text, capital_frequency, capital_relation):
  """Words in capitals, I among them; one with a hyphen is one word."""
  words = re.findall(r"\w[\w'\u2019.-]*", text)
  return _compare(sum(map(str.isupper, words)), capital_relation,
                  capital_frequency)


def _english_capitals(text):
  return text.isupper() and _in_language(text.lower(), 'en')


def _english_lowercase(text):
  return text.islower() and _in_language(text, 'en')


def _no_comma(text):
  return ',' not in text


def _quoted(text):
  text = text.strip()
  return len(text) > 1 and text[0] == text[-1] == '"'


class Kind(NamedTuple):
  """A kind of instruction."""
  follows: Callable[..., bool]  # (response, **arguments)
  arguments: dict[str, Callable[[Any], bool]] = {}  # their types


KINDS = {
    'keywords:existence': Kind(_all_keywords, dict(keywords=_texts)),
    'keywords:frequency': Kind(_keyword_frequency, dict(
        keyword=_text, frequency=_count, relation=_relation)),
    'keywords:forbidden_words': Kind(
        _no_forbidden_word, dict(forbidden_words=_texts)),
    'keywords:letter_frequency': Kind(_letter_frequency, dict(
        letter=_letter, let_frequency=_count, let_relation=_relation)),
    'language:response_language': Kind(_in_language, dict(language=_language)),
    'length_constraints:number_sentences': Kind(_number_of_sentences, dict(
        num_sentences=_count, relation=_relation)),
    'length_constraints:number_paragraphs': Kind(
        _number_of_paragraphs, dict(num_paragraphs=_count)),
    'length_constraints:number_words': Kind(
        _number_of_words, dict(num_words=_count, relation=_relation)),
    'length_constraints:nth_paragraph_first_word': Kind(
        _first_word_of_paragraph, dict(
            num_paragraphs=_count, nth_paragraph=_count, first_word=_text)),
    'detectable_content:number_placeholders': Kind(
        _number_of_placeholders, dict(num_placeholders=_count)),
    'detectable_content:postscript': Kind(
        _postscript, dict(postscript_marker=_text)),
    'detectable_format:number_bullet_lists': Kind(
        _number_of_bullets, dict(num_bullets=_count)),
    'detectable_format:constrained_response': Kind(_one_of_the_options),
    'detectable_format:number_highlighted_sections': Kind(
        _number_of_highlights, dict(num_highlights=_count)),
    'detectable_format:multiple_sections': Kind(_number_of_sections, dict(
        section_spliter=_text, num_sections=_count)),
    'detectable_format:json_format': Kind(_json_format),
    'detectable_format:title': Kind(_title),
    'combination:two_responses': Kind(_two_responses),
    'combination:repeat_prompt': Kind(
        _repeats_the_prompt, dict(prompt_to_repeat=_text)),
    'startend:end_checker': Kind(_ends_with, dict(end_phrase=_text)),
    'startend:quotation': Kind(_quoted),
    'change_case:capital_word_frequency': Kind(_capital_words, dict(
        capital_frequency=_count, capital_relation=_relation)),
    'change_case:english_capital': Kind(_english_capitals),
    'change_case:english_lowercase': Kind(_english_lowercase),
    'punctuation:no_comma': Kind(_no_comma),
}


###############################################################################
# Prompts and responses
###############################################################################


def instruction(name: str, arguments: Mapping[str, Any]) -> Instruction:
  """An instruction of a row, its arguments checked; null is none.

  Raises:
    ConfigError: there is no such kind, an argument is missing, unknown or of
      another type, or a language is asked for that no rule here can tell.
  """
  errors.check_choice('data.task', name, KINDS)
  given = {key: value for key, value in arguments.items() if value is not None}
  types = KINDS[name].arguments
  for argument in {**types, **given}:
    if argument not in types or argument not in given:
      raise errors.expected(
          'data.task', f'the arguments {sorted(types)} of {name}',
          sorted(given))
    if not types[argument](given[argument]):
      raise errors.expected(
          'data.task', f'{_EXPECTED[types[argument]]} as {argument} of {name}',
          given[argument])
  return name, given


def strict(response: str, asked: Sequence[Instruction]) -> list[bool]:
  """Whether a response follows each instruction; an empty one follows none."""
  return [bool(response.strip()) and KINDS[name].follows(response, **arguments)
          for name, arguments in asked]


def loose(response: str, asked: Sequence[Instruction]) -> list[bool]:
  """Whether one of eight variants of a response follows each instruction."""
  lines = response.split('\n')
  variants = [response, *('\n'.join(part).strip() for part in (
      lines[1:], lines[:-1], lines[1:-1]))]
  variants += [variant.replace('*', '') for variant in variants]
  return [any(ways) for ways in zip(*(strict(v, asked) for v in variants))]


def followed(answer: str, asked: Sequence[Instruction]) -> float:
  """1.0 if a response follows all instructions, strictly, else 0.0."""
  return float(all(strict(answer, asked)))


def reward(response: str, record: Mapping[str, Any]
          ) -> tuple[float, dict[str, int]]:
  """IFEval's four figures of one response, as a reward function gives them.

  A response that was cut at the limit follows nothing, as in `accuracy`.

  Returns prompt-level strict accuracy, and columns: `loose`, prompt-level;
  `instructions`, their number, of which `followed` strictly and
  `followed_loose` loosely. Over all prompts the mean of `followed` divided by
  that of `instructions` is the instruction-level accuracy.
  """
  answer = thinking.summary(response) if record.get('finished', True) else ''
  asked = record['instructions']
  exactly, nearly = strict(answer, asked), loose(answer, asked)
  return float(all(exactly)), dict(
      loose=int(all(nearly)), instructions=len(asked), followed=sum(exactly),
      followed_loose=sum(nearly))
