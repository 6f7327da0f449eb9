"""Learning from graded responses: a reward model, or a policy by DPO.

With loss 'stepwise' the model is a process reward model: it scores each step of
a response by what is before it (data/steps.py).

The loss is pair-wise where the grades rank (Bradley-Terry, over all pairs of a
prompt's responses) and point-wise where they say safe or unsafe (DeepSeek-R1,
arXiv 2501.12948v2, 3.1: helpful and harmless). After training, the scores are
shifted to mean 0 over reference responses (Ziegler et al., arXiv 1909.08593,
2.1).

With loss 'dpo' the model is a policy, and its own score of a response is
beta log(pi / pi_ref): the same pairs and loss, no reward model and no sampling
(Rafailov et al., arXiv 2305.18290, eq. 7).
"""

import collections
from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import preferences
from r1jax.data import steps as steps_lib
from r1jax.data import templates
from r1jax.data import thinking
from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.kernels import masked
from r1jax.kernels import values
from r1jax.models import lora
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.stages import preference_figures
from r1jax.stages import step_figures
from r1jax.stages import train_state
from r1jax.training import accumulate
from r1jax.training import loop
from r1jax.training import optim
from r1jax.types import Array, Preferences, TrainState


class Objective(NamedTuple):
  """What is minimised; fields of config.preference. Hashable."""
  loss: str  # pairwise | pointwise | stepwise | dpo
  margin: float
  micro_batches: int
  beta: float = 0.1  # of dpo
  logp_chunk: int = 128  # of dpo, tokens whose logits are held at once


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its preferences, compiles nothing yet."""
  del workdir
  objective = make_objective(config)
  direct = objective.loss == 'dpo'
  base = train_state.configured_model(
      config, mesh, needs='a model to start from, usually the SFT model')
  placed, vocab = base.placed, base.vocabulary(config.vocab)
  max_len = placed.model.config.max_len
  rows = read_rows(config, vocab, max_len, config.data.split)
  held_out = read_rows(
      config, vocab, max_len, config.eval.split, config.eval.problems)
  batch_rows, reference = config.preference.batch, config.preference.reference
  seed, shown = config.seed, config.eval.shown
  steps = train_state.total_steps(config, rows.size, batch_rows)
  optimizer = train_state.optimizer(config.optim, steps, placed.trained)
  abstract = train_state.abstract_state(placed, optimizer, ref=direct)
  update = jitted(placed, optimizer, abstract, objective)
  score = RawScorer(placed, objective, batch_rows)
  init = functools.partial(
      train_state.initial_state, placed, base.source, optimizer, abstract, seed)

  def step(state, index):
    batch = Preferences(*rows.batch(index, batch_rows, seed))
    state, metrics = update(state, sharding.from_host(batch, mesh))
    if index + 1 == steps and objective.loss in ('pairwise', 'pointwise'):
      state = normalized(
          state, score.mean(state, rows, reference))
    tokens = int((batch.segment > 0).sum())
    return state, metrics | {'perf/tokens': tokens}, []

  def evaluate(state):
    if objective.loss == 'stepwise':
      return step_figures.evaluate(
          held_out.records, score(state, held_out), shown)
    offset = 0. if direct else float(
        lora.join(state.ref, state.params)['head']['offset'])
    return preference_figures.evaluate(
        held_out.records, score(state, held_out), offset,
        objective.loss, shown)

  return loop.Stage(
      steps, init, abstract, step, evaluate=evaluate,
      finish=step_figures.closing_words if objective.loss == 'stepwise' else (
          functools.partial(
              preference_figures.closing_words, objective.loss)),
      progress={'loss': 'loss', 'preference/accuracy': 'accuracy'})


def make_objective(config) -> Objective:
  """The objective of `config.preference`, which fits the model.

  Raises:
    ConfigError: a reward model without a scalar head, or a policy with one.
  """
  objective = Objective(**{
      name: config.preference[name] for name in Objective._fields})
  direct = objective.loss == 'dpo'
  if config.model.get('scalar', False) == direct:
    raise errors.expected(
        'model.scalar', 'True for a reward model, False for loss dpo', direct)
  return objective


def jitted(placed: train_state.PlacedModel, optimizer: optim.Optimizer,
           abstract: TrainState, objective: Objective):
  """`train_step`, jitted: (state, batch) -> the new state and metrics."""
  return jax.jit(
      functools.partial(train_step, placed.model, optimizer, objective),
      donate_argnums=0,
      out_shardings=(train_state.shardings_of(abstract), None))


def read_rows(config, vocab, max_len: int, split: str, count: int | None = None
              ) -> preferences.Rows:
  """The preferences of a split of `config.data`, laid out in rows.

  What is left out is counted and said.

  Raises:
    ConfigError: names the field of the data or of the layout that is wrong; or
      there is nothing to learn from, or to evaluate on.
  """
  settings, learned = config.preference, split == config.data.split
  if settings.loss == 'stepwise':
    return _read_steps(config, vocab, max_len, split, count)
  if settings.separator is not None:
    raise errors.expected(
        'preference.separator', "None: only config.preference.loss 'stepwise' "
        'has steps', settings.separator)
  records, left_out = preferences.read_preferences(
      config.data.task, split, config.data.options.to_dict())
  if settings.scores == 'summary':
    records = [record | {'responses': [
        thinking.summary(text) for text in record['responses']]}
               for record in records]
  _check_grades(records, settings.loss, learned)
  if learned and settings.loss != 'pointwise':
    ranked = [record for record in records if _ranks(record)]
    left_out = {**left_out, 'equal_grades': len(records) - len(ranked)}
    records = ranked
  if learned and settings.balance_length:
    records = _balanced(records)
  encode = templates.pair_encoder(
      config.data.template, vocab, config.data.system)
  rows = preferences.pack(
      records, encode, settings.length, max_len, count)
  _check_grades(rows.records, settings.loss, learned)
  _say_left_out(config.data.task, left_out, rows, 'prompts',
                preferences.why_left_out)
  distributed.check_rows(split, (rows.packed.tokens, rows.grade))
  return rows


def _read_steps(config, vocab, max_len: int, split: str, count: int | None
                ) -> preferences.Rows:
  """As `read_rows`, of responses with labelled steps."""
  settings = config.preference
  for field, value in (('scores', 'response'), ('balance_length', False)):
    if settings[field] != value:
      raise errors.expected(
          f'preference.{field}', f'{value!r}, where config.preference.loss is '
          "'stepwise'", settings[field])
  records, left_out = steps_lib.read_steps(
      config.data.task, split, config.data.options.to_dict())
  rows = steps_lib.pack(records, templates.step_encoder(
      config.data.template, vocab, config.data.system, settings.separator),
                        settings.length, max_len, count)
  _say_left_out(config.data.task, left_out, rows, 'responses',
                steps_lib.why_left_out)
  distributed.check_rows(split, (rows.packed.tokens, rows.grade))
  return rows


def _say_left_out(task: str, left_out: preferences.Counts,
                  rows: preferences.Rows, what: str,
                  why: Callable[[preferences.Counts], str]) -> None:
  counts = collections.Counter(left_out) + collections.Counter(rows.counts)
  kept = counts.pop('prompts')
  if counts:
    distributed.say(f'{counts.total()} of {kept + counts.total()} {what} of '
                    f'{task} are left out: {why(counts)}')


def _balanced(records: Sequence[preferences.Record]
             ) -> Sequence[preferences.Record]:
  """The records that preferences.balance_lengths keeps; says how many."""
  kept = preferences.balance_lengths(records)
  if not kept:
    raise errors.expected(
        'preference.balance_length', f'False: in each of the {len(records)} '
        'prompts the better response is the longer, or in each the shorter, '
        'and none can be kept', True)
  if len(kept) < len(records):
    distributed.say(
        f'{len(records) - len(kept)} of {len(records)} prompts are left '
        'out, so that the better response is the longer as often as not')
  return kept


def _ranks(record: preferences.Record) -> bool:
  return len(set(map(np.float32, record['grades']))) > 1  # as in training


def _check_grades(records: Sequence[preferences.Record], loss: str,
                  learned: bool) -> None:
  """Refuses records without one comparison that `loss` is of.

  That is two responses to a prompt of unequal grades; or, to learn from them by
  a point-wise loss, responses of both classes.
  """
  field = 'data.task' if learned else 'eval.split'
  if loss != 'pointwise' and not any(map(_ranks, records)):
    raise errors.ConfigError(
        field, 'expected prompts with responses of unequal grades; those to '
        f'each of these {len(records)} prompts have the same')
  grades = [grade for record in records for grade in record['grades']]
  good = {bool(np.float32(grade) > 0) for grade in grades}
  if loss == 'pointwise' and learned and len(good) < 2:
    raise errors.ConfigError(
        field, "expected grades above 0 (good) and others (bad), since config."
        f"preference.loss is 'pointwise'; all {len(grades)} are "
        f'{"good" if True in good else "bad"}, {min(grades):g} to '
        f'{max(grades):g}')


def raw_scores(model, objective: Objective, trained, ref, batch: Preferences
              ) -> Array:
  """Scores before normalisation, f32[B, S, K]: what the loss is of."""
  params = lora.join(ref, trained)
  if objective.loss != 'dpo':
    return values.of_rows(model, params, batch) + jax.lax.stop_gradient(
        params['head']['offset'])
  logp, ref_logp = (
      logprobs.of_sequences(model, weights, batch.tokens, batch.segment,
                            batch.position, parent_BT=batch.parent,
                            chunk=objective.logp_chunk)[0]
      for weights in (params, jax.lax.stop_gradient(ref)))
  return objective.beta * values.sums_of_rows(logp - ref_logp, batch)


def loss(model, objective: Objective, trained, ref, batch: Preferences):
  """Sums and denominators of the loss and metrics of one micro-batch."""
  score, grade, real = (
      x.reshape(-1, x.shape[-1]) for x in (
          raw_scores(model, objective, trained, ref, batch), batch.grade,
          batch.real))
  if objective.loss == 'stepwise':
    pair, right = losses.stepwise(score, grade, real)
  elif objective.loss != 'pointwise':
    pair, right = losses.bradley_terry(score, grade, real, objective.margin)
  else:
    good = grade > 0
    pair = losses.pointwise(score, good, real.astype(jnp.float32))
    lead = jnp.where(good, score, -score)
    right = (masked.total(losses.won(lead), real),
             masked.count(score, real).astype(jnp.float32))
  return pair, {'preference/accuracy': right}


def train_step(model, optimizer, objective: Objective, state: TrainState,
               batch: Preferences):
  """One update on one batch of packed preferences; pure."""
  grads, metrics = accumulate.gradients(
      lambda params, part: loss(model, objective, params, state.ref, part),
      state.params, accumulate.split(batch, objective.micro_batches))
  state, more = optim.update(optimizer, grads, state)
  return state._replace(step=state.step + 1), metrics | more


def normalized(state: TrainState, mean: float) -> TrainState:
  """The state with `mean`, that of raw scores, subtracted from all scores."""
  head = state.params['head']
  offset = jax.device_put(
      np.asarray(mean, head['offset'].dtype), head['offset'].sharding)
  return state._replace(
      params=state.params | {'head': head | {'offset': offset}})


class RawScorer:
  """Raw scores of all responses of packed rows, on the host."""

  def __init__(self, placed: train_state.PlacedModel, objective: Objective,
               batch: int):
    self._mesh, self._batch = placed.mesh, batch
    self._score = jax.jit(
        functools.partial(raw_scores, placed.model, objective),
        out_shardings=placed.batch)

  def __call__(self, state: TrainState, rows: preferences.Rows,
               count: int | None = None) -> list[np.ndarray]:
    """f32[responses], or f32[labelled steps], of each record, in order.

    With a `count`, scoring stops after the batch that completes so many
    records; the arrays of the others are empty.
    """
    found = [np.zeros(0, np.float32)] * len(rows.records)
    done = 0
    for index in batches.whole_batches(rows.size, self._batch):
      if count is None:  # an evaluation, and not within a step
        distributed.check_stopped()
      elif done >= count:
        break
      batch = Preferences(*rows.take(index))
      score = sharding.to_host(self._score(
          state.params, state.ref, sharding.from_host(batch, self._mesh)))
      record_BS = rows.record(index)
      for b, s in np.argwhere(record_BS >= 0):
        record = record_BS[b, s]
        found[record] = score[b, s][rows.real[record]]
        done += 1
    return found

  def mean(self, state: TrainState, rows: preferences.Rows, count: int
           ) -> float:
    """The mean score of the responses to `count` records, up to a whole batch.
    """
    return float(np.concatenate(self(state, rows, count)).mean())
