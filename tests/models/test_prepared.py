"""Parameters made ready for many calls: the same numbers, no weight copied."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.models import architecture

LATENT = dict(
    latent=architecture.Latent(4, 4, 4, 2, 3), head_size=6, kv_heads=4)
EXPERTS = architecture.Experts(
    experts=4, active=2, mlp=8, shared=1, dense_layers=1)
POSITION = np.broadcast_to(np.arange(4), (3, 4))


@pytest.mark.parametrize('switches', [
    dict(qkv_bias=True, qk_norm=True, tied=False),
    dict(moe=EXPERTS, layers=3), LATENT])
def test_prepared_parameters_compute_the_same(switches):
  model, params = tiny.model(**switches), tiny.params(**switches)
  ready = jax.jit(model.prepare)(params)
  for stack in {'dense_blocks', 'blocks'} & set(params):
    assert 'o' not in ready[stack]['attention']  # it is used in one form alone
  tokens = np.arange(12).reshape(3, 4)

  def outputs(params):
    hidden, new = model.forward(params, tokens, None, POSITION)
    return model.unembed(params, hidden), new

  jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5),
      *(jax.jit(outputs)(x) for x in (params, ready)))


def test_a_scan_reads_weights_where_they_lie():
  """Else each token of each layer would write all its weights once more."""
  model = tiny.model(width=20, mlp=28)
  tokens = jnp.zeros((3, 1), jnp.int32)

  def slices(params):
    text = jax.jit(lambda params: model.forward(
        params, tokens, None, POSITION[:, :1])[0]).lower(
            params).compile().as_text()
    return re.findall(
        r'f32\[(?:1,)?(?:20,28|28,20)\]\S* (?:dynamic-slice|copy)\(', text)

  params = tiny.params(width=20, mlp=28)
  assert slices(params)
  assert not slices(jax.jit(model.prepare)(params))


def test_a_mesh_keeps_weights_stacked():
  """Weights that lie on several devices are gathered as they are used."""
  model = tiny.setup(dict(fsdp=2)).model
  ready = jax.eval_shape(model.prepare, tiny.params())
  assert jax.tree.structure(ready) == jax.tree.structure(tiny.params())
