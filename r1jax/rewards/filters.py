"""Filters of rejection sampling: right, readable, not repetitive.

The paper drops what is wrong, mixes languages, has long paragraphs or code
blocks (DeepSeek-R1, arXiv 2501.12948, 2.3.3). Every response dropped has one
reason, the first of `REASONS` that holds, so that they can be counted.
"""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

from r1jax.rewards import language
from r1jax.rewards import text_rules

REASONS = (
    'unfinished',  # cut at the token limit
    'no_verdict',  # the judge gave none; where a rule gives none, it is 'wrong'
    'wrong',
    'format',
    'mixed_language',
    'other_language',  # in one language, but not the prompt's
    'repetition',
    'long_paragraph',
    'code_block',
    'no_reflection',
    # These depend on the other responses: stages/rejection.py decides.
    'duplicate',  # equal to one kept of its prompt
    'per_prompt',  # beyond the number kept of a prompt
)

# The words of the paper's example of R1-Zero, and their Chinese.
_REFLECTION = re.compile(
    r'\b(?:wait|let me check|re-?check|verify|double-check|mistake|however|'
    r'alternatively)\b|等等|检查|验证|不对', re.IGNORECASE)
_CODE = re.compile(r'^[^\S\n]*(?:```|~~~)', re.MULTILINE)
_PARAGRAPH = re.compile(r'\n\s*\n')


class Rules(NamedTuple):
  """The conditions of keeping a response; a limit of None is off."""
  min_accuracy: float = 1.
  format: bool = True
  languages: tuple[str, ...] = ()  # distinguished; (): any mixture is kept
  max_repetition: float | None = 0.5  # share of repeated 4-grams; no loops
  max_paragraph: int | None = None  # characters
  code: bool = False  # whether code blocks are kept
  reflection: bool = False  # whether a response must have a reflection


def reflections(text: str) -> int:
  """The number of reflections in a text: "Wait", "let me check"."""
  return len(_REFLECTION.findall(text))


def drop_reason(rules: Rules, row: Mapping[str, Any]) -> str | None:
  """The first reason to drop a response by itself, None to keep it.

  Args:
    rules: the conditions.
    row: 'prompt', 'response', 'finished', 'accuracy', 'format', and
      'no_verdict' where a judge gave none.
  """
  text = row['response']
  languages = rules.languages and language.Languages(rules.languages)
  longest = max(map(len, _PARAGRAPH.split(text)))
  faults = {
      'unfinished': lambda: not row['finished'],
      'no_verdict': lambda: row.get('no_verdict'),
      'wrong': lambda: row['accuracy'] < rules.min_accuracy,
      'format': lambda: rules.format and not row['format'],
      'mixed_language': lambda: languages and languages.mixed(text),
      'other_language': lambda: languages and language.consistency(
          languages, text, languages.due(row['prompt'], text)
          ) < 1 - language.MIXED,
      'repetition': lambda: rules.max_repetition is not None and (
          -text_rules.repetition_penalty(text) > rules.max_repetition
          or text_rules.is_loop(text)),
      'long_paragraph': lambda: (
          rules.max_paragraph and longest > rules.max_paragraph),
      'code_block': lambda: not rules.code and _CODE.search(text),
      'no_reflection': lambda: rules.reflection and not reflections(text),
  }
  return next((name for name, holds in faults.items() if holds()), None)
