"""A teacher beside the data: a student learns from its next-token logits.

Sections `distill` of an lm stage. Where a student's vocabulary is another the
paper's way is left, and its own: fine-tuning on what the teacher has said
(DeepSeek-R1, arXiv 2501.12948, 2.4).
"""

from typing import NamedTuple

import jax.numpy as jnp
import ml_collections

from r1jax import errors
from r1jax import models
from r1jax.kernels import distillation
from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.models import architecture
from r1jax.stages import model_source
from r1jax.stages import train_state
from r1jax.types import LMBatch, Params


class Teacher(NamedTuple):
  """Who teaches, and how; hashable."""
  model: models.Model
  kind: str  # forward | reverse
  weight: float  # of the divergence; the data's cross-entropy has the rest
  temperature: float
  top_k: int  # 0: all tokens are told apart


def load_teacher(config, mesh, student: architecture.Config
        ) -> tuple[Teacher | None, Params | None]:
  """The teacher of `config.distill` on the mesh; (None, None) without one.

  Args:
    config: of the stage.
    mesh: where the parameters go.
    student: its model, whose vocabulary the teacher's must be.

  Raises:
    ConfigError: there is no such model, or its vocabulary is another.
  """
  section = config.get('distill')
  if section is None:
    return None, None
  if section.init_from is None:
    raise errors.expected('distill.init_from', 'a teacher', None)
  own = ml_collections.ConfigDict(dict(
      model={}, init_from=section.init_from, rules=config.rules,
      vocab=dict(kind='model', path=''), lm=dict(length=config.lm.length)))
  with errors.renamed('config.init_from', 'config.distill.init_from'):
    setup = train_state.place_model(own, mesh)
    known = model_source.vocabulary(own, setup.model.config)
    params = train_state.init_params(setup, section.init_from, seed=0)
  pieces = lambda vocab: [vocab.token(n) for n in range(vocab.size)]
  if setup.model.config.vocab != student.vocab or (
      pieces(known) != pieces(model_source.vocabulary(config, student))):
    raise errors.expected(
        'distill.init_from', "a teacher of the student's vocabulary (one of "
        'another teaches by what it says: rejection_sampling.py, then sft.py)',
        section.init_from)
  return Teacher(setup.model, section.kind, section.weight,
                 section.temperature, section.top_k), params


def loss(model, chunk: int, teacher: Teacher, params, teacher_params,
         batch: LMBatch):
  """Sum and denominator of the loss and figures of one micro-batch."""
  where = batch.tokens, batch.segment, batch.position
  hidden_BTD, _ = model.forward(params, *where)
  teaching_BTD, _ = teacher.model.forward(teacher_params, *where)

  def each(logits_XV, given):
    token_X, teaching_XD = given
    return logprobs.of_logits(logits_XV, token_X)[0], distillation.divergence(
        logits_XV, teacher.model.unembed(teacher_params, teaching_XD),
        teacher.kind, temperature=teacher.temperature, top_k=teacher.top_k)

  logp, apart = logprobs.of_hidden(
      lambda h: model.unembed(params, h), hidden_BTD[:, :-1],
      (batch.tokens[:, 1:], teaching_BTD[:, :-1]), temperature=1., chunk=chunk,
      measure=each)
  weight = batch.weight[:, 1:]
  value, count = losses.cross_entropy(logp, weight)
  apart = jnp.sum(jnp.where(weight > 0, apart * weight, 0.))
  mixed = teacher.weight * apart + (1 - teacher.weight) * value
  return (mixed, count), {
      'lm/cross_entropy': (value, count), 'distill/divergence': (apart, count)}
