"""Makes fixtures/: tiny models as they are published, and what they compute.

    pip install torch transformers
    python tests/models/make_fixtures.py

Each folder is a model that transformers wrote (config.json, safetensors files,
generation_config.json) and expected.npz, what transformers computes with it in
float32, a row at a time and so without padding or cache:

    tokens i32[B, T], length i32[B]: rows, padded at their right with 0
    logits f32[B, T, V], 0 on padding
    logp f32[B, T]: of each token given those before it, 0 of the first
    prompt i32[P], greedy i32[8]: the likeliest continuation of a prompt

Weights are random, norms and biases too, so that one left out shows. The files
were made with torch 2.13 and transformers 5.23; others may round differently.
"""

import json
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple
import zlib

import numpy as np
import safetensors.torch
import torch
import transformers

OUT = pathlib.Path(__file__).with_name('fixtures')
LENGTHS = 24, 15, 9
PROMPT, GREEDY = 5, 8
BLOCK = 8  # rows and columns of float8 weights that share a scale
BIAS = 'e_score_correction_bias'

SIZES = dict(
    vocab_size=96, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    bos_token_id=0, eos_token_id=[1, 2], rms_norm_eps=1e-3)
# Dimensions that are no multiple of BLOCK, of which several experts a group.
DEEPSEEK = SIZES | dict(
    hidden_size=36, intermediate_size=44, num_hidden_layers=3,
    num_key_value_heads=4, q_lora_rank=12, kv_lora_rank=12, qk_nope_head_dim=8,
    qk_rope_head_dim=8, v_head_dim=6, n_routed_experts=12, n_shared_experts=2,
    moe_intermediate_size=12, num_experts_per_tok=3, n_group=3, topk_group=2,
    first_k_dense_replace=1, routed_scaling_factor=1.7,
    num_nextn_predict_layers=0, rms_norm_eps=1e-6, eos_token_id=1,
    rope_parameters=dict(
        rope_type='yarn', rope_theta=100., factor=4., beta_fast=3.,
        beta_slow=1., mscale=1., mscale_all_dim=0.7,
        original_max_position_embeddings=64))


class Fixture(NamedTuple):
  """What a model is, and how its files are."""
  kind: str  # model_type
  fields: dict[str, Any]
  lengths: tuple[int, ...] = LENGTHS
  dtype: torch.dtype = torch.float32
  shard: str = '1GB'  # largest file


FIXTURES = {
    'llama': Fixture('llama', SIZES | dict(
        tie_word_embeddings=False,
        rope_parameters=dict(rope_type='default', rope_theta=500.))),
    # Wavelengths of 6 and 20 to 20,000 tokens: one frequency is kept, one lies
    # between, six are divided; the first row is longer than 32.
    'llama3_rope': Fixture('llama', SIZES | dict(
        tie_word_embeddings=True, head_dim=16, rope_parameters=dict(
            rope_type='llama3', rope_theta=10_000., factor=8.,
            low_freq_factor=1., high_freq_factor=4.,
            original_max_position_embeddings=32)), lengths=(44, 15, 9)),
    # As Qwen2.5 is set for long contexts: YaRN, of the frequencies alone.
    'qwen2': Fixture('qwen2', SIZES | dict(
        tie_word_embeddings=True, pad_token_id=0, rope_parameters=dict(
            rope_type='yarn', rope_theta=1000., factor=4.,
            original_max_position_embeddings=64)),
                     dtype=torch.bfloat16),
    'qwen3': Fixture('qwen3', SIZES | dict(
        tie_word_embeddings=False, head_dim=12,
        rope_parameters=dict(rope_type='default', rope_theta=1000.)),
                     shard='40KB'),
    'gemma3_text': Fixture('gemma3_text', SIZES | dict(
        num_hidden_layers=4, num_key_value_heads=1, head_dim=12,
        tie_word_embeddings=True, pad_token_id=0, query_pre_attn_scalar=20,
        sliding_window=6, layer_types=[
            'sliding_attention', 'sliding_attention', 'full_attention',
            'sliding_attention'],
        rope_parameters=dict(
            full_attention=dict(
                rope_type='linear', rope_theta=5000., factor=8.),
            sliding_attention=dict(rope_type='default', rope_theta=100.)))),
    'deepseek_v3': Fixture('deepseek_v3', DEEPSEEK),
    # Its other norms' eps is not that of the norm of latents, always 1e-6.
    'deepseek_v3_no_q_lora': Fixture('deepseek_v3', DEEPSEEK | dict(
        q_lora_rank=None, n_routed_experts=6, n_shared_experts=1, n_group=1,
        topk_group=1, num_experts_per_tok=2, norm_topk_prob=False,
        rms_norm_eps=1e-3, num_hidden_layers=2,
        rope_parameters=dict(rope_type='default', rope_theta=100.))),
}


def main():
  transformers.logging.set_verbosity_error()
  for name, fixture in FIXTURES.items():
    folder = _fresh(name)
    _model(name, fixture).to(fixture.dtype).save_pretrained(
        folder, max_shard_size=fixture.shard)
    _expect(folder, folder, fixture)
  for name, older in (('llama3_rope', _llama_v4), ('gemma3_text', _gemma_v4)):
    _write_v4(OUT / name, older)
  _write_float8(OUT / 'deepseek_v3', _fresh('deepseek_v3_fp8'))


def _fresh(name: str) -> pathlib.Path:
  shutil.rmtree(OUT / name, ignore_errors=True)
  (OUT / name).mkdir(parents=True)
  return OUT / name


def _model(name: str, fixture: Fixture) -> transformers.PreTrainedModel:
  """With random parameters, of a size at which logits differ by a few."""
  config = transformers.AutoConfig.for_model(fixture.kind, **fixture.fields)
  model = transformers.AutoModelForCausalLM.from_config(config)
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  tensors = dict(model.named_parameters())
  tensors |= {key: x for key, x in model.named_buffers() if BIAS in key}
  for key, x in tensors.items():
    noise = rng.normal(size=x.shape)
    if 'norm' in key:
      value = 0.3 * noise + (fixture.kind != 'gemma3_text')
    elif BIAS in key:
      value = 0.3 * noise
    elif key.endswith('bias'):
      value = 0.5 * noise
    else:
      # Large embeddings, if tied, would make every token repeat itself.
      gain = 1 if 'embed' in key or 'gate.weight' in key else 1.2
      value = gain * noise * x.shape[-1] ** -0.5
    x.data.copy_(torch.from_numpy(value))
  model.generation_config = transformers.GenerationConfig(
      bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id,
      pad_token_id=config.pad_token_id)
  return model


def _load(folder: pathlib.Path) -> transformers.PreTrainedModel:
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=torch.float32, attn_implementation='eager',
      experts_implementation='eager', output_loading_info=True)
  assert not any(report.values()), report
  return model.eval()


@torch.no_grad()
def _logits(model: transformers.PreTrainedModel, row) -> np.ndarray:
  ids = torch.from_numpy(np.asarray(row, np.int64))[None]
  return model(ids, use_cache=False).logits[0].numpy()


def _expect(folder: pathlib.Path, source: pathlib.Path,
            fixture: Fixture) -> None:
  """Writes expected.npz into `folder`, of the model in `source`."""
  model, lengths = _load(source), np.array(fixture.lengths)
  vocab = model.config.vocab_size
  rng = np.random.default_rng(0)
  shape = len(lengths), max(lengths)
  tokens = rng.integers(3, vocab, shape) * (np.arange(shape[1])
                                            < lengths[:, None])
  logits, logp = np.zeros((*shape, vocab), np.float32), np.zeros(
      shape, np.float32)
  for row, (ids, length) in enumerate(zip(tokens, lengths)):
    logits[row, :length] = _logits(model, ids[:length])
    every = torch.log_softmax(torch.from_numpy(logits[row, :length - 1]), -1)
    logp[row, 1:length] = every.numpy()[np.arange(length - 1), ids[1:length]]
  prompt, greedy = _continued(model, rng)
  real = logits[np.arange(shape[1]) < lengths[:, None]]
  assert 0.8 < real.std() < 4, real.std()
  np.savez_compressed(
      folder / 'expected.npz', tokens=tokens.astype(np.int32),
      length=lengths.astype(np.int32), logits=logits, logp=logp,
      prompt=np.array(prompt, np.int32), greedy=np.array(greedy, np.int32))


def _continued(model: transformers.PreTrainedModel, rng):
  """A prompt, and its likeliest continuation without close calls."""
  for _ in range(100):
    prompt = list(rng.integers(3, model.config.vocab_size, PROMPT))
    greedy, gaps = [], []
    for _ in range(GREEDY):
      last = _logits(model, prompt + greedy)[-1]
      second, first = np.argsort(last)[-2:]
      gaps.append(last[first] - last[second])
      greedy.append(first)
    if min(gaps) > 0.01 and len(set(greedy)) > 2:
      return prompt, greedy
  raise ValueError('every continuation has a close call or repeats itself')


# --- Forms that transformers 5 does not write ---------------------------------


def _write_v4(folder: pathlib.Path, older) -> None:
  """config_v4.json: the same model as releases before 5 wrote it."""
  fields = json.loads((folder / 'config.json').read_text('utf-8'))
  rope = fields.pop('rope_parameters')
  fields |= older(fields, rope) | dict(
      torch_dtype=fields.pop('dtype'), transformers_version='4.50.0')
  _write_json(folder / 'config_v4.json', fields)
  with tempfile.TemporaryDirectory() as place:
    copy = shutil.copytree(folder, pathlib.Path(place) / 'model')
    (copy / 'config_v4.json').replace(copy / 'config.json')
    _assert_same(copy, folder)


def _llama_v4(fields, rope):
  del fields
  return dict(rope_theta=rope.pop('rope_theta'), rope_scaling=rope)


def _gemma_v4(fields, rope):
  kinds = fields.pop('layer_types')
  full, local = rope['full_attention'], rope['sliding_attention']
  fields.pop('_sliding_window_pattern', None)
  return dict(
      rope_theta=full.pop('rope_theta'), rope_scaling=full,
      rope_local_base_freq=local['rope_theta'],
      sliding_window_pattern=kinds.index('full_attention') + 1)


def _write_float8(source: pathlib.Path, folder: pathlib.Path) -> None:
  """DeepSeek-V3's own form: float8 in blocks, the rest bfloat16, old keys."""
  stored = {}
  whole = safetensors.torch.load_file(source / 'model.safetensors')
  for key, x in whole.items():
    if 'norm' in key or BIAS in key or not key.endswith('_proj.weight') and (
        'kv_a_proj' not in key):
      stored[key] = x if BIAS in key else x.to(torch.bfloat16)
    else:
      stored[key], stored[key + '_scale_inv'] = _quantize(x)
  safetensors.torch.save_file(
      stored, folder / 'model.safetensors', metadata={'format': 'pt'})
  fields = json.loads((source / 'config.json').read_text('utf-8'))
  plain, rope = dict(fields), dict(fields.pop('rope_parameters'))
  rope['type'] = rope.pop('rope_type')
  rope |= {key: int(rope[key]) for key in (
      'rope_theta', 'factor', 'beta_fast', 'beta_slow')}
  for key in ('dtype', 'head_dim', 'qk_head_dim', 'rope_interleave'):
    del fields[key]
  fields |= dict(
      rope_theta=rope.pop('rope_theta'), rope_scaling=rope, ep_size=1,
      scoring_func='sigmoid', topk_method='noaux_tc', moe_layer_freq=1,
      transformers_version='4.46.3', torch_dtype='bfloat16',
      quantization_config=dict(
          activation_scheme='dynamic', fmt='e4m3', quant_method='fp8',
          weight_block_size=[BLOCK, BLOCK]))
  _write_json(folder / 'config.json', fields)
  shutil.copy(source / 'generation_config.json', folder)
  with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    _write_json(place / 'config.json', plain)
    safetensors.torch.save_file(
        _dequantized(stored), place / 'model.safetensors',
        metadata={'format': 'pt'})
    _expect(folder, place, FIXTURES['deepseek_v3'])


def _blocks(scale: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
  """Each block's scale for each entry of it."""
  return scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[
      :like.shape[0], :like.shape[1]]


def _quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """Float8, and what each block of it is to be multiplied by."""
  rows, columns = (-(-size // BLOCK) for size in x.shape)
  scale = torch.stack([torch.stack([
      x[i * BLOCK:(i + 1) * BLOCK, j * BLOCK:(j + 1) * BLOCK].abs().max()
      for j in range(columns)]) for i in range(rows)])
  scale /= torch.finfo(torch.float8_e4m3fn).max
  return (x / _blocks(scale, x)).to(torch.float8_e4m3fn), scale


def _dequantized(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
  found = {}
  for key, x in stored.items():
    if key.endswith('_scale_inv'):
      continue
    found[key] = x.float()
    if key + '_scale_inv' in stored:
      found[key] *= _blocks(stored[key + '_scale_inv'], x)
  return found


def _assert_same(one: pathlib.Path, other: pathlib.Path) -> None:
  row = np.arange(3, 40)
  got, expected = (_logits(_load(place), row) for place in (one, other))
  np.testing.assert_array_equal(got, expected)


def _write_json(path: pathlib.Path, fields: dict[str, Any]) -> None:
  path.write_text(json.dumps(fields, indent=2, sort_keys=True) + '\n', 'utf-8')


if __name__ == '__main__':
  main()
