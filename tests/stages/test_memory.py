"""No compiled update or scoring step holds logits of a whole batch."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
import tiny_rl
from r1jax.stages import grpo
from r1jax.stages import lm
from r1jax.types import LMBatch, Rollout, TrainState

# V is far above every other size, so that only logits can be this large.
VOCAB, LENGTH, ROWS, GROUP = 512, 16, 8, 4
# Machine code that nobody runs need not be good; the arrays are the same.
QUICKLY = {'xla_backend_optimization_level': 0,
           'xla_llvm_disable_expensive_passes': True}

MODEL = tiny.model(vocab=VOCAB)


def _largest_floats(compiled) -> int:
  """Elements of the largest floating-point array in a compiled program."""
  shapes = re.findall(r'\b(?:f32|bf16|f16|f64)\[([\d,]+)\]', compiled.as_text())
  return max(math.prod(map(int, shape.split(','))) for shape in shapes)


def _shape(dtype, *sizes):
  return jax.ShapeDtypeStruct(sizes, dtype)


def _objective(chunk):
  return tiny_rl.OBJECTIVE._replace(group=GROUP, logp_chunk=chunk)


def _rollout():
  prompts = tiny.prompts((3, 5))
  return Rollout(prompts, _shape(jnp.int32, ROWS, LENGTH),
                 _shape(jnp.bool_, ROWS, LENGTH),
                 _shape(jnp.float32, ROWS, LENGTH))


def _score(chunk):
  return functools.partial(grpo.experience, MODEL, _objective(chunk)), (
      tiny.params(vocab=VOCAB), _rollout(), _shape(jnp.float32, ROWS))


def _state():
  params = tiny.params(vocab=VOCAB)
  return TrainState(np.int32(0), params, tiny_rl.OPTIMIZER.init(params),
                    params, np.int32(0))


def _update(chunk):
  score, arguments = _score(chunk)
  experience, _ = jax.eval_shape(score, *arguments)
  return functools.partial(
      grpo.update, MODEL, tiny_rl.OPTIMIZER, _objective(chunk)), (
          _state(), experience, np.int32(0))


def _lm_step(chunk):
  ints = _shape(jnp.int32, ROWS, LENGTH + 1)
  batch = LMBatch(ints, ints, ints, _shape(jnp.float32, ROWS, LENGTH + 1))
  return functools.partial(
      lm.train_step, MODEL, tiny_rl.OPTIMIZER, 1, chunk, None), (
          _state()._replace(ref=None), batch)


@pytest.mark.parametrize('make', [_score, _update, _lm_step])
def test_no_array_has_the_size_of_all_logits(make):
  def largest(chunk):
    function, arguments = make(chunk)
    return _largest_floats(
        jax.jit(function).lower(*arguments).compile(QUICKLY))

  everything = ROWS * LENGTH * VOCAB
  assert largest(chunk=4) < everything / 2
  assert largest(chunk=LENGTH) >= everything  # found where they are
