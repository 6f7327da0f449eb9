"""Figures that papers report, to be shown beside a run's own and marked so.

They are of other models, prompts and lengths of response: a scale to read one's
own by, and no result of this project.
"""

from typing import NamedTuple

PAPER = 'DeepSeek-R1, arXiv 2501.12948v1'
LATER = 'DeepSeek-R1, arXiv 2501.12948v2'  # which is Nature's, table 2


class Published(NamedTuple):
  """A figure of a paper."""
  model: str
  metric: str  # 'pass@1', 'cons@64', 'percentile'
  value: float  # a share, 0 to 1
  source: str = PAPER

_MODELS = tuple(f'DeepSeek-R1{name}' for name in (
    '-Zero', '', '-Distill-Qwen-1.5B', '-Distill-Qwen-7B', '-Distill-Qwen-14B',
    '-Distill-Qwen-32B', '-Distill-Llama-8B', '-Distill-Llama-70B'))


def _percent(metric: str, *values: float | None) -> list[Published]:
  """A column of the paper's tables 2, 4 and 5, in the order of _MODELS."""
  return [Published(model, metric, round(value / 100, 4))
          for model, value in zip(_MODELS, values, strict=True)
          if value is not None]


FIGURES = {  # by suite (experiments/suites.py)
    'aime': [
        *_percent('pass@1', 71.0, 79.8, 28.9, 55.5, 69.7, 72.6, 50.4, 70.0),
        *_percent('cons@64', 86.7, None, 52.7, 83.3, 80.0, 83.3, 80.0, 86.7)],
    'math500': _percent(
        'pass@1', 95.9, 97.3, 83.9, 92.8, 93.9, 94.3, 89.1, 94.5),
    'gpqa': _percent('pass@1', 73.3, 71.5, 33.8, 49.1, 59.1, 62.1, 49.0, 65.2),
    'livecodebench': _percent(
        'pass@1', 50.0, 65.9, 16.9, 37.6, 53.1, 57.2, 39.6, 57.5),
    'mmlu': [Published('DeepSeek-R1-Zero', 'exact match', .888, LATER),
             Published('DeepSeek-R1', 'pass@1', .908)],
    'ifeval': [Published('DeepSeek-R1-Zero', 'prompt strict', .466, LATER),
               Published('DeepSeek-R1', 'prompt strict', .833)],
    'codeforces': [Published('DeepSeek-R1-Zero', 'percentile', .804, LATER),
                   Published('DeepSeek-R1', 'percentile', .963)],
}


def of(test: str) -> list[Published]:
  """What is published of the suite that a test is named after."""
  return FIGURES.get(test, [])


def sources(test: str) -> str:
  """Where these figures are from; '' where there are none."""
  return ' and '.join(dict.fromkeys(one.source for one in of(test)))
