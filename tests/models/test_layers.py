"""Layers: the norm, and the scalar head of reward models and critics."""

import dataclasses
import json
import pathlib

import jax
from jax.sharding import PartitionSpec as P
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import numpy_decoder
import tiny
from experiments import machine_sections
from r1jax import errors
from r1jax.kernels import values
from r1jax.models import hf
from r1jax.models import hf_export
from r1jax.models import layers
from r1jax.models import lora
from r1jax.models import packaged
from r1jax.parallel import sharding
from r1jax.stages import model_source
from r1jax.stages import train_state
from r1jax.training import checkpoint
from r1jax.types import TrainState

TOKENS = np.random.default_rng(0).integers(2, 30, (8, 6)).astype(np.int32)
LENGTH = np.array([6, 1, 3, 6, 2, 5, 4, 6], np.int32)


def _score(model, params, tokens=TOKENS, length=LENGTH, prompts=None):
  prompts = tiny.prompts() if prompts is None else prompts
  return np.asarray(jax.jit(values.of_responses, static_argnums=0)(
      model, params, prompts, tokens, length))


_values = jax.jit(values.of_states, static_argnums=0)


def test_a_score_is_read_at_the_last_token():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  got, head = _score(model, params), params['head']
  untied = tiny.config(tied=False)
  column = params | {'output': head['kernel'][:, None]}  # a logit is a score
  prompts = tiny.prompts()
  for n, length in enumerate(LENGTH):
    prompt = prompts.tokens[n // 2][:prompts.length[n // 2]]
    row = np.concatenate([prompt, TOKENS[n, :length]])[None]
    logits = numpy_decoder.logits(
        untied, column, row, np.ones_like(row), np.arange(row.shape[1])[None])
    np.testing.assert_allclose(
        got[n], logits[0, -1, 0] - head['offset'], atol=2e-5)


def test_what_stands_behind_a_response_does_not_matter():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  other = np.where(np.arange(6) < LENGTH[:, None], TOKENS, 7)
  np.testing.assert_array_equal(
      _score(model, params), _score(model, params, other))


def test_values_are_those_of_the_states_before_each_token():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  value_NR = np.asarray(_values(model, params, tiny.prompts(), TOKENS))
  for length in range(1, 6):
    np.testing.assert_allclose(
        value_NR[:, length],
        _score(model, params, length=np.full(8, length)), atol=2e-5)
  other = TOKENS.copy()
  other[:, 0] = 9
  np.testing.assert_array_equal(value_NR[:, 0], _values(
      model, params, tiny.prompts(), other)[:, 0])


def test_a_norm_and_a_score_of_bfloat16_are_computed_in_float32():
  config = tiny.config(dtype='bfloat16', width=64)
  x = np.random.default_rng(0).normal(size=(1, 99, 64)).astype(jnp.bfloat16)
  wide, scale = np.float64(x), np.linspace(.5, 2., 64, dtype=np.float32)
  normed = layers.RMSNorm(config, .5).apply({'params': {'scale': scale}}, x)
  rms = np.sqrt(np.mean(wide ** 2, -1, keepdims=True) + .5)
  np.testing.assert_array_equal(
      normed, (wide / rms * scale).astype(np.float32).astype(jnp.bfloat16))
  kernel = scale.astype(jnp.bfloat16)
  score = layers.Score(config).apply(
      {'params': {'kernel': kernel, 'offset': np.float32(.25)}}, x)
  np.testing.assert_allclose(score, wide @ np.float64(kernel) - .25, atol=1e-4)


def test_a_norm_of_one_sequence_sums_over_its_tokens_alone():
  """With a batch of one before them, XLA for CPUs takes ten times as long."""
  norm = layers.RMSNorm(tiny.config(width=64))

  def both(scale, x):
    out, gradient = jax.vjp(
        lambda *args: norm.apply({'params': {'scale': args[0]}}, args[1]),
        scale, x)
    return gradient(out)

  made = jax.make_jaxpr(both)(jnp.ones(64), jnp.ones((1, 9, 64)))
  summed = [step.invars[0].aval.shape for step in made.eqns
            if step.primitive.name == 'reduce_sum']
  assert summed.count((9, 64)) == 3  # x x; the scale's and the mean's gradient
  assert (1, 9, 64) not in summed


def test_the_offset_lessens_every_score_and_takes_no_gradient():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  moved = params | {'head': params['head'] | {
      'offset': params['head']['offset'] + 2.}}
  np.testing.assert_allclose(
      _score(model, params) - _score(model, moved), 2., atol=1e-5)
  grads = jax.jit(jax.grad(lambda p: values.of_responses(
      model, p, tiny.prompts(), TOKENS, LENGTH).sum()))(params)
  assert grads['head']['offset'] == 0.
  assert jnp.abs(grads['head']['kernel']).max() > 0


def test_the_head_begins_small():
  model, seeds = tiny.model(scalar=True, width=64), range(4)
  init = jax.jit(lambda seed: model.init(jax.random.key(seed))['head'])
  kernels = np.stack([init(seed)['kernel'] for seed in seeds])
  np.testing.assert_allclose(kernels.std(), 65 ** -.5, rtol=.2)
  assert len(np.unique(kernels[:, 0])) == len(seeds)


def test_it_has_no_output_matrix():
  untied = dict(scalar=True, tied=False)
  assert 'output' not in tiny.params(**untied)
  assert 'head' not in tiny.params(tied=False)
  init = jax.jit(tiny.model(scalar=True).init)
  kernel = init(jax.random.key(0))['head']['kernel']
  assert 0.1 < kernel.std() * (tiny.SHAPE['width'] + 1) ** .5 < 2


def test_the_mesh_does_not_show():
  one, eight = (tiny.setup(sizes, scalar=True) for sizes in (
      None, dict(data=2, fsdp=2, tensor=2)))
  got = [_score(setup.model, tiny.placed(setup, scalar=True))
         for setup in (one, eight)]
  np.testing.assert_allclose(*got, atol=1e-5)


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('kind', ['file', 'folder', 'stage', 'lora'])
def test_it_begins_from_the_layers_of_a_model_of_tokens(kind, tied, tmp_path):
  path, switches = str(tmp_path / 'from'), dict(tied=tied)
  section = dict(rank=2, alpha=4., targets=('*',))
  base = tiny.params(**switches)
  if kind == 'file':
    path += '.npz'
    packaged.save_params(path, tiny.config(**switches), base)
  elif kind == 'folder':
    hf_export.save_folder(path, tiny.config(**switches), base)
  else:
    trained, ref = base, None
    if kind == 'lora':
      trained = lora.init(tiny.config(**switches), lora.settings(section), base,
                          jax.random.key(0))
      ref = base
    _save(path, TrainState(jnp.int32(1), trained, {}, ref, jnp.int32(0)), dict(
        model=dataclasses.asdict(tiny.config(**switches)),
        lora=section if kind == 'lora' else {}))
  setup = tiny.setup(scalar=True, **switches)
  params = train_state.init_params(
      setup, model_source.find(path), seed=3)
  assert jax.tree.structure(params) == jax.tree.structure(setup.params)
  fresh = setup.model.init(jax.random.key(3))['head']
  tiny.assert_near(params['head'], fresh, 1e-7)
  for name in ('embedding', 'blocks', 'final_norm'):
    jax.tree.map(np.testing.assert_array_equal, params[name], base[name])


def _save(workdir, state, config):
  folder = pathlib.Path(workdir)
  saver = checkpoint.Checkpointer(
      folder / 'checkpoints', keep=1)
  saver.save(1, state)
  saver.close()
  (folder / 'config.json').write_text(json.dumps(config))


def test_a_reward_model_goes_out_and_comes_back_bitwise(tmp_path):
  path = str(tmp_path / 'folder')
  config, params = tiny.config(scalar=True), tiny.params(scalar=True)
  hf_export.save_folder(path, config, params)
  assert hf.read_config(path) == config
  assert hf.read_fields(path)['architectures'] == ['LlamaForSequenceClassification']
  setup = tiny.setup(scalar=True)
  back = train_state.init_params(setup, model_source.find(path), seed=0)
  jax.tree.map(np.testing.assert_array_equal, back, params)


def test_a_model_of_scores_cannot_speak(tmp_path):
  path = str(tmp_path / 'rm.npz')
  packaged.save_params(path, tiny.config(scalar=True), tiny.params(scalar=True))
  setup = tiny.setup()
  with pytest.raises(errors.ConfigError, match='a scalar head'):
    model_source.find(path).load_params(
        setup.model.config, setup.params, setup.replicated)


def test_with_lora_the_head_is_trained_whole():
  section = ml_collections.ConfigDict(dict(rank=2, alpha=4., targets=('*',)))
  setup = tiny.setup(lora=section, scalar=True)
  assert set(setup.trained) == {'lora', 'head'}
  base = tiny.params(scalar=True)
  trained = lora.init(setup.model.config, setup.lora, base, jax.random.key(0))
  moved = trained | {'head': jax.tree.map(lambda x: x + 1., trained['head'])}
  policy = lora.join(base, moved)
  np.testing.assert_array_equal(policy['head']['offset'],
                                base['head']['offset'] + 1)
  merged = lora.merge(policy, setup.lora.scale)
  assert set(merged) == set(base)
  np.testing.assert_array_equal(merged['head']['kernel'],
                                moved['head']['kernel'])


def test_a_weights_gradient_is_summed_whole_before_it_is_cut():
  """Else XLA computes it in pieces on TPUs, and reads activations for each."""
  mesh = sharding.make_mesh(dict(fsdp=4, tensor=2))
  place = sharding.Placement(mesh, machine_sections.RULES)
  x = jnp.ones((8, 16))
  product = lambda weight: jnp.sum(layers.dense(
      x, layers.gather(place, ('embed', 'mlp'), weight)))
  traced = jax.make_jaxpr(jax.grad(product))(jnp.ones((16, 24)))
  assert [one.params['sharding'].spec for one in traced.eqns
          if one.primitive.name == 'sharding_constraint'] == [
              P(None, 'tensor'), P('fsdp', 'tensor')]
