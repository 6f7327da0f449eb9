"""Next-token training has a pulse, however its batch is cut or placed."""

import functools
import types

import jax
import numpy as np
import pytest

import ragged_rows
import tiny
from experiments import machine_sections
from experiments import sft
from r1jax import errors
from r1jax.data import batches
from r1jax.parallel import sharding
from r1jax.stages import lm
from r1jax.stages import train_state
from r1jax.training import accumulate
from r1jax.training import files
from r1jax.training import optim
from r1jax.types import LMBatch, TrainState

OPTIMIZER = optim.make_optimizer(lr=2e-2, steps=100)


@functools.cache
def _rows():
  """Documents that count on from their first token, packed in rows."""
  rng = np.random.default_rng(0)
  return batches.packed(ragged_rows.of(
      [np.arange(start, start + length) % 28 + 2
       for start, length in zip(rng.integers(0, 28, 80),
                                rng.integers(2, 13, 80))]), 16)


def _train(steps, sizes=None, micro_batches=1):
  setup = tiny.setup(sizes)
  abstract = train_state.abstract_state(setup, OPTIMIZER, ref=False)
  state = train_state.state_from_params(
      setup, OPTIMIZER, abstract, tiny.placed(setup))
  update = jax.jit(
      functools.partial(lm.train_step, setup.model, OPTIMIZER, micro_batches,
                        6, None),
      donate_argnums=0, out_shardings=(train_state.shardings_of(abstract), None))
  history = []
  for step in range(steps):
    batch = LMBatch(*_rows().batch(step, 16, 0))
    state, metrics = update(state, sharding.from_host(batch, setup.mesh))
    history.append(jax.device_get(metrics))
  return jax.device_get(state), history


@pytest.fixture(name='trained', scope='module')
def _trained():
  return _train(3)


def test_the_closing_words_say_what_was_reached(tmp_path):
  files.append_rows(tmp_path / 'metrics.jsonl',
               [{'step': i, 'loss': float(i)} for i in range(60)])
  words = lm.closing_words(str(tmp_path), {'steps': 60, 'after': None})
  assert 'trained: 34.500 nats per token over the last 50 of 60 steps' in words
  assert f'--config.init_from={tmp_path}' in words
  assert 'nothing' in lm.closing_words(
      str(tmp_path), {'steps': 0, 'after': None})
  after = {'loss': 1.25, 'token_accuracy': .5}
  assert 'held out: 1.250 nats per token, 50.0 %' in lm.closing_words(
      str(tmp_path), {'steps': 60, 'after': after})


@pytest.mark.parametrize('steps, epochs, rows, expected', [
    (7, 2, 10, 7), (0, 2, 10, 0), (None, 1, 12, 3), (None, 1.5, 11, 3),
    (None, .4, 11, 1), (None, 2, 3, 2)])
def test_the_steps_of_so_many_passes_in_batches_of_4(
    steps, epochs, rows, expected):
  """Less than a batch is left of a pass, or is all of it."""
  config = types.SimpleNamespace(steps=steps, epochs=epochs)
  assert train_state.total_steps(config, rows, 4) == expected


def test_a_sequence_may_be_as_long_as_the_model_allows_and_no_longer():
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  place = lambda length: train_state.place_model(
      tiny.config(), mesh, machine_sections.RULES, longest=('lm.length', length))
  assert place(tiny.SHAPE['max_len'])
  with pytest.raises(errors.ConfigError, match='config.lm.length: .*most.* 64'):
    place(tiny.SHAPE['max_len'] + 1)


@pytest.mark.parametrize('sizes, batch', [(None, 4), (dict(data=8), 16)])
def test_held_out_loss_and_token_accuracy(sizes, batch):
  """Every row once, by a plain pass over all of them."""
  setup, rows = tiny.setup(sizes), _rows()
  state = TrainState(None, tiny.placed(setup), None, None, None)
  figures, _ = lm.make_evaluator(setup, rows, batch, chunk=6)(state)
  batch = rows.take(np.arange(rows.size))
  hidden, _ = tiny.model().forward(tiny.params(), *batch[:3])
  logits = np.asarray(tiny.model().unembed(tiny.params(), hidden))[:, :-1]
  logp = jax.nn.log_softmax(logits)
  target, weight = batch.tokens[:, 1:], batch.weight[:, 1:]
  picked = np.take_along_axis(np.asarray(logp), target[..., None], -1)[..., 0]
  assert figures['n'] == rows.size
  np.testing.assert_allclose(
      [figures['loss'], figures['token_accuracy']],
      [-(picked * weight).sum() / weight.sum(),
       ((logits.argmax(-1) == target) * weight).sum() / weight.sum()],
      rtol=1e-5)


def test_factors_are_learned_and_measured_over_their_base(monkeypatch):
  """Of LoRA: the base stands in `ref`."""
  state = TrainState(0, {'lora': 1.}, None, {'base': 2.}, 0)
  monkeypatch.setattr(lm, 'loss', lambda model, chunk, params, part: params)
  monkeypatch.setattr(accumulate, 'gradients', lambda loss, params, parts: (
      loss(params, None), {}))
  monkeypatch.setattr(optim, 'update', lambda optimizer, grads, state: (
      state._replace(params=grads), {}))
  batch = LMBatch(*_rows().take(np.arange(4)))
  stepped, _ = lm.train_step(None, None, 2, 6, None, state, batch)
  assert stepped.params == {'lora': 1., 'base': 2.} and stepped.step == 1
  monkeypatch.setattr(lm, 'measured', lambda model, chunk, params, batch: (
      params['base'], params['lora'], 4.))
  setup = types.SimpleNamespace(model=None, mesh=sharding.make_mesh(
      {}, jax.devices()[:1]))
  figures, _ = lm.make_evaluator(setup, _rows(), 4, chunk=6)(state)
  assert figures == {
      'n': _rows().size, 'loss': .5, 'token_accuracy': .25}


def test_a_stage_is_built_as_its_config_says(monkeypatch):
  config, read = sft.get_config('mini').unlock(), []
  config.steps, config.epochs = None, 2
  config.data.split = 'learned'
  config.eval.update(split='heldout', problems=3)
  config.lm.update(batch=8, micro_batches=4, logp_chunk=6)
  monkeypatch.setattr(
      lm, 'read_rows', lambda *given: read.append(given[3:]) or _rows())
  monkeypatch.setattr(lm, 'make_evaluator', lambda *given: given)
  stage = lm.build(config, sharding.make_mesh({}, jax.devices()[:1]), '')
  assert stage.steps == 2 * (_rows().size // 8)
  assert read == [('learned',), ('heldout', 3)]
  assert stage.evaluate[2:] == (2, 6)


def test_the_loss_falls():
  state, history = _train(60)
  losses = [metrics['loss'] for metrics in history]
  # Counting on is certain but for where a document begins, which is no target.
  assert losses[0] > 3. and np.mean(losses[-3:]) < 0.3
  assert history[-1]['lm/entropy'] < 0.6 < history[0]['lm/entropy']
  assert state.step == 60 and state.skipped == 0


@pytest.mark.parametrize('sizes, micro_batches', [
    (None, 4), (dict(data=8), 1), (dict(fsdp=4, tensor=2), 2)])
def test_micro_batches_and_meshes_change_nothing(trained, sizes, micro_batches):
  state, history = _train(3, sizes, micro_batches)
  tiny.assert_near(state.params, trained[0].params)
  for got, expected in zip(history, trained[1]):
    tiny.assert_near(got, expected, 1e-4)
