"""The shape and the switches of a decoder."""

import dataclasses

import jax

REMAT = {  # what the backward pass may keep of a layer's forward pass
    'none': jax.checkpoint_policies.everything_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class Config:
  """What a decoder is; Llama, Qwen2, Qwen3 and Gemma 3 are settings of it."""
  vocab: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_size: int
  mlp: int
  max_len: int = 4096  # longest sequence, prompt and response together
  rope_theta: float = 10_000.
  rms_eps: float = 1e-6
  tied: bool = True  # the embedding is the output matrix too
  qkv_bias: bool = False  # Qwen2
  qk_norm: bool = False  # Qwen3, Gemma 3
  activation: str = 'silu'  # 'gelu' (tanh form): Gemma
  post_norms: bool = False  # Gemma: a norm after attention and MLP, too
  embed_scale: bool = False  # Gemma: embeddings times sqrt(width)
  attention_scale: float | None = None  # None: head_size ** -0.5
  softcap_attention: float | None = None  # Gemma 2
  softcap_final: float | None = None  # Gemma 2
  window: int | None = None  # local attention sees this many tokens back
  global_every: int = 6  # with a window, every so many-th layer is global
  rope_theta_local: float | None = None  # of the local layers (Gemma 3)
  attention_chunk: int | None = None  # queries at a time; None: all
  dtype: str = 'float32'  # of computation
  param_dtype: str = 'float32'
  remat: str = 'none'  # a key of REMAT
  scan_layers: bool = True  # one program for all; False: runs faster on CPUs,
  # and takes longer to compile the more layers there are

  def is_local(self) -> list[bool]:
    """Which layers attend within the window only."""
    return [self.window is not None and (i + 1) % self.global_every != 0
            for i in range(self.layers)]
