"""The decoder once more, in float64 NumPy, a row, a head, a token at a time."""

import jax
import numpy as np


def rms_norm(x, params, c):
  rms = np.sqrt(np.mean(x * x, -1, keepdims=True) + c.rms_eps)
  return x / rms * (c.norm_offset + params['scale'])


def rotate(x_Th, position_T, theta):
  half = x_Th.shape[1] // 2
  out = np.empty_like(x_Th)
  for i in range(half):
    cos, sin = (f(position_T * theta ** (-i / half)) for f in (np.cos, np.sin))
    a, b = x_Th[:, i], x_Th[:, half + i]
    out[:, i], out[:, half + i] = a * cos - b * sin, b * cos + a * sin
  return out


def attention(c, params, x_TD, segment_T, position_T, local):
  theta = c.rope_theta
  if local and c.rope_theta_local:
    theta = c.rope_theta_local

  def project(name, head):
    y = x_TD @ params[name][:, head]
    if c.qkv_bias:
      y = y + params[f'{name}_bias'][head]
    if name == 'v':
      return y
    if c.qk_norm:
      y = rms_norm(y, params[f'{name}_norm'], c)
    return rotate(y, position_T, theta)

  out = np.zeros_like(x_TD)
  for head in range(c.heads):
    kv_head = head * c.kv_heads // c.heads
    q, k, v = (project('q', head), project('k', kv_head),
               project('v', kv_head))
    for t in range(len(x_TD)):
      seen = [s for s in range(t + 1) if segment_T[s] == segment_T[t] and not (
          local and position_T[t] - position_T[s] >= c.window)]
      score = k[seen] @ q[t] * (c.attention_scale or c.head_size ** -0.5)
      if c.softcap_attention:
        score = c.softcap_attention * np.tanh(score / c.softcap_attention)
      weight = np.exp(score - score.max())
      out[t] += weight / weight.sum() @ v[seen] @ params['o'][head]
  return out


def mlp(c, params, x_TD):
  gate = x_TD @ params['gate']
  if c.activation == 'silu':
    gate = gate / (1 + np.exp(-gate))
  else:
    inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate ** 3)
    gate = gate * (1 + np.tanh(inner)) / 2
  return gate * (x_TD @ params['up']) @ params['down']


def logits(c, params, tokens_BT, segment_BT, position_BT):
  """logits_BTV of a configuration `c` under the parameters of a model."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  return np.stack([_row(c, params, *row)
                   for row in zip(tokens_BT, segment_BT, position_BT)])


def _row(c, params, tokens_T, segment_T, position_T):
  x = params['embedding'][tokens_T]
  if c.embed_scale:
    x = x * np.sqrt(c.width)
  for i, local in enumerate(c.is_local()):
    layer = jax.tree.map(lambda p, i=i: p[i], params['blocks'])

    def residual(x, name, function, layer=layer):
      y = function(rms_norm(x, layer[f'{name}_norm'], c))
      if c.post_norms:
        y = rms_norm(y, layer[f'{name}_post_norm'], c)
      return x + y

    x = residual(x, 'attention', lambda y, layer=layer, local=local: attention(
        c, layer['attention'], y, segment_T, position_T, local))
    x = residual(x, 'mlp', lambda y, layer=layer: mlp(c, layer['mlp'], y))
  x = rms_norm(x, params['final_norm'], c)
  out = x @ (params['embedding'].T if c.tied else params['output'])
  return c.softcap_final * np.tanh(out / c.softcap_final) if (
      c.softcap_final) else out
