"""Layout of Hugging Face checkpoints: the tensors of each parameter.

A Hugging Face checkpoint has a weight as [outputs, inputs], one tensor per
layer (and expert). Our parameter is [inputs, outputs], with an axis of its own
for heads, and layers stacked. DeepSeek-V3's checkpoints interleave rotary
entries (0 pairs with 1); our parameters pair the first half with the second.
"""

from collections.abc import Iterator
import math
from typing import NamedTuple

import numpy as np

from r1jax.models import architecture


class Leaf(NamedTuple):
  """The tensors of one parameter."""
  name: str  # of a tensor, with {layer} and {expert} for stacked axes
  # The parameter's input axes; 0: a vector, None: the same shape in both.
  inputs: int | None = 0
  interleaved: int = 0  # last entries of a head, interleaved in the tensor
  first: int = 0  # the layer of the stack's first entry

  @property
  def stacked(self) -> int:
    """The number of first axes along which each entry is a tensor."""
    return self.name.count('{')

  def hf_name(self, index: tuple[int, ...]) -> str:
    """The name of the tensor at `index` of the stacked axes."""
    layer, expert = (*index, 0, 0)[:2]
    return self.name.format(layer=self.first + layer, expert=expert)

  def hf_names(self, size: tuple[int, ...]) -> Iterator[str]:
    """The names of all tensors of a parameter of shape `size`."""
    return map(self.hf_name, np.ndindex(*size[:self.stacked]))

  def hf_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each tensor of a parameter of shape `size`."""
    size = size[self.stacked:]
    if self.inputs is None:
      return size
    outputs, inputs = size[self.inputs:], size[:self.inputs]
    return math.prod(outputs), *([math.prod(inputs)] if inputs else [])

  def from_hf(self, tensor: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A tensor as an entry, of shape `size`, of the parameter."""
    if not self.inputs:
      return tensor.reshape(size)
    entry = tensor.T.reshape(size)
    return entry[..., self._order(size[-1])] if self.interleaved else entry

  def to_hf(self, entry: np.ndarray) -> np.ndarray:
    """An entry of the parameter as a tensor, contiguous; inverts `from_hf`."""
    size = self.hf_shape((1,) * self.stacked + entry.shape)
    if not self.inputs:
      return np.ascontiguousarray(entry.reshape(size))
    if self.interleaved:
      entry = entry[..., np.argsort(self._order(entry.shape[-1]))]
    return np.ascontiguousarray(entry.reshape(size[::-1]).T)

  def _order(self, size: int) -> np.ndarray:
    unrotated = np.arange(size - self.interleaved)
    pairs = np.arange(size - self.interleaved, size).reshape(-1, 2)
    return np.concatenate([unrotated, pairs[:, 0], pairs[:, 1]])


def leaves(config: architecture.Config) -> dict[str, Leaf]:
  """{path of a parameter: its Leaf} for all parameters of a model."""
  paths = {'embedding': Leaf('model.embed_tokens.weight', None),
           'final_norm/scale': Leaf('model.norm.weight')}
  if config.scalar:
    paths['head/kernel'] = Leaf('score.weight', 1)
  elif not config.tied:
    paths['output'] = Leaf('lm_head.weight', 1)
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
      paths[f'{stack}/{path}'] = leaf._replace(
          name=f'model.layers.{{layer}}.{leaf.name}{suffix}', first=first)
  return paths


def _norms(config: architecture.Config) -> dict[str, Leaf]:
  if not config.post_norms:
    names = dict(attention_norm='input_layernorm',
                 mlp_norm='post_attention_layernorm')
  else:
    names = dict(attention_norm='input_layernorm',
                 attention_post_norm='post_attention_layernorm',
                 mlp_norm='pre_feedforward_layernorm',
                 mlp_post_norm='post_feedforward_layernorm')
  return {f'{path}/scale': Leaf(name) for path, name in names.items()}


def _attention(config: architecture.Config) -> dict[str, Leaf]:
  paths = {f'attention/{x}': Leaf(f'self_attn.{x}_proj', 1) for x in 'qkv'}
  paths['attention/o'] = Leaf('self_attn.o_proj', 2)
  if config.qkv_bias:
    paths |= {f'attention/{x}_bias': Leaf(f'self_attn.{x}_proj.bias')
              for x in 'qkv'}
  if config.qk_norm:
    paths |= {f'attention/{x}_norm/scale': Leaf(f'self_attn.{x}_norm')
              for x in 'qk'}
  return paths


def _latent(config: architecture.Config) -> dict[str, Leaf]:
  rope = config.latent.rope_size
  paths = {
      'attention/kv_a': Leaf('self_attn.kv_a_proj_with_mqa', 1, rope),
      'attention/kv_norm/scale': Leaf('self_attn.kv_a_layernorm'),
      'attention/kv_b': Leaf('self_attn.kv_b_proj', 1),
      'attention/o': Leaf('self_attn.o_proj', 2),
  }
  if config.latent.q_rank is None:
    return paths | {'attention/q': Leaf('self_attn.q_proj', 1, rope)}
  return paths | {
      'attention/q_a': Leaf('self_attn.q_a_proj', 1),
      'attention/q_norm/scale': Leaf('self_attn.q_a_layernorm'),
      'attention/q_b': Leaf('self_attn.q_b_proj', 1, rope),
  }


def _mlp(path: str, name: str) -> dict[str, Leaf]:
  return {f'{path}/{x}': Leaf(f'{name}.{x}_proj', 1)
          for x in ('gate', 'up', 'down')}


def _experts(config: architecture.Experts) -> dict[str, Leaf]:
  paths = _mlp('moe', 'mlp.experts.{expert}') | {
      'moe/router': Leaf('mlp.gate', 1),
      'moe/router_bias': Leaf('mlp.gate.e_score_correction_bias')}
  if config.shared:
    paths |= _mlp('moe/shared', 'mlp.shared_experts')
  return paths
