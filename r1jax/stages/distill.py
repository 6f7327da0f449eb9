"""Distillation from a teacher's next-token logits, beside its samples.

Set by a section `distill` of an lm stage. Teacher and student must share a
vocabulary; fine-tuning on the teacher's samples alone, the paper's way
(DeepSeek-R1, arXiv 2501.12948, 2.4), needs none in common.
"""

from typing import NamedTuple

import jax

from r1jax import errors
from r1jax import models
from r1jax.data import vocabs
from r1jax.kernels import distillation
from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.kernels import masked
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.stages import model_source
from r1jax.stages import train_state
from r1jax.types import LMBatch, Params


class Teacher(NamedTuple):
  """A teacher and how the student learns from it; hashable."""
  model: models.Model
  kind: str  # forward | reverse
  weight: float  # of the divergence; the cross-entropy has the rest
  temperature: float
  top_k: int  # KL over the k most likely tokens and the rest as one; 0: all


def load_teacher(section, mesh: jax.sharding.Mesh, rules: sharding.Rules,
                 length: int, student: architecture.Config,
                 student_vocab: vocabs.Vocab) -> tuple[Teacher, Params]:
  """The teacher of `config.distill`, and its parameters on the mesh.

  Args:
    section: its fields.
    mesh, rules: where the parameters go.
    length: of the longest sequence, in tokens.
    student, student_vocab: whose vocabulary the teacher's must be.

  Raises:
    ConfigError: there is no such model, or its vocabulary is another.
  """
  field = 'distill.init_from'
  teacher, placed, source = place_teacher(section, mesh, rules, length)
  shape = placed.model.config
  vocab = source.vocabulary(shape.vocab)
  params = train_state.init_params(placed, source, seed=0)
  pieces = lambda vocab: [vocab.token(n) for n in range(vocab.size)]
  if shape.vocab != student.vocab or pieces(vocab) != pieces(student_vocab):
    raise errors.expected(
        field, "a teacher of the student's vocabulary (to learn from another's "
        'samples: rejection_sampling.py, then sft.py)',
        section.init_from)
  return teacher, params


def place_teacher(section, mesh: jax.sharding.Mesh, rules: sharding.Rules,
                  length: int) -> tuple[Teacher, train_state.PlacedModel,
                                        model_source.ModelSource]:
  """The teacher of `config.distill`, where its parameters go, their source.

  Args and errors are those of `load_teacher`.
  """
  field = 'distill.init_from'
  if section.init_from is None:
    raise errors.expected(field, 'a teacher', None)
  source = model_source.find(section.init_from, field)
  placed = train_state.place_model(
      source.model_config(), mesh, rules, longest=('lm.length', length))
  return Teacher(placed.model, section.kind, section.weight,
                 section.temperature, section.top_k), placed, source


def loss(model, chunk: int, teacher: Teacher, params, teacher_params,
         batch: LMBatch):
  """Sums and denominators of the loss and metrics of one micro-batch."""
  inputs = batch.tokens, batch.segment, batch.position
  hidden_BTD, _ = model.forward(params, *inputs)
  teacher_BTD, _ = teacher.model.forward(teacher_params, *inputs)

  def unembed(heads, hidden):
    return (model.unembed(heads[0], hidden[0]),
            teacher.model.unembed(heads[1], hidden[1]))

  def measure(logits, token_X):
    logits_XV, teacher_XV = logits
    return logprobs.of_logits(logits_XV, token_X)[0], distillation.divergence(
        logits_XV, teacher_XV, teacher.kind, temperature=teacher.temperature,
        top_k=teacher.top_k)

  logp, divergence = logprobs.of_hidden(
      unembed, (model.head(params), teacher.model.head(teacher_params)),
      (hidden_BTD[:, :-1], teacher_BTD[:, :-1]), batch.tokens[:, 1:],
      temperature=1., chunk=chunk, measure=measure, place=model.place)
  weight = batch.weight[:, 1:]
  value, count = losses.cross_entropy(logp, weight)
  divergence = masked.total(divergence * weight, weight > 0)
  mixed = teacher.weight * divergence + (1 - teacher.weight) * value
  return (mixed, count), {
      'lm/cross_entropy': (value, count),
      'distill/divergence': (divergence, count)}
