"""Decoder architectures: sizes and switches of a model, and published presets."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax

from r1jax import errors

REMAT = {  # what the backward pass may keep of a layer's forward pass
    'none': jax.checkpoint_policies.everything_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}


# Fields of Config that say how a model computes, not what it is.
FREE = ('dtype', 'param_dtype', 'remat', 'scan_layers', 'attention_chunk',
        'max_len', 'lora_scale', 'scalar')


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Rotary frequencies for contexts longer than those first trained on.

  See rotary.py.
  """
  kind: str  # 'linear' | 'llama3' | 'yarn'
  factor: float
  original_len: int = 8192  # of llama3 and yarn
  low_freq: float = 1.  # llama3: turns within original_len
  high_freq: float = 4.
  beta_fast: float = 32.  # yarn: turns within original_len
  beta_slow: float = 1.
  mscale: float | None = None  # yarn
  mscale_all_dim: float | None = None


@dataclasses.dataclass(frozen=True)
class Latent:
  """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), see mla.py.

  `head_size` of the decoder is nope_size + rope_size.
  """
  q_rank: int | None  # None: queries come straight from the hidden state
  kv_rank: int
  nope_size: int  # of a head, without positions
  rope_size: int  # of a head, with them; one key for all heads
  value_size: int


@dataclasses.dataclass(frozen=True)
class Experts:
  """A mixture of experts (DeepSeek-V3, arXiv 2412.19437), see moe.py."""
  experts: int
  active: int  # of them, a token
  mlp: int  # width of an expert
  shared: int = 0  # experts that see every token
  groups: int = 1  # of neighbouring experts
  active_groups: int = 1  # of them, a token
  scale: float = 1.  # of the routed experts' sum
  normalize: bool = True  # the weights of a token's experts sum to `scale`
  dense_layers: int = 0  # first layers that have an ordinary MLP


@dataclasses.dataclass(frozen=True)
class Config:
  """What a decoder is; the published families are settings of it."""
  vocab: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_size: int
  mlp: int
  max_len: int = 4096  # longest sequence, prompt and response together
  rope_theta: float = 10_000.
  rope_scaling: RopeScaling | None = None  # of global layers
  rms_eps: float = 1e-6
  tied: bool = True  # the embedding is the output matrix too
  scalar: bool = False  # one score a token in place of logits, see heads.py
  qkv_bias: bool = False  # Qwen2
  qk_norm: bool = False  # Qwen3, Gemma 3
  activation: str = 'silu'  # 'gelu' (tanh form): Gemma
  norm_offset: float = 0.  # norms multiply by offset + scale; 1: Gemma
  post_norms: bool = False  # Gemma: a norm after attention and MLP, too
  embed_scale: bool = False  # Gemma: embeddings times sqrt(width)
  attention_scale: float | None = None  # None: head_size ** -0.5
  softcap_attention: float | None = None  # Gemma 2
  softcap_final: float | None = None  # Gemma 2
  window: int | None = None  # local attention sees this many tokens back
  global_every: int = 6  # with a window, every so many-th layer is global
  rope_theta_local: float | None = None  # of the local layers (Gemma 3)
  latent: Latent | None = None  # DeepSeek-V3's attention
  moe: Experts | None = None  # DeepSeek-V3's MLP
  lora_scale: float = 1.  # of what LoRA's factors add
  attention_chunk: int | None = None  # queries at a time; None: all
  dtype: str = 'float32'  # of computation
  param_dtype: str = 'float32'
  remat: str = 'none'  # a key of REMAT
  scan_layers: bool = True  # one program for all; False: runs faster on CPUs,
  # and takes longer to compile the more layers there are

  def check(self) -> None:
    """Raises `ConfigError` for numbers that do not go together."""
    m, parts = self.moe, [('heads', self.heads, 'kv_heads', self.kv_heads)]
    if m:
      parts.append(('moe.experts', m.experts, 'moe.groups', m.groups))
    for name, whole, divisor, size in parts:
      if whole % size:
        raise errors.expected(
            f'model.{name}', f'a multiple of {divisor} = {size}', whole)
    if m and m.dense_layers >= self.layers:
      raise errors.expected('model.moe.dense_layers', 'fewer than the '
                             f'{self.layers} layers', m.dense_layers)
    if m and m.active > m.experts // m.groups * m.active_groups:
      raise errors.expected(
          'model.moe.active', 'at most the experts of moe.active_groups = '
          f'{m.active_groups}', m.active)

  def is_local(self) -> list[bool]:
    """Which layers attend within the window only."""
    return [self.window is not None and (i + 1) % self.global_every != 0
            for i in range(self.layers)]

  @property
  def rotary_size(self) -> int:
    """How much of a head turns with its position."""
    return self.latent.rope_size if self.latent else self.head_size

  @property
  def dense_layers(self) -> int:
    """How many layers, the first ones, have an ordinary MLP."""
    return self.moe.dense_layers if self.moe else self.layers


_SECTIONS = {'latent': Latent, 'moe': Experts, 'rope_scaling': RopeScaling}


def sections(fields: Mapping[str, Any]) -> dict[str, Any]:
  """`fields` of a Config, those that are sections as their dataclasses."""
  return {name: _made(_SECTIONS[name], f'model.{name}.', value)
          if name in _SECTIONS and value is not None else value
          for name, value in fields.items()}


def from_fields(fields: Mapping[str, Any]) -> Config:
  """The Config of a config's section, or of what a file says.

  Raises:
    ConfigError: names the field that is missing or unknown.
  """
  return _made(Config, 'model.', sections(fields))


def check_same(known: Config, wanted: Config, where: str) -> None:
  """Raises `ConfigError` where the model in `where` is another than `wanted`.

  A file's floats may be rounded: GGUF has 1e-5 as 9.99999975e-6. A model of
  scores may begin from one of tokens, whose layers it takes; not the other
  way round, for it can say nothing.
  """
  if known.scalar and not wanted.scalar:
    raise errors.expected(
        'init_from', 'a model of tokens: this one gives scores', where)
  for field in dataclasses.fields(Config):
    a, b = getattr(known, field.name), getattr(wanted, field.name)
    alike = math.isclose(a, b, rel_tol=1e-6) if isinstance(
        a, float) and isinstance(b, float) else a == b
    if field.name not in FREE and not alike:
      raise errors.expected(f'model.{field.name}', f'{a!r}, as in {where}', b)


def _made(kind, prefix: str, fields: Mapping[str, Any]):
  known = {field.name: field.default for field in dataclasses.fields(kind)}
  for name in fields:
    if name not in known:
      raise errors.ConfigError(
          f'{prefix}{name}', 'no such field'
          + errors.nearest(name, known, f'config.{prefix}'))
  for name, default in known.items():
    if default is dataclasses.MISSING and name not in fields:
      raise errors.expected(prefix + name, 'a value', None)
  return kind(**fields)


_QWEN25 = dict(head_size=128, kv_heads=8, rms_eps=1e-6, rope_theta=1e6,
               qkv_bias=True, tied=False, max_len=131_072, dtype='bfloat16',
               remat='full')

PRESETS = {
    'smollm2_135m': Config(  # HuggingFaceTB/SmolLM2-135M
        vocab=49_152, width=576, layers=30, heads=9, kv_heads=3, head_size=64,
        mlp=1536, max_len=8192, rope_theta=1e5, rms_eps=1e-5),
    'qwen2.5_32b': Config(  # Qwen/Qwen2.5-32B
        vocab=152_064, width=5120, layers=64, heads=40, mlp=27_648,
        **(_QWEN25 | dict(rms_eps=1e-5))),
    'deepseek_v3': Config(  # deepseek-ai/DeepSeek-V3-Base
        vocab=129_280, width=7168, layers=61, heads=128, kv_heads=128,
        head_size=192, mlp=18_432, max_len=163_840, rms_eps=1e-6, tied=False,
        latent=Latent(q_rank=1536, kv_rank=512, nope_size=128,
                            rope_size=64, value_size=128),
        moe=Experts(experts=256, active=8, mlp=2048, shared=1, groups=8,
                          active_groups=4, scale=2.5, dense_layers=3),
        rope_scaling=RopeScaling(
            'yarn', 40., original_len=4096, mscale=1., mscale_all_dim=1.),
        dtype='bfloat16', remat='full'),
}
