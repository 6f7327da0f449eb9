"""Evaluation of a process reward model on responses with labelled steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.data import steps as steps_lib
from r1jax.kernels import losses
from r1jax.reports import intervals
from r1jax.stages import preference_figures


def evaluate(records: Sequence[steps_lib.Record], raw: Sequence[np.ndarray],
             shown: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Results, and the first records with their scores for a reader.

  Args:
    records: M held-out ones.
    raw: scores of the labelled steps, f32[labelled] each.
    shown: records to show.

  Returns:
    {'n', 'steps', 'accuracy', 'ci95', 'loss', 'calibration_error', 'right',
    'wrong', 'f1', 'label_mean', 'score_mean'}. n counts responses; accuracy is
    the share of steps on their label's side of 1/2 (labels of 1/2 do not
    count). As ProcessBench has it (arXiv 2412.06559, 3): right is the share of
    responses without a wrong step in which none is found, wrong that of the
    others in which the first one is found, and f1 their harmonic mean; of
    labels above or below 1/2. label_mean and score_mean are over steps, the
    score as a probability.
  """
  label = np.concatenate([_labelled(record) for record in records])
  score = np.concatenate(raw).astype(float)
  chance = 1 / (1 + np.exp(-score))
  side = np.sign(label - .5)
  right = losses.won(side * score)[side != 0]
  accuracy = float(right.mean()) if len(right) else 0.
  confidence = np.maximum(chance, 1 - chance)[side != 0]
  found = {True: [], False: []}  # by whether a step is wrong
  for record, part in zip(records, raw):
    labels = _labelled(record)
    first = steps_lib.first_error(labels)
    found[first >= 0].append(
        first == steps_lib.first_error(1 / (1 + np.exp(-part.astype(float)))))
  shares = {'right': _share(found[False]), 'wrong': _share(found[True])}
  results = {
      'n': len(records), 'steps': len(label), 'accuracy': accuracy,
      # Steps of one response are not independent: it counts once.
      'ci95': intervals.wilson(accuracy, len(records)),
      'loss': float(np.mean(np.logaddexp(0, score) - label * score)),
      'calibration_error': preference_figures.calibration_error(
          confidence, right),
      **shares, 'f1': _harmonic(*shares.values()),
      'label_mean': float(label.mean()), 'score_mean': float(chance.mean()),
  }
  samples = [record | {'scores': part.tolist()}
             for record, part in zip(records[:shown], raw)]
  return results, samples


def _labelled(record: Mapping[str, Any]) -> np.ndarray:
  return np.array([x for x in record['labels'] if x is not None], float)


def _share(hits: Sequence[bool]) -> float | None:
  """None where there is no such response."""
  return float(np.mean(hits)) if hits else None


def _harmonic(a: float | None, b: float | None) -> float | None:
  if a is None or b is None:
    return None
  return 2 * a * b / (a + b) if a + b else 0.


def closing_words(summary: Mapping[str, Any]) -> str:
  """The accuracy reached, for the terminal."""
  after = summary['after']
  accuracy = intervals.Figure(after['accuracy'], *after['ci95'])
  f1 = '' if after['f1'] is None else (
      f', first wrong step: F1 {intervals.percent(after["f1"])}')
  return (f'process reward model: accuracy '
          f'{intervals.text(accuracy, interval=True)} on {after["steps"]} '
          f'steps of {after["n"]} held-out responses{f1}, calibration error '
          f'{after["calibration_error"]:.3f}')
