"""What transformers reads of a config.json is read here, too, or refused."""

import json

import numpy as np
import pytest

import released
from r1jax import errors
from r1jax.models import file_section
from r1jax.models import hf_config

# What transformers 5.24 looks up while it loads a model, computes and generates
# (run_transformers.py), by its name in config.json.
_READ = set("""
    architectures attention_bias attention_chunk_size attn_logit_softcapping
    decoder dtype final_logit_softcapping first_k_dense_replace generator
    head_dim hidden_act hidden_activation hidden_size intermediate_size
    is_causal kv_lora_rank kv_sharing_modes layer_types max_position_embeddings
    max_window_layers mlp_bias model_type moe_intermediate_size n_group
    n_routed_experts n_shared_experts norm_topk_prob num_attention_heads
    num_experts_per_tok num_hidden_layers num_key_value_heads num_local_experts
    num_nextn_predict_layers original_max_position_embeddings
    partial_rotary_factor per_layer_config q_lora_rank qk_head_dim
    qk_nope_head_dim qk_rope_head_dim quantization_config query_pre_attn_scalar
    rms_norm_eps rope_interleave rope_parameters rope_theta
    routed_scaling_factor sliding_window text_config tie_word_embeddings
    topk_group use_bidirectional_attention use_sliding_window v_head_dim
    vocab_size""".split())
# In training; of a head, whose tensor says it; of how the same is computed; of
# a check of names; of a class or object and no file; or read by hf.py.
_OTHERS = set("""
    attention_dropout gradient_checkpointing initializer_range problem_type
    output_router_logits id2label label2id num_labels
    chunk_size_feed_forward fusion_config
    is_encoder_decoder pretraining_tp return_dict
    mlp_layer_types mtp_layer_types num_heads
    auto_map base_model_ep_plan base_model_fsdp_plan base_model_pp_plan
    base_model_tp_plan default_rope_type default_theta is_heterogeneous
    ignore_keys_at_rope_validation name_or_path sub_configs
    sub_configs_defaults transformers_weights output_loading_info
    vision_aspect_ratio vision_feature_layer vision_feature_select_strategy
    """.split())


def _fields(name):
  return json.loads(
      (released.FOLDER / name / 'config.json').read_text('utf-8'))


def test_each_is_read(monkeypatch):
  read, raw = set(), file_section.Section.raw

  def noted(self, key):
    read.add(key)
    return raw(self, key)

  monkeypatch.setattr(file_section.Section, 'raw', noted)
  for name in released.NAMES:
    hf_config.from_json(_fields(name), '')
  assert _READ <= read


@pytest.mark.parametrize('key, value', [
    ('is_causal', False), ('is_causal', None), ('sliding_window', 4),
    ('attention_chunk_size', 4), ('kv_sharing_modes', ['own', 'reuse']),
    *((key, dict(hidden_size=8)) for key in (
        'text_config', 'decoder', 'generator'))])
@pytest.mark.parametrize('name', ['llama', 'deepseek_v3'])
def test_what_changes_attention_or_its_cache_is_refused(name, key, value):
  with pytest.raises(errors.ConfigError, match=f'expected {key} to be '):
    hf_config.from_json(_fields(name) | {key: value}, '')


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    name for name in released.NAMES if not name.endswith('fp8')])  # needs a GPU
def test_there_are_no_others(name, tmp_path):
  found = released.transformers(
      tmp_path, str(released.FOLDER / name), new=2, attributes=True,
      tokens=np.ones((1, 9), np.int32), length=np.array([9]),
      prompts=np.ones((1, 4), np.int32), prompt_length=np.array([4]))
  assert not set(found['attributes']) - _READ - _OTHERS
