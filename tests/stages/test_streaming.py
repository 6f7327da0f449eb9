"""A response token by token is the response of the one program."""

import jax
import numpy as np
import pytest

import tiny
from r1jax.stages import rollouts
from r1jax.stages import streaming
from r1jax.types import Prompts

R = 12
PROMPT = [5, 9, 3]


def _settings(**changes):
  return rollouts.Settings(**dict(
      group=1, response_tokens=R, eos_ids=(tiny.EOS,), temperature=.8, chunk=6)
                           | changes)


def _whole(settings, seed, stream, **switches):
  """The response as a list, from the sampler that is one program."""
  prompts = Prompts(np.array([PROMPT], np.int32), np.array([3], np.int32),
                    np.zeros(1, np.int32))
  rollout = jax.jit(rollouts.sample_groups, static_argnums=(0, 1))(
      tiny.model(**switches), settings, tiny.params(**switches), prompts,
      np.uint32(seed), np.uint32(stream))
  return np.asarray(rollout.tokens)[np.asarray(rollout.mask)].tolist()


def _streamer(settings, **switches):
  return streaming.Streamer(
      tiny.model(**switches), tiny.params(**switches), settings)


@pytest.mark.parametrize('changes, switches', [
    (dict(), dict()), (dict(temperature=0., eos_ids=(), chunk=R),
                       dict(scan_layers=False)),
    (dict(top_k=4, top_p=.9, chunk=64), dict())])
def test_the_stream_is_the_sample(changes, switches):
  settings = _settings(**changes)
  stream = _streamer(settings, **switches)
  lengths = set()
  for seed, number in ((0, 0), (0, 1), (7, 0), (2**32 - 1, 3)):
    parts = list(stream(PROMPT, seed, number))
    whole = _whole(settings, seed, number, **switches)
    assert sum(parts, []) == whole
    assert len(parts[0]) == 1 and len(parts) > 1 or len(whole) == 1
    lengths.add(len(whole))
  assert max(lengths) == R or settings.eos_ids


def test_few_sizes_are_compiled_and_told_of():
  told = []
  stream = streaming.Streamer(
      tiny.model(), tiny.params(), _settings(eos_ids=()), told.append)
  for length in (1, 2, 60, 128):
    for tokens in (3, 6):
      list(stream([4] * length, 0, 0, tokens))
  assert told == [
      'compiling for a prompt of up to 128 tokens and 6 of the response']
  assert stream._advance._cache_size() == stream._begin._cache_size() == 1
  whole = sum(stream(PROMPT, 0, 0), [])
  for tokens in (1, 5, 6, 7, R + 9):  # the beginning of more
    assert sum(stream(PROMPT, 0, 0, tokens), []) == whole[:tokens]
  assert len(whole) == R
  list(stream([4] * 129, 0, 0, 1))
  assert [words.split()[7] for words in told] == ['128', '128', '256']
  assert stream._advance._cache_size() == 3
