"""Metrics: rows of scalars, a resume that leaves no trace, TensorBoard."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.training import files
from r1jax.training import logger


def _row(step):
  return {'loss': jnp.float32(step / 3), 'reward': np.float64(step),
          'tokens': jnp.int32(10 * step), 'share': step / 7}


def _run(workdir, start, stop):
  writer = logger.MetricWriter(workdir, start_step=start, tensorboard=False)
  for step in range(start, stop):
    writer.write(step, _row(step))
  return writer


def test_rows_hold_plain_numbers(tmp_path):
  _run(tmp_path / 'new', 0, 2).close()
  assert files.read_rows(tmp_path / 'new' / 'metrics.jsonl')[1] == {
      'step': 1, 'loss': float(np.float32(1 / 3)), 'reward': 1., 'tokens': 10,
      'share': 1 / 7}


def test_a_resumed_run_ends_with_the_file_of_one_never_stopped(tmp_path):
  _run(tmp_path / 'whole', 0, 9).close()
  _run(tmp_path / 'killed', 0, 6)  # neither flushed nor closed
  with open(tmp_path / 'killed' / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 6, "lo')
  _run(tmp_path / 'killed', 4, 9).close()
  whole, killed = ((tmp_path / name / 'metrics.jsonl').read_bytes()
                   for name in ('whole', 'killed'))
  assert whole == killed


def test_what_is_not_a_scalar_is_refused_by_name(tmp_path):
  writer = _run(tmp_path, 0, 0)
  with pytest.raises(ValueError, match=r'metric kl: .* shape \(2,\)'):
    writer.write(0, {'kl': jnp.zeros(2)})


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  writer = _run(tmp_path / 'other', 0, 2)
  writer.flush()
  writer.close()
  assert not (tmp_path / 'other').exists()


@pytest.mark.slow  # imports TensorFlow
def test_tensorboard_holds_the_same_values(tmp_path):
  pytest.importorskip('clu')
  pytest.importorskip('tensorboard')
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util
  writer = logger.MetricWriter(tmp_path, start_step=0, tensorboard=True)
  for step in range(3):
    writer.write(step, _row(step))
  writer.flush()  # enough for a reader, without a close
  events = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
  events.Reload()
  writer.close()
  assert sorted(events.Tags()['tensors']) == [
      'loss', 'reward', 'share', 'tokens']
  found = events.Tensors('loss')
  assert [event.step for event in found] == [0, 1, 2]
  np.testing.assert_allclose(
      [tensor_util.make_ndarray(event.tensor_proto) for event in found],
      [0, 1 / 3, 2 / 3], rtol=1e-6)


PROGRAM = """
import sys
sys.modules['clu'] = None  # as if it were not installed
from r1jax.training import logger
logger.MetricWriter(sys.argv[1], start_step=0, tensorboard=False).write(
    0, {'loss': 1.})
assert 'tensorflow' not in sys.modules
try:
  logger.MetricWriter(sys.argv[1], start_step=0, tensorboard=True)
except ImportError as error:
  print(error)
"""


def test_without_tensorboard_nothing_of_it_is_needed(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', PROGRAM, str(tmp_path)], text=True, check=True,
      capture_output=True)
  assert 'pip install clu tensorboard' in done.stdout
  assert '--config.log.tensorboard=False' in done.stdout
