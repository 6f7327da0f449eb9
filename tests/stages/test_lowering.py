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


@pytest.fixture(name='planned')
def _planned(platform, monkeypatch):
  """The programs, as for a platform."""
  jax.clear_caches()  # of traces for another platform
  monkeypatch.setitem(presets.PRESETS, 'here', MODEL)
  monkeypatch.setattr(sharding, 'device', lambda place: KERNELS[platform][0])
  monkeypatch.setattr(  # cuDNN is not installed with JAX for CPUs
      fused_attention_stablehlo, 'check_cudnn_version', lambda: 91900)
  return lambda config: programs.rl(config, sharding.make_mesh(
      {}, jax.devices()[:1]))


@pytest.mark.parametrize('platform, tokens', [
    ('cuda', 15), ('tpu', 15), ('tpu', 1)])
def test_a_step_is_lowered(platform, tokens, planned):
  _, forward, backward = KERNELS[platform]
  config = _config()
  config.rl.response_tokens = tokens
  parts, results, seen = planned(config), None, []
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


@pytest.mark.parametrize('platform', KERNELS)
def test_slots_are_written_without_a_loop_over_rows(platform, planned):
  """Of a scatter, XLA for TPUs makes one."""
  part = next(planned(_config()))
  model, settings, *rest = part.args
  text = part.jitted.trace(model, settings._replace(slots=2), *rest).lower(
      lowering_platforms=(platform,)).as_text()
  # Of [L, S, K, h, R] and [L, S, K, R, h], in the one loop of two slots.
  scattered = re.findall(
      r'"stablehlo.scatter"[^"]*?\}\) : \(tensor<((?:\d+x){5})bf16>', text)
  kernels = text.count('kernel_name = "_replace"')
  assert (scattered, kernels) == {
      'tpu': ([], 2), 'cuda': (['2x2x1x64x15x', '2x2x1x15x64x'], 0)}[platform]
