"""The decoder against plain NumPy, and what it must never look at."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_decoder
import tiny
from r1jax import models
from r1jax.kernels import attention
from r1jax.kernels import group_sampling
from r1jax.models import architecture
from r1jax.models import transformer
from r1jax.types import Cache

QWEN = dict(qkv_bias=True, qk_norm=True, tied=False)
GEMMA = dict(window=3, global_every=2, rope_theta_local=100., post_norms=True,
             embed_scale=True, activation='gelu', softcap_attention=1.,
             softcap_final=2., attention_scale=0.4, norm_offset=1.)
LATENT = dict(
    latent=architecture.Latent(4, 4, 4, 2, 3), head_size=6, kv_heads=4)
# Each switch, and what it stands on where it means nothing alone.
SWITCHES = [({name: value}, {}) for name, value in QWEN.items()] + [
    (dict(window=3, global_every=2), {}),
    (dict(global_every=1), dict(window=3)),
    (dict(rope_theta_local=100.), dict(window=3)),
    (dict(softcap_attention=1.), {}),
    (dict(softcap_final=2.), {}),
    (dict(attention_scale=2.), {}),
    (dict(post_norms=True), {}),
    (dict(norm_offset=1.), {}),
    (dict(embed_scale=True), {}),
    (dict(activation='gelu'), {}),
    (dict(rms_eps=0.1), {}),
    (dict(rope_theta=10.), {}),
    (GEMMA | QWEN, {}),
]

# Two rows of documents: the first row begins with padding and holds two.
SEGMENT = np.array([[0, 0, 1, 1, 1, 1, 1, 2, 2, 2], [1] * 8 + [0] * 2])
POSITION = np.array([[0, 1, 0, 1, 2, 3, 4, 0, 1, 2], [*range(8), 0, 1]])
TOKENS = np.random.default_rng(0).integers(0, tiny.SHAPE['vocab'], (2, 10))


def _hidden(tokens, segment=None, position=None, **switches):
  if position is None:
    position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  forward = jax.jit(tiny.model(**switches).forward)
  return forward(tiny.params(**switches), tokens, segment, position)[0]


def _logits(params, tokens, segment, position, **switches):
  model = tiny.model(**switches)
  hidden, _ = model.forward(params, tokens, segment, position)
  return model.unembed(params, hidden)


def test_parameters_are_traced_once(monkeypatch):
  """For their shapes, their axes and themselves."""
  traced, init = [], transformer.Decoder.init
  monkeypatch.setattr(transformer.Decoder, 'init', lambda *args: (
      traced.append(args), init(*args))[1])
  model = models.build.__wrapped__(tiny.model().config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  made = jax.jit(model.init)(jax.random.key(1))
  assert jax.tree.structure(shapes) == jax.tree.structure(made)
  assert model.axes().keys() == made.keys() and len(traced) == 1


@pytest.mark.parametrize('switch, ground', [({}, {}), *SWITCHES])
def test_agrees_with_numpy_and_every_switch_matters(switch, ground):
  switches = ground | switch
  params = tiny.params(**switches)
  got = jax.jit(lambda p: _logits(p, TOKENS, SEGMENT, POSITION, **switches))(
      params)
  assert got.shape == (2, 10, tiny.SHAPE['vocab']) and got.dtype == jnp.float32
  reference = lambda fields: numpy_decoder.logits(
      tiny.config(**fields), params, TOKENS, SEGMENT, POSITION)
  np.testing.assert_allclose(got, reference(switches), atol=1e-4)
  if switch:
    assert np.abs(got - reference(ground)).max() > 0.01


def test_a_gradient_is_a_slope_and_remat_does_not_change_it():
  """Along a random direction, where float64 NumPy gives the slope."""
  switches = GEMMA | QWEN
  params, along = (tiny.params(seed, **switches) for seed in (0, 1))

  def gradient(remat):
    return jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(_logits(
        p, TOKENS, SEGMENT, POSITION, **switches, remat=remat)))))(params)

  def moved(step):
    return np.sum(np.sin(numpy_decoder.logits(
        tiny.config(**switches),
        jax.tree.map(lambda p, d: np.float64(p) + step * np.float64(d),
                     params, along),
        TOKENS, SEGMENT, POSITION)))

  plain = gradient('none')
  slope = sum(np.vdot(g, d) for g, d in zip(*map(
      jax.tree.leaves, (plain, along))))
  np.testing.assert_allclose(
      slope, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=1e-3)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(plain))
  for remat in ('dots', 'full'):
    tiny.assert_near(gradient(remat), plain)


def test_attention_a_few_queries_at_a_time_is_attention():
  def score(params, chunk):
    model = tiny.model(window=3, attention_chunk=chunk)
    hidden, _ = model.forward(params, TOKENS, SEGMENT, POSITION)
    return (hidden ** 2).sum()

  value = jax.jit(jax.value_and_grad(score), static_argnums=1)
  params = tiny.params(window=3)
  whole = value(params, None)
  # Chunks of 4 among 10: the last is filled up.
  tiny.assert_near(value(params, 4), whole, 1e-5)


@pytest.mark.parametrize('switches', [{}, GEMMA])
def test_a_token_sees_none_after_it(switches):
  hidden = _hidden(TOKENS, **switches)
  assert hidden.shape == (2, 10, tiny.SHAPE['width'])
  changed = TOKENS.copy()
  changed[:, 6] = (changed[:, 6] + 1) % tiny.SHAPE['vocab']
  other = _hidden(changed, **switches)
  np.testing.assert_array_equal(other[:, :6], hidden[:, :6])
  assert np.all(np.any(other[:, 6:] != hidden[:, 6:], -1))


@pytest.mark.parametrize('switches', [{}, GEMMA])
def test_documents_of_a_row_are_alone(switches):
  """Equal to separate runs, so neither neighbours nor padding are seen."""
  hidden = _hidden(TOKENS, SEGMENT, POSITION, **switches)
  documents = (0, slice(2, 7)), (0, slice(7, 10)), (1, slice(0, 8))
  alone = np.zeros((3, 10), int)
  for begin, place in zip(alone, documents):
    begin[:place[1].stop - place[1].start] = TOKENS[place]
  alone = _hidden(alone, **switches)
  for got, place in zip(alone, documents):
    expected = hidden[place]
    np.testing.assert_allclose(got[:len(expected)], expected, atol=1e-5)
  changed = np.where(SEGMENT == 0, 5, TOKENS)
  np.testing.assert_array_equal(
      _hidden(changed, SEGMENT, POSITION, **switches)[SEGMENT > 0],
      hidden[SEGMENT > 0])


@pytest.mark.parametrize('switches', [
    {}, GEMMA, GEMMA | dict(scan_layers=False), dict(attention_chunk=4),
    LATENT])
def test_responses_that_share_a_prompt_are_as_alone(switches):
  """A row of 3 tokens of prompt and responses of 4, 2 and 1, another of 2."""
  sizes = 3, 4, 2, 1, 2
  segment = np.repeat([5, 6, 7, 8, 10], sizes)[None]
  parent = np.repeat([5, 5, 5, 5, 10], sizes)[None]
  position = np.concatenate([
      np.arange(3), 3 + np.arange(4), 3 + np.arange(2), [3], np.arange(2)])
  tokens = np.random.default_rng(2).integers(0, tiny.SHAPE['vocab'], (1, 12))
  model, params = tiny.model(**switches), tiny.params(**switches)
  got, _ = jax.jit(model.forward)(
      params, tokens, segment, position[None], None, parent)
  for first, size in ((3, 4), (7, 2), (9, 1)):
    place = [*range(3), *range(first, first + size)]
    alone = _hidden(tokens[:, place], **switches)
    np.testing.assert_allclose(got[0, place], alone[0], atol=1e-5)
  np.testing.assert_allclose(
      got[0, 10:], _hidden(tokens[:, 10:], **switches)[0], atol=1e-5)


@pytest.mark.parametrize('switches', [
    {}, dict(scan_layers=False), GEMMA, GEMMA | dict(scan_layers=False)])
def test_decoding_through_a_cache_is_the_forward_pass(switches):
  """Two prompts, one of them padded, two responses each, a token a time."""
  model, params = tiny.model(**switches), tiny.params(**switches)
  prompts = tiny.prompts((3, 5))
  responses = np.random.default_rng(1).integers(0, 30, (4, 6))
  position = np.broadcast_to(np.arange(5), (2, 5))
  _, prompt = jax.jit(model.forward)(params, prompts.tokens, None, position)
  past = group_sampling.empty_past(*prompt, rows=4, size=6)
  cache = Cache(*prompt, prompts.length, *past, filled=jnp.int32(0))
  start = np.repeat(prompts.length, 2)

  @jax.jit
  def step(cache, token, position):
    hidden, (k, v) = model.forward(
        params, token[:, None], None, position[:, None], cache)
    return hidden[:, 0], cache._replace(k=k, v=v, filled=cache.filled + 1)

  decoded, whole = [], np.zeros((4, 11), int)
  for i in range(6):
    hidden, cache = step(cache, responses[:, i], start + i)
    decoded.append(hidden)
    whole[np.arange(4), start + i] = responses[:, i]
  for row in range(4):
    whole[row, :start[row]] = prompts.tokens[row // 2, :start[row]]
  expected = _hidden(whole, **switches)
  for row, begin in enumerate(start):
    np.testing.assert_allclose(np.stack(decoded)[:, row],
                               expected[row, begin:begin + 6], atol=1e-5)


@pytest.mark.parametrize('switches', [
    {}, dict(scan_layers=False), GEMMA, LATENT, dict(softcap_attention=.5)])
def test_a_cache_is_read_in_blocks(switches, set_traced):
  """Of 3 tokens, the last one overlapping; and none beyond what is filled."""
  model, params = tiny.model(**switches), tiny.params(**switches)
  prompts, tokens = tiny.prompts((3, 5)), np.arange(2, 10).reshape(4, 2)
  position = np.broadcast_to(np.arange(5), (2, 5))
  _, prompt = jax.jit(model.forward)(params, prompts.tokens, None, position)
  rng = np.random.default_rng(5)
  past = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype),
                      group_sampling.empty_past(*prompt, rows=4, size=8))

  def decode(filled):
    cache = Cache(*prompt, prompts.length, *past, filled=jnp.int32(filled))
    start = np.repeat(prompts.length, 2)[:, None] + filled + np.arange(2)
    return jax.jit(lambda: model.forward(params, tokens, None, start, cache))()

  whole = [decode(filled)[0] for filled in (0, 1, 3, 6)]
  set_traced(attention, 'BLOCK', 3)
  for filled, expected in zip((0, 1, 3, 6), whole):
    np.testing.assert_allclose(decode(filled)[0], expected, atol=1e-5)
  past = jax.tree.map(lambda x: jnp.where(
      jnp.arange(8).reshape(8, *[1] * (x.shape[-2] == 8)) < 6, x, jnp.nan), past)
  np.testing.assert_allclose(decode(3)[0], whole[2], atol=1e-5)


def test_bfloat16_computes_near_float32():
  params = tiny.params()
  half, full = (
      jax.jit(lambda p, dtype=dtype: _logits(
          p, TOKENS, SEGMENT, POSITION, dtype=dtype))(params)
      for dtype in ('bfloat16', 'float32'))
  assert half.dtype == jnp.float32
  assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize('switches', [{}, QWEN | GEMMA])
def test_axes_mirror_the_parameters(switches):
  model, params = tiny.model(**switches), tiny.params(**switches)
  is_axes = lambda x: type(x) is tuple
  axes = model.axes()
  assert jax.tree.structure(axes, is_leaf=is_axes) == jax.tree.structure(params)
  jax.tree.map(lambda names, leaf: _check_axes(names, leaf.shape, model.config),
               axes, params, is_leaf=is_axes)


def _check_axes(names, shape, config):
  sizes = dict(layers=config.layers, embed=config.width, table=config.width,
               vocab=config.vocab, heads=config.heads, mlp=config.mlp,
               kv_heads=config.kv_heads, head_size=config.head_size)
  assert len(names) == len(shape)
  for name, size in zip(names, shape):
    assert name == 'norm' or sizes[name] == size


@pytest.mark.parametrize('latent', [
    None, architecture.Latent(12, 20, 16, 8, 24)])
def test_it_begins_with_products_that_keep_the_variance(latent):
  """Less what the residual stream sums over layers; no layer is another."""
  width, layers, mlp, heads, size = 64, 3, 160, 4, 24
  model = tiny.model(width=width, layers=layers, mlp=mlp, heads=heads,
                     kv_heads=4, head_size=size, vocab=200, tied=False,
                     norm_offset=1., latent=latent)
  params = jax.jit(model.init)(jax.random.key(0))
  blocks, shared = params['blocks'], 2 * layers
  fan_in = {'q': width, 'k': width, 'v': width} if latent is None else {
      'q_a': width, 'q_b': 12, 'kv_a': width, 'kv_b': 20}
  expected = {'embedding': (params['embedding'], width),
              'output': (params['output'], width)} | {
      name: (blocks['attention'][name], n)
      for name, n in (fan_in | {'o': heads * size * shared}).items()} | {
      name: (blocks['mlp'][name], n) for name, n in (
          ('gate', width), ('up', width), ('down', mlp * shared))}
  for name, (weight, inputs) in expected.items():
    assert .8 < np.std(weight) * inputs ** .5 < 1.05, name
    if weight is not params['embedding'] and weight is not params['output']:
      assert np.all(np.std(weight, 0).mean() > .5 * np.std(weight)), name
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if path[-1].key == 'scale':  # with the offset, 1
      np.testing.assert_array_equal(leaf, 0)


def test_logits_of_bfloat16_are_summed_in_float32():
  half = dict(dtype='bfloat16', tied=False)
  hidden = np.random.default_rng(0).normal(size=(1, 4, tiny.SHAPE['width']))
  hidden = jnp.asarray(hidden, jnp.bfloat16)
  output = tiny.params(**half)['output'].astype(jnp.bfloat16)
  np.testing.assert_allclose(
      tiny.model(**half).unembed(tiny.params(**half), hidden),
      np.float32(hidden) @ np.float32(output), rtol=1e-5, atol=1e-6)


def test_local_layers_and_global_ones_between():
  local = lambda **fields: dataclasses.replace(
      tiny.config(layers=6), **fields).is_local()
  assert local(window=4, global_every=3) == [True, True, False] * 2
  assert local() == [False] * 6


@pytest.mark.parametrize('scan_layers', [True, False])
def test_parameters_are_cast_once_for_many_passes(scan_layers):
  """bfloat16 from float32 masters: the same numbers, half the weights."""
  switches = dict(dtype='bfloat16', scan_layers=scan_layers, tied=False)
  model, params = tiny.model(**switches), tiny.params(**switches)
  prepared = jax.jit(model.prepare)(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(prepared):
    norm = jax.tree_util.DictKey('scale') in path
    assert leaf.dtype == (jnp.float32 if norm else jnp.bfloat16), path
  forward = jax.jit(model.forward)
  position = np.broadcast_to(np.arange(10), TOKENS.shape)
  hidden = [forward(p, TOKENS, None, position)[0] for p in (params, prepared)]
  np.testing.assert_array_equal(*hidden)
  np.testing.assert_array_equal(
      *(model.unembed(p, hidden[0]) for p in (params, prepared)))
