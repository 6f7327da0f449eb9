"""Model FLOPs, against the figures that are published."""

import jax
import numpy as np
import pytest

from experiments import machine_sections
from r1jax.models import architecture
from r1jax.models import presets
from r1jax.parallel import sharding
from r1jax.plan import work
from r1jax.stages import train_state
import tiny


def _placed(name):
  return train_state.place_model(
      presets.PRESETS[name], sharding.make_mesh({}, jax.devices()[:1]),
      machine_sections.RULES)


def test_the_weights_of_a_token():
  total, active = work.parameters(_placed('qwen2.5_32b'))
  assert active == total - 152_064 * 5120  # an embedding that is looked up
  total, active = work.parameters(_placed('smollm2_135m'))
  assert active == total  # which here is the output matrix, too
  _, active = work.parameters(_placed('deepseek_v3'))
  # arXiv 2412.19437: 37 billion activated, the embedding among them.
  assert active + 129_280 * 7168 == pytest.approx(37.5e9, rel=0.01)


def test_a_query_sees_itself_and_what_is_before():
  config = tiny.config()
  pair = config.layers * 4 * config.heads * config.head_size
  assert work.attention(config, 0, 3) == pair * (1 + 2 + 3)
  assert work.attention(config, 5, 2) == pair * (6 + 7)


def test_a_local_layer_sees_its_window():
  config = tiny.config(window=2, global_every=2)  # the first of two is local
  pair = 4 * config.heads * config.head_size
  assert work.attention(config, 0, 4) == pair * (1 + 2 + 2 + 2 + 10)


def test_latent_attention_has_values_of_their_own_size():
  config = tiny.config(
      layers=1, heads=2, kv_heads=2, head_size=6,
      latent=architecture.Latent(None, 4, 4, 2, 3))
  assert work.attention(config, 0, 2) == 2 * 2 * (6 + 3) * (1 + 2)


def test_a_prompt_passes_once_for_its_group():
  placed = tiny.setup()
  prompts, responses = work.responses(placed, 2, 5, np.full(6, 7))
  weights = work.parameters(placed)[1]
  assert prompts == 2 * (2 * weights * 5 + work.attention(
      placed.model.config, 0, 5))
  assert responses == 6 * (2 * weights * 7 + work.attention(
      placed.model.config, 5, 7))
