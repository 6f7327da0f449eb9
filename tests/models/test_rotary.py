"""Rotations by position, and how long contexts stretch them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.models import architecture
from r1jax.models import rotary

LLAMA3 = architecture.RopeScaling('llama3', 8., original_len=512)
YARN = architecture.RopeScaling('yarn', 40., original_len=4096, mscale=1.,
                         mscale_all_dim=1.)


def test_scores_depend_on_the_distance_alone():
  q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).astype('f')

  def score(at_q, at_k):
    turn = lambda x, at: rotary.rotate(
        x, rotary.table(np.array([[at]]), 8, 100.))
    assert np.isclose(np.linalg.norm(turn(q, at_q)), np.linalg.norm(q))
    return float(jnp.vdot(turn(q, at_q), turn(k, at_k)))

  np.testing.assert_allclose(score(9, 4), score(25, 20), rtol=1e-5)
  np.testing.assert_allclose(score(9, 4), score(1006, 1001), rtol=1e-3)
  np.testing.assert_allclose(score(0, 0), np.vdot(q, k), rtol=1e-5)
  assert abs(score(9, 4) - score(9, 5)) > 0.01


def test_frequencies_by_hand():
  np.testing.assert_allclose(rotary.frequencies(4, 100.), [1., .1])
  np.testing.assert_allclose(
      rotary.frequencies(4, 100., architecture.RopeScaling('linear', 4.)),
      [.25, .025])


@pytest.mark.parametrize('scaling', [LLAMA3, YARN])
def test_fast_turns_stay_and_slow_ones_are_divided(scaling):
  plain = rotary.frequencies(64, 10_000.)
  ratio = rotary.frequencies(64, 10_000., scaling) / plain
  assert ratio[0] == 1. and np.isclose(ratio[-1], 1 / scaling.factor)
  assert (np.diff(ratio) < 1e-12).all()
  assert ((ratio < 1) & (ratio > 1 / scaling.factor)).sum() > 2


def test_yarn_that_ends_before_the_first_pair_changes_nothing():
  # 4 turns in 2 positions: pair 8 log(2 / 8 pi) / 2 log 1000 = -1.5, of
  # transformers' and DeepSeek's code -1; its ramp is then 0 from pair 0 on.
  scaling = architecture.RopeScaling('yarn', 4., original_len=2, beta_slow=4.)
  np.testing.assert_array_equal(
      rotary.frequencies(8, 1000., scaling), rotary.frequencies(8, 1000.))


def test_llama3_between_its_bounds_by_hand():
  # One radian a position, 4 pi positions: 2 turns, a third of the way from
  # the 1 that is divided to the 4 that stay.
  scaling = architecture.RopeScaling('llama3', 8., original_len=4 * np.pi)
  np.testing.assert_allclose(
      rotary.frequencies(2, 1., scaling), [1 / 3 + 2 / 3 / 8])


def test_yarn_between_its_pairs_by_hand():
  # Pairs 4.50 and 2.99 turn once and 32 times: rounded to 5 and 2, of which
  # the first is past the last pair, 3, that stands between them.
  scaling = architecture.RopeScaling('yarn', 40., original_len=200_000)
  plain = rotary.frequencies(8, 10_000.)
  np.testing.assert_allclose(
      rotary.frequencies(8, 10_000., scaling) / plain,
      [1., 1., 1., 2 / 3 + 1 / 3 / 40])


def test_yarn_without_truncation_by_hand():
  # Pairs 4.50 and 2.99, as above, between which pair 3 then stands alone.
  scaling = architecture.RopeScaling(
      'yarn', 40., original_len=200_000, truncate=False)
  slow, fast = (4 * np.log10(200_000 / (2 * np.pi * turns)) / 4
                for turns in (1., 32.))
  kept = (slow - 3) / (slow - fast)
  plain = rotary.frequencies(8, 10_000.)
  np.testing.assert_allclose(
      rotary.frequencies(8, 10_000., scaling) / plain,
      [1., 1., 1., kept + (1 - kept) / 40])


def test_yarn_raises_the_scores_of_latent_attention():
  latent = architecture.Latent(None, 4, 2, 2, 2)
  config = tiny.config(latent=latent, head_size=4, rope_scaling=YARN)
  grown = 0.1 * np.log(40.) + 1
  assert rotary.magnitude(YARN) == 1.
  np.testing.assert_allclose(rotary.score_scale(config), grown ** 2 / 2)
  plain = architecture.RopeScaling('yarn', 40., original_len=4096)
  np.testing.assert_allclose(rotary.magnitude(plain), grown)
  np.testing.assert_allclose(  # cos and sin of position 0
      rotary.table(np.array([[0]]), 2, 100., plain)[:, 0, 0, 0], [grown, 0])
  for scaling in (plain, YARN):
    assert rotary.score_scale(tiny.config(rope_scaling=scaling)) == 0.5
  given = architecture.RopeScaling('yarn', 40., attention_factor=1.5)
  assert rotary.magnitude(given) == 1.5
  shorter = architecture.RopeScaling('yarn', .5, original_len=4096)
  assert rotary.magnitude(shorter) == rotary.magnitude(LLAMA3) == 1.


def test_cosines_are_computed_once_for_all_layers_and_heads():
  """XLA would repeat them in every fusion that rotates queries or keys."""
  switches = dict(scan_layers=False, layers=3)
  model, tokens = tiny.model(**switches), jnp.zeros((2, 5), jnp.int32)
  text = jax.jit(model.forward).lower(
      tiny.params(**switches), tokens, None,
      jnp.broadcast_to(jnp.arange(5), tokens.shape)).compile().as_text()
  assert text.count(' cosine(') == 1
