"""Metrics to `metrics.jsonl` and TensorBoard."""

from collections.abc import Mapping
import os
import pathlib
import sys
from typing import Any

import numpy as np

from r1jax.parallel import distributed
from r1jax.training import jsonl


class MetricWriter:
  """Writes {name: scalar} by step, from the first process alone.

  On a resume at `start_step` the lines of that step and later are dropped
  first, since the run is about to write them again. TensorBoard's files are
  appended to, never rewritten: after a kill the steps done again are in them
  twice, with the same values.
  """

  def __init__(self, workdir: str | os.PathLike, *, start_step: int,
               tensorboard: bool):
    self._active = distributed.is_main()
    self._tensorboard = None
    if not self._active:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'metrics.jsonl'
    jsonl.truncate_from(self._path, start_step)
    if tensorboard:
      self._tensorboard = _tensorboard_writer(workdir / 'tensorboard')

  def write(self, step: int, metrics: Mapping[str, Any]):
    """Adds the row of `step`; an array of one element counts as a scalar."""
    if not self._active:
      return
    scalars = {name: _scalar(name, value) for name, value in metrics.items()}
    jsonl.append(self._path, [{'step': step, **scalars}])
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, scalars)

  def flush(self):
    """Puts on disk what TensorBoard's writer still holds."""
    if self._tensorboard is not None:
      self._tensorboard.flush()

  def close(self):
    if self._tensorboard is not None:
      self._tensorboard.close()


def _scalar(name: str, value: Any) -> int | float:
  array = np.asarray(value)
  if array.size != 1:
    raise ValueError(
        f'metric {name}: expected a scalar, received shape {array.shape}')
  if np.issubdtype(array.dtype, np.integer):
    return int(array.item())
  return float(array.item())


def _tensorboard_writer(directory: pathlib.Path):
  """Returns clu's writer. It needs TensorFlow, which this imports (seconds)."""
  try:
    from clu import metric_writers
  except ModuleNotFoundError as error:
    raise ImportError(
        f'log.tensorboard needs the package {error.name!r}, which is not '
        'installed: pip install clu tensorboard tensorflow, or set '
        '--config.log.tensorboard=False to keep metrics.jsonl alone'
    ) from error
  # clu has imported TensorFlow; the accelerator is JAX's.
  sys.modules['tensorflow'].config.set_visible_devices([], 'GPU')
  return metric_writers.SummaryWriter(str(directory))
