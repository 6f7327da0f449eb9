"""The programs of a step, lowered for GPUs and TPUs that are not here.

Shapes and dtypes that their kernels refuse are refused when a program is
lowered, which needs no such device.
"""

import re

import jax
from jax._src.cudnn import fused_attention_stablehlo
import pytest

from experiments import common
from experiments import plan as experiment
from r1jax.models import architecture
from r1jax.models import presets
from r1jax.models import row_attention
from r1jax.parallel import sharding
from r1jax.plan import programs


class _Gpu:
  platform, compute_capability = 'gpu', '9.0'


class _Tpu:
  platform = 'tpu'


KERNELS = {  # of attention, in programs without gradients and with them
    'cuda': (_Gpu, {'__cudnn$fmhaSoftmax'}, {'__cudnn$fmhaSoftmaxBackward'}),
    'tpu': (_Tpu, {'tpu_custom_call'}, set())}


MODEL = architecture.Config(  # local and global layers, experts
    vocab=64, width=128, layers=2, heads=2, kv_heads=1, head_size=64, mlp=64,
    max_len=64, dtype='bfloat16', remat='full', window=8, global_every=2,
    moe=architecture.Experts(experts=4, active=2, mlp=64))


def _config():
  """Lengths are odd."""
  config = experiment.get_config('small').unlock()
  config.model = common.model(preset='here')
  config.rl.update(prompts=2, group=2, prompt_tokens=9, response_tokens=15,
                   micro_batch=2, beta=0., correction='token_truncate')
  return config


@pytest.mark.parametrize('platform', KERNELS)
def test_a_step_is_lowered(platform, monkeypatch):
  jax.clear_caches()  # of traces for another platform
  device, forward, backward = KERNELS[platform]
  monkeypatch.setitem(presets.PRESETS, 'here', MODEL)
  monkeypatch.setattr(row_attention, '_device', lambda place: device)
  monkeypatch.setattr(  # cuDNN is not installed with JAX for CPUs
      fused_attention_stablehlo, 'check_cudnn_version', lambda: 91900)
  parts, results, seen = programs.rl(_config(), sharding.make_mesh(
      {}, jax.devices()[:1])), None, []
  while True:
    try:
      part = parts.send(results)
    except StopIteration:
      break
    lowered = part.jitted.trace(*part.args).lower(
        lowering_platforms=(platform,))
    calls = set(re.findall(r'custom_call @([\w$]+)', lowered.as_text()))
    assert calls - {'Sharding'} == forward | (
        backward if part.name == 'update' else set()), part.name
    seen.append(part.name)
    results = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.out_info)
  assert seen == ['sampling', 'scoring', 'update']
