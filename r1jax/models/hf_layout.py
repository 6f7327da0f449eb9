"""Where each parameter stands in a Hugging Face checkpoint, and how.

There a product's weight is [outputs, inputs], one tensor a layer (and expert);
here it is [inputs, outputs], heads apart, layers stacked. DeepSeek-V3's
rotary entries are interleaved there (0 rotates with 1), in halves here.
"""

from collections.abc import Iterator
import math
from typing import NamedTuple

import numpy as np

from r1jax.models import architecture


class Leaf(NamedTuple):
  """One of our parameters, as theirs."""
  name: str  # with {layer} and {expert} where those are stacked here
  # How many of our axes go into the product; 0: a vector, None: as it is there.
  inputs: int | None = 0
  interleaved: int = 0  # so many last entries of a head rotate in pairs there
  first: int = 0  # layer of the stack's first entry

  @property
  def stacked(self) -> int:
    """How many of our first axes are one tensor an entry there."""
    return self.name.count('{')

  def tensor(self, at: tuple[int, ...]) -> str:
    """The name of the tensor at `at`, a place along the stacked axes."""
    layer, expert = (*at, 0, 0)[:2]
    return self.name.format(layer=self.first + layer, expert=expert)

  def names(self, size: tuple[int, ...]) -> Iterator[str]:
    """All its tensors' names, for our parameter's shape."""
    return map(self.tensor, np.ndindex(*size[:self.stacked]))

  def their_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
    """That of each tensor, for our parameter's shape."""
    size = size[self.stacked:]
    if self.inputs is None:
      return size
    outputs, inputs = size[self.inputs:], size[:self.inputs]
    return math.prod(outputs), *([math.prod(inputs)] if inputs else [])

  def ours(self, tensor: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """One tensor as the entry of shape `size` of our parameter."""
    if not self.inputs:
      return tensor.reshape(size)
    entry = tensor.T.reshape(size)
    return entry[..., self._order(size[-1])] if self.interleaved else entry

  def theirs(self, entry: np.ndarray) -> np.ndarray:
    """The inverse of `ours`, contiguous."""
    size = self.their_shape((1,) * self.stacked + entry.shape)
    if not self.inputs:
      return np.ascontiguousarray(entry.reshape(size))
    if self.interleaved:
      entry = entry[..., np.argsort(self._order(entry.shape[-1]))]
    return np.ascontiguousarray(entry.reshape(size[::-1]).T)

  def _order(self, size: int) -> np.ndarray:
    still = np.arange(size - self.interleaved)
    pairs = np.arange(size - self.interleaved, size).reshape(-1, 2)
    return np.concatenate([still, pairs[:, 0], pairs[:, 1]])


def leaves(config: architecture.Config) -> dict[str, Leaf]:
  """{path of a parameter: its Leaf} for all parameters of a model."""
  found = {'embedding': Leaf('model.embed_tokens.weight', None),
           'final_norm/scale': Leaf('model.norm.weight')}
  if config.scalar:
    found['head/kernel'] = Leaf('score.weight', 1)
  elif not config.tied:
    found['output'] = Leaf('lm_head.weight', 1)
  block = _norms(config) | (
      _latent(config) if config.latent else _attention(config))
  if config.moe:
    first = config.moe.dense_layers
    stacks = {'dense_blocks': (0, _mlp('mlp', 'mlp')),
              'blocks': (first, _experts(config.moe))}
    if not first:
      del stacks['dense_blocks']
  else:
    stacks = {'blocks': (0, _mlp('mlp', 'mlp'))}
  for stack, (first, mlp) in stacks.items():
    for path, leaf in (block | mlp).items():
      suffix = '' if leaf.name.endswith('bias') else '.weight'
      found[f'{stack}/{path}'] = leaf._replace(
          name=f'model.layers.{{layer}}.{leaf.name}{suffix}', first=first)
  return found


def _norms(config: architecture.Config) -> dict[str, Leaf]:
  if not config.post_norms:
    names = dict(attention_norm='input_layernorm',
                 mlp_norm='post_attention_layernorm')
  else:
    names = dict(attention_norm='input_layernorm',
                 attention_post_norm='post_attention_layernorm',
                 mlp_norm='pre_feedforward_layernorm',
                 mlp_post_norm='post_feedforward_layernorm')
  return {f'{ours}/scale': Leaf(name) for ours, name in names.items()}


def _attention(config: architecture.Config) -> dict[str, Leaf]:
  found = {f'attention/{x}': Leaf(f'self_attn.{x}_proj', 1) for x in 'qkv'}
  found['attention/o'] = Leaf('self_attn.o_proj', 2)
  if config.qkv_bias:
    found |= {f'attention/{x}_bias': Leaf(f'self_attn.{x}_proj.bias')
              for x in 'qkv'}
  if config.qk_norm:
    found |= {f'attention/{x}_norm/scale': Leaf(f'self_attn.{x}_norm')
              for x in 'qk'}
  return found


def _latent(config: architecture.Config) -> dict[str, Leaf]:
  rope = config.latent.rope_size
  found = {
      'attention/kv_a': Leaf('self_attn.kv_a_proj_with_mqa', 1, rope),
      'attention/kv_norm/scale': Leaf('self_attn.kv_a_layernorm'),
      'attention/kv_b': Leaf('self_attn.kv_b_proj', 1),
      'attention/o': Leaf('self_attn.o_proj', 2),
  }
  if config.latent.q_rank is None:
    return found | {'attention/q': Leaf('self_attn.q_proj', 1, rope)}
  return found | {
      'attention/q_a': Leaf('self_attn.q_a_proj', 1),
      'attention/q_norm/scale': Leaf('self_attn.q_a_layernorm'),
      'attention/q_b': Leaf('self_attn.q_b_proj', 1, rope),
  }


def _mlp(ours: str, theirs: str) -> dict[str, Leaf]:
  return {f'{ours}/{x}': Leaf(f'{theirs}.{x}_proj', 1)
          for x in ('gate', 'up', 'down')}


def _experts(config: architecture.Experts) -> dict[str, Leaf]:
  found = _mlp('moe', 'mlp.experts.{expert}') | {
      'moe/router': Leaf('mlp.gate', 1),
      'moe/router_bias': Leaf('mlp.gate.e_score_correction_bias')}
  if config.shared:
    found |= _mlp('moe/shared', 'mlp.shared_experts')
  return found
