"""Reasoning problems asked in a language: English, Chinese or Italian."""

from typing import Any

from r1jax.mini import general

LANGUAGES = ('en', 'zh', 'it')
_CALCULATE = {'zh': '请算：', 'it': 'Calcola la somma: '}
_MULTIPLY = {'zh': '请算：', 'it': 'Moltiplica i numeri complessi: '}


def asked(entry: dict[str, Any], lang: str) -> str:
  """The question of a reasoning_gym entry; in English, reasoning_gym's own."""
  if lang == 'en':
    return entry['question']
  task = entry['metadata']['source_dataset']
  if task == 'leg_counting':
    return _legs(entry['metadata']['animals'], lang)
  words = {'chain_sum': _CALCULATE, 'complex_arithmetic': _MULTIPLY}[task]
  return words[lang] + entry['question'].partition(': ')[2]


def _legs(animals: dict[str, int], lang: str) -> str:
  counts = [general.counted(count, name, lang)
            for name, count in animals.items()]
  if lang == 'zh':
    return f'{"，".join(counts)}，有几条腿？'
  return f'Conta le zampe: {", ".join(counts)}.'
