"""A process reward model learns from labelled steps, and obeys the laws."""

import functools
import json

import jax
import numpy as np
import pytest

import graded_rows
import tiny
import tiny_preferences
from experiments import reward_model
from r1jax import config as config_lib
from r1jax import errors
from r1jax.kernels import values
from r1jax.parallel import sharding
from r1jax.reports import intervals
from r1jax.stages import preference
from r1jax.stages import step_figures
from r1jax.training import loop
from r1jax.types import Preferences

OBJECTIVE = preference.Objective('stepwise', 0., 1)


def _encode(prompt, texts):
  return prompt, texts


@functools.cache
def _rows(seed=0, count=256):
  """A step is right where its last number is even; some have no label."""
  rng = np.random.default_rng(seed)
  records = []
  for _ in range(count):
    words = rng.integers(2, 30, (rng.integers(1, 5), 3))
    labels = [float(word % 2 == 0) for word in words[:, -1]]
    if rng.random() < .3:
      labels[-1] = None
    records.append(dict(prompt=rng.integers(2, 30, 2).tolist(), task='even',
                        steps=words.tolist(), labels=labels))
  return graded_rows.steps(records, _encode, 32)


def _train(count, sizes=(), objective=OBJECTIVE):
  return tiny_preferences.train(_rows(), count, objective, dict(sizes))


def test_it_learns():
  state, history, setup = _train(80)
  assert np.mean([row['loss'] for row in history[-5:]]) < .2 < history[0]['loss']
  held_out = _rows(seed=1)
  raw = preference.RawScorer(setup, OBJECTIVE, 8)(state, held_out)
  figures, _ = step_figures.evaluate(held_out.records, raw, 2)
  assert figures['accuracy'] > .85 and figures['f1'] > .7, figures


def test_micro_batches_and_a_mesh_change_nothing():
  state, history, _ = _train(2)
  state = jax.device_get(state)
  for sizes, parts in (((), 4), ((('fsdp', 2), ('data', 2), ('tensor', 2)), 2)):
    other, metrics, _ = _train(2, sizes, OBJECTIVE._replace(
        micro_batches=parts))
    tiny.assert_near(other.params, state.params)
    tiny.assert_near(metrics, history, 1e-4)


def test_a_score_is_of_its_step_and_those_before_alone():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  of_rows = jax.jit(values.of_rows, static_argnums=0)
  record = dict(prompt=[3, 4], steps=[[5, 6], [7], [8, 9]], labels=[1., 0., 1.])
  scores = lambda *records: np.asarray(of_rows(model, params, Preferences(
      *graded_rows.steps(records, _encode, 16).take(np.array([0])))))
  whole = scores(record)[0, 0]
  for k in (1, 2):
    cut = record | dict(steps=record['steps'][:k], labels=record['labels'][:k])
    np.testing.assert_allclose(scores(cut)[0, 0], whole[:k], atol=1e-5)
    changed = record | dict(steps=[*record['steps'][:k], *[[20]] * (3 - k)])
    np.testing.assert_allclose(
        scores(changed)[0, 0, :k], whole[:k], atol=1e-5)
  # Beside another response in the row, and whatever its labels are.
  other = dict(prompt=[9], steps=[[10]], labels=[1.])
  beside = scores(other, record | dict(labels=[0., 1., 0.]))[0]
  np.testing.assert_allclose(
      sorted(beside[:, 0]), sorted([whole[0], scores(other)[0, 0, 0]]),
      atol=1e-5)


def test_figures_by_hand():
  logit = lambda *chances: np.log(
      np.array(chances) / (1 - np.array(chances))).astype(np.float32)
  records = [dict(labels=labels) for labels in (
      [1., 1.], [1., 0., None], [0., 1.], [1., .5])]
  raw = [logit(.9, .8), logit(.6, .6), logit(.1, .2), logit(.7, .3)]
  figures, samples = step_figures.evaluate(records, raw, 1)
  right = 5 / 7  # of .9, .8, .6, .6 (wrong), .1, .2 (wrong), .7
  loss = -np.log([.9, .8, .6, .4, .9, .2, .7]).sum() - .5 * np.log(.3 * .7)
  # Bins of .8 to .9 (.8, .8), .9 to 1 (.9, .9), .6 to .7 (.6, .6), .7 (.7).
  gap = (abs(.8 * 2 - 1) + abs(.9 * 2 - 2) + abs(.6 * 2 - 1) + abs(.7 - 1)) / 7
  assert figures == {name: pytest.approx(value, rel=1e-3) for name, value in {
      'n': 4, 'steps': 8, 'accuracy': right,
      'ci95': intervals.wilson(right, 4), 'loss': loss / 8,
      'calibration_error': gap,
      'right': .5,  # the last has a step that seems wrong
      'wrong': .5, 'f1': .5, 'label_mean': 5.5 / 8,
      'score_mean': (.9 + .8 + .6 + .6 + .1 + .2 + .7 + .3) / 8}.items()}
  assert samples[0]['scores'] == pytest.approx(logit(.9, .8))
  figures, _ = step_figures.evaluate(records[:1], raw[:1], 0)
  assert figures['wrong'] is None and figures['f1'] is None


def _config(tmp_path, **changes):
  path = tmp_path / 'steps.jsonl'
  path.write_text(''.join(json.dumps(dict(
      prompt=f'Count {n}', steps=['1.', '2.'], labels=[1, n % 2])) + '\n'
                          for n in range(8)))
  config = reward_model.get_config('mini').unlock()
  config.init_from = 'mini'
  config.data.update(task=f'jsonl:{path}', split='train[:6]')
  config.preference.update(loss='stepwise', batch=1, length=64)
  config.eval.update(split='train[6:]', problems=2)
  config.steps, config.epochs = 2, None
  config.optim.update(schedule='constant', warmup_steps=0)
  config.update(changes)
  return config


def test_the_stage_leaves_its_scores_as_they_are(tmp_path):
  config = _config(tmp_path)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  stage = preference.build(config, mesh, str(tmp_path))
  summary = loop.train(stage, loop.Settings(2, 2), str(tmp_path / 'prm'),
                       config.to_dict())
  assert summary['after']['n'] == 2 and summary['after']['steps'] == 4
  state = stage.init()
  state, _, _ = stage.step(stage.step(state, 0)[0], 1)
  assert state.params['head']['offset'] == 0


@pytest.mark.parametrize('changes, match', [
    (dict(scores='summary'), 'preference.scores'),
    (dict(balance_length=True), 'preference.balance_length'),
    (dict(length=8), 'preference.length')])
def test_mistakes_are_named(tmp_path, changes, match):
  config = _config(tmp_path, preference=changes)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  with pytest.raises(errors.ConfigError, match=match):
    preference.build(config, mesh, str(tmp_path))


def test_no_response_leads_where_steps_are_labelled(tmp_path):
  with pytest.raises(errors.ConfigError, match='preference.margin'):
    config_lib.check(_config(tmp_path, preference=dict(margin=1.)), 1)
