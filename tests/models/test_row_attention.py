"""Every kernel of whole rows gives what plain XLA gives, on one device or more."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax import errors
from r1jax import models
from r1jax.kernels import fused_attention
from r1jax.kernels import logprobs
from r1jax.models import row_attention
from r1jax.parallel import sharding

GEMMA = dict(window=3, global_every=2, qk_norm=True)
LATENT = dict(latent=tiny.architecture.Latent(4, 4, 4, 2, 3), head_size=6,
              kv_heads=4)
RULES = (('batch', ('data', 'fsdp')), ('length', 'context'),
         ('activation', None), ('table', None), ('layers', None),
         ('embed', 'fsdp'), ('vocab', 'tensor'), ('heads', 'tensor'),
         ('kv_heads', 'tensor'), ('head_size', None), ('mlp', 'tensor'),
         ('norm', None), ('rank', None), ('latent', 'fsdp'))
WHOLE = tuple(dict(RULES, kv_heads=None, vocab=None).items())


@pytest.fixture(autouse=True)
def _cudnn_as_xla(monkeypatch):
  """What cuDNN would be given goes to the same function's XLA version."""
  monkeypatch.setattr(fused_attention, 'cudnn', functools.partial(
      fused_attention.cudnn, implementation='xla'))


def _log_probabilities(switches, place=None, rows=(3, 5)):
  """log p of 2 responses a prompt, and the gradient of their weighted sum."""
  model = models.build(tiny.config(**switches), place)
  plain = {name: value for name, value in switches.items()
           if name != 'attention_kernel'}
  prompts = tiny.prompts(rows)
  tokens = np.random.default_rng(1).integers(2, 30, (2 * len(rows), 6))
  weight = np.random.default_rng(2).normal(size=tokens.shape)

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def run(params):
    logp, _ = logprobs.of_responses(
        model, params, prompts, tokens, temperature=1., chunk=4)
    return jnp.sum(weight * logp), logp

  return run(tiny.params(**plain))


def _assert_same(got, wanted):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(
      x, y, rtol=2e-4, atol=2e-5), got, wanted)


@pytest.mark.parametrize('kernel', ['splash', 'cudnn'])
@pytest.mark.parametrize('switches', [
    {}, GEMMA, dict(GEMMA, scan_layers=False), dict(remat='dots'),
    dict(softcap_attention=0.5), LATENT])
def test_a_kernel_gives_what_xla_gives(kernel, switches):
  if kernel == 'cudnn' and {'softcap_attention', 'latent'} & switches.keys():
    pytest.skip('fused_attention.choose leaves these to XLA')
  _assert_same(_log_probabilities(dict(switches, attention_kernel=kernel)),
               _log_probabilities(switches))


@pytest.mark.parametrize('kernel', ['xla', 'splash', 'cudnn'])
@pytest.mark.parametrize('sizes', [
    dict(data=2, tensor=2, context=2), dict(context=8),
    dict(fsdp=4, tensor=2)], ids=str)
def test_on_a_mesh(kernel, sizes):
  """Four rows of prompts: some do not divide over the devices."""
  place = sharding.Placement(sharding.make_mesh(sizes), RULES)
  _assert_same(
      _log_probabilities(dict(attention_kernel=kernel), place, (3, 5, 1, 4)),
      _log_probabilities({}, rows=(3, 5, 1, 4)))


@pytest.mark.parametrize('kernel', ['xla', 'splash', 'cudnn'])
def test_key_heads_that_are_not_split(kernel):
  place = sharding.Placement(
      sharding.make_mesh(dict(tensor=4, context=2)), WHOLE)
  _assert_same(
      _log_probabilities(dict(attention_kernel=kernel), place),
      _log_probabilities({}))


@pytest.mark.parametrize('kernel', ['splash', 'cudnn'])
def test_documents_packed_in_a_row_are_alone(kernel):
  rng = np.random.default_rng(3)
  tokens = rng.integers(2, 30, (2, 10))
  segment = np.array([[1, 1, 1, 2, 2, 2, 2, 2, 0, 0], [1] * 10])
  position = np.array([[0, 1, 2, 0, 1, 2, 3, 4, 0, 0], range(10)])
  hidden = [
      jax.jit(models.build(tiny.config(**switches)).forward)(
          tiny.params(), tokens, segment, position)[0]
      for switches in (dict(attention_kernel=kernel), {})]
  real = segment > 0
  _assert_same(hidden[0][real], hidden[1][real])


class _Device(NamedTuple):
  platform: str
  compute_capability: str = ''


@pytest.mark.parametrize('device, dtype, size, kernel', [
    (_Device('cpu'), 'bfloat16', 64, 'xla'),
    (_Device('tpu'), 'float32', 192, 'splash'),
    (_Device('gpu', '8.0'), 'bfloat16', 128, 'cudnn'),
    (_Device('gpu', '10.3'), 'bfloat16', 96, 'cudnn'),
    (_Device('gpu', '9.0'), 'float32', 64, 'xla'),
    (_Device('gpu', '9.0'), 'bfloat16', 192, 'xla'),
    (_Device('gpu', '9.0'), 'bfloat16', 60, 'xla'),
    (_Device('gpu', '7.5'), 'bfloat16', 64, 'xla'),  # Turing
    (_Device('gpu', 'gfx942'), 'bfloat16', 64, 'xla')])  # AMD
def test_the_kernel_is_that_of_the_device(device, dtype, size, kernel):
  assert fused_attention.choose(device, dtype, size) == kernel
  if kernel == 'cudnn':
    assert fused_attention.choose(device, dtype, size, softcap=50.) == 'xla'


@pytest.mark.parametrize('named, sizes, rows, kernel', [
    ('splash', {}, dict(packed=True), 'splash'),
    ('splash', dict(context=2), dict(packed=True), 'splash'),
    ('splash', {}, dict(packed=True, parents=True), 'xla'),
    ('cudnn', {}, {}, 'cudnn'),
    ('cudnn', {}, dict(packed=True), 'xla'),
    ('cudnn', dict(context=2), {}, 'xla'),
    (None, {}, dict(packed=True), 'xla')])
def test_what_a_kernel_cannot_compute_is_left_to_xla(named, sizes, rows, kernel):
  devices = jax.devices()[:2 if sizes else 1]
  place = sharding.Placement(sharding.make_mesh(sizes, devices), RULES)
  config = tiny.config(attention_kernel=named)
  assert row_attention.kernel(config, place, **rows) == kernel


def test_longer_splash_segments_than_splash_takes_are_an_error():
  model = models.build(tiny.config(attention_kernel='splash'))
  tokens = jax.ShapeDtypeStruct((1, 2 ** 16 + 1), np.int32)
  with pytest.raises(errors.ConfigError, match='65,536.*65,537.*shorter rows'):
    jax.eval_shape(model.forward, tiny.params(), tokens, tokens, tokens)


@pytest.mark.parametrize('queries, keys', [(1025, 1100), (3640, 3640), (1, 1)])
def test_blocks_divide_every_length(queries, keys):
  kernel = fused_attention.splash_kernel(
      1, queries, keys, offset=keys - queries, window=None, softcap=None)
  q, k = (np.ones((1, length, 1, 8)) for length in (queries, keys))
  padded = fused_attention.pad(q, k, k, None, None)
  out = jax.eval_shape(fused_attention.splash, kernel, *padded)
  assert out.shape == padded[0].shape


def test_a_device_may_have_padding_alone_within_a_window():
  kernel = fused_attention.splash_kernel(
      1, 200, 200, offset=0, window=60, softcap=None, query_shards=4)
  assert kernel.fwd_mask_info.q_sequence.shape == (512,)
