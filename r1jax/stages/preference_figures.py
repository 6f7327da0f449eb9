"""Evaluation of a reward model, or of a DPO policy's implicit reward."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.data import preferences
from r1jax.kernels import losses
from r1jax.reports import intervals

_BINS = 10  # of confidence, for the calibration


def evaluate(records: Sequence[preferences.Record],
             raw: Sequence[np.ndarray], offset: float, loss: str, shown: int
             ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Results, and the first records with their scores for a reader.

  Args:
    records: M held-out ones; at least one has responses of different grades,
      unless the loss is pointwise.
    raw: scores before normalisation, f32[responses] each.
    offset: subtracted from them.
    loss: 'pairwise', 'pointwise' or 'dpo', what they were trained with.
    shown: records to show.

  Returns:
    {'n', 'accuracy', 'ci95', 'loss', 'margin', 'calibration_error',
    'length_correlation', 'score_mean', 'score_std', 'tasks'}: accuracy is the
    share of pairs in the right order, or of responses classified correctly
    (ties a half); margin the mean lead of the better response over the worse;
    calibration_error the mean gap between confidence and accuracy over ten
    bins of confidence; lengths are in characters.
  """
  leads = [_leads(np.asarray(record['grades'], float), score, loss)
           for record, score in zip(records, raw)]
  lead = np.concatenate(leads)
  right = losses.won(lead)
  # Pairs of one prompt are not independent: it counts once.
  n = len(lead) if loss == 'pointwise' else sum(
      len(part) > 0 for part in leads)
  confidence = 1 / (1 + np.exp(-np.abs(lead)))
  score = np.concatenate(raw)
  length = np.array([len(text) for record in records
                     for text in record['responses']])
  tasks = sorted({record['task'] for record in records})
  share = lambda task: np.concatenate([
      part for part, record in zip(leads, records) if record['task'] == task])
  results = {
      'n': int(n),
      'accuracy': float(right.mean()),
      'ci95': intervals.wilson(float(right.mean()), int(n)),
      'loss': float(np.logaddexp(0, -lead).mean()),
      'margin': float(lead.mean()),
      'calibration_error': calibration_error(confidence, right),
      'length_correlation': correlation(score, length),
      'score_mean': float(score.mean()) - offset,
      'score_std': float(score.std()),
      'tasks': {task: float(losses.won(share(task)).mean()) for task in tasks},
  }
  samples = [
      record | {'scores': [float(x) - offset for x in score]}
      for record, score in zip(records[:shown], raw)]
  return results, samples


def _leads(grade: np.ndarray, score: np.ndarray, loss: str) -> np.ndarray:
  """By how much each comparison of a record is right; negative is wrong."""
  if loss == 'pointwise':
    return np.where(grade > 0, score, -score)
  lead = score[:, None] - score[None]
  return lead[grade[:, None] > grade[None]]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
  """Expected calibration error (Guo et al., arXiv 1706.04599, eq. 3).

  `confidence` is from 1/2 to 1. Two comparisons of confidence 0.9, one right:
  0.4.
  """
  bins = np.minimum((confidence - .5) * 2 * _BINS, _BINS - 1).astype(int)
  gaps = [abs((right - confidence)[bins == b].mean()) * (bins == b).mean()
          for b in np.unique(bins)]
  return float(sum(gaps))


def correlation(score: np.ndarray, length: np.ndarray) -> float:
  """Pearson's; 0 where either does not vary."""
  if np.ptp(score) == 0 or np.ptp(length) == 0:
    return 0.
  return float(np.corrcoef(score, length)[0, 1])


def closing_words(loss: str, summary: Mapping[str, Any]) -> str:
  """The accuracy reached, for the terminal; `loss` as in `evaluate`."""
  after = summary['after']
  accuracy = intervals.Figure(after['accuracy'], *after['ci95'])
  return (
      f'{"policy by DPO" if loss == "dpo" else "reward model"}: accuracy '
      f'{intervals.text(accuracy, interval=True)} on {after["n"]} held-out '
      f'{"responses" if loss == "pointwise" else "prompts"}, '
      f'margin {after["margin"]:.2f}, calibration error '
      f'{after["calibration_error"]:.3f}, correlation with length '
      f'{after["length_correlation"]:+.2f}, mean score '
      f'{after["score_mean"]:+.3f}')
