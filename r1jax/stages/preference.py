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
from collections.abc import Iterator, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import graded
from r1jax.data import kept
from r1jax.data import pieces
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


# The fields of config.preference that tokens depend on.
_TOKENS = ('loss', 'scores', 'length', 'balance_length', 'separator')


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
              ) -> graded.Rows:
  """The preferences, or labelled steps, of a split of `config.data`, in rows.

  They are kept (data/kept.py). What is left out is counted and said.

  Raises:
    ConfigError: names the field of the data or of the layout that is wrong; or
      there is nothing to learn from, or to evaluate on.
  """
  settings, data = config.preference, config.data
  stepwise, learned = settings.loss == 'stepwise', split == data.split
  _check_settings(settings)
  template = data.template, vocab, data.system
  if stepwise:
    source, read = steps_lib, steps_lib.read_steps
    write = templates.step_writer(*template, settings.separator)
  else:
    source, read = preferences, preferences.read_preferences
    write = templates.answer_writer(*template)
  asked = str(data.task), split, data.options.to_dict()

  def made():
    records, left_out = read(*asked)
    if not stepwise:
      records = _chosen(records, settings, learned, left_out)
    taken = graded.Builder()
    left_out.update(source.take(
        pieces.encoded(vocab, records, functools.partial(source.written, write),
                       taken, count), taken, settings.length, max_len))
    for _ in records:
      pass  # beyond those that are wanted a wrong row is refused, too
    found = taken.arrays()
    if not stepwise:
      _check_grades(np.split(found['grades'], found['grades_end'][1:-1]),
                    settings.loss, learned)
    return found | {
        'left_out': np.array([left_out[why] for why in source.LEFT_OUT])}

  found = kept.tokens(
      made, graded.files(source.SOURCES, *asked), vocab, data.template, *asked,
      data.system, [settings[name] for name in _TOKENS], learned, max_len,
      count)
  rows = graded.lay_out(found, settings.length, dict(zip(
      source.LEFT_OUT, found['left_out'].tolist())), apart=not stepwise)
  left_out = sum(rows.counts.values())
  if left_out:
    distributed.say(
        f'{left_out} of {left_out + len(rows.records)} '
        f'{"responses" if stepwise else "prompts"} of {data.task} are left '
        'out: ' + graded.why_left_out(source.LEFT_OUT, rows.counts))
  distributed.check_rows(split, (rows.packed.tokens, rows.grade))
  return rows


def _check_settings(settings) -> None:
  """Refuses a setting that the loss has no use for."""
  if settings.loss != 'stepwise':
    if settings.separator is not None:
      raise errors.expected(
          'preference.separator', "None: only config.preference.loss 'stepwise'"
          ' has steps', settings.separator)
    return
  for field, value in (('scores', 'response'), ('balance_length', False)):
    if settings[field] != value:
      raise errors.expected(
          f'preference.{field}', f'{value!r}, where config.preference.loss is '
          "'stepwise'", settings[field])


def _chosen(records: Sequence[graded.Record], settings, learned: bool,
            left_out: collections.Counter) -> Iterator[graded.Record]:
  """What of the records there is to learn from, or to compare; counts others.
  """
  if settings.scores == 'summary':
    records = graded.records_of(record | {'responses': [
        thinking.summary(text) for text in record['responses']]}
                                for record in records)
  grades = [record['grades'] for record in records]
  _check_grades(grades, settings.loss, learned)
  chosen = range(len(records))
  if learned and settings.loss != 'pointwise':
    chosen = [n for n in chosen if _ranks(grades[n])]
    left_out['equal_grades'] = len(records) - len(chosen)
  if learned and settings.balance_length:
    balanced = preferences.balance_lengths(records[n] for n in chosen)
    if not balanced:
      raise errors.expected(
          'preference.balance_length', f'False: in each of the {len(chosen)} '
          'prompts the better response is the longer, or in each the shorter, '
          'and none can be kept', True)
    left_out['unbalanced'] = len(chosen) - len(balanced)
    chosen = [chosen[n] for n in balanced]
  return (records[n] for n in chosen)


def _ranks(grades: Sequence[float]) -> bool:
  return len(set(map(np.float32, grades))) > 1  # as in training


def _check_grades(grades: Sequence[Sequence[float]], loss: str, learned: bool
                 ) -> None:
  """Refuses records without one comparison that `loss` is of.

  That is two responses to a prompt of unequal grades; or, to learn from them by
  a point-wise loss, responses of both classes. `grades` are those of each.
  """
  field = 'data.task' if learned else 'eval.split'
  if loss != 'pointwise' and not any(map(_ranks, grades)):
    raise errors.ConfigError(
        field, 'expected prompts with responses of unequal grades; those to '
        f'each of these {len(grades)} prompts have the same')
  each = [grade for some in grades for grade in some]
  good = {bool(np.float32(grade) > 0) for grade in each}
  if loss == 'pointwise' and learned and len(good) < 2:
    raise errors.ConfigError(
        field, "expected grades above 0 (good) and others (bad), since config."
        f"preference.loss is 'pointwise'; all {len(each)} are "
        f'{"good" if True in good else "bad"}, {min(each):g} to '
        f'{max(each):g}')


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

  def __call__(self, state: TrainState, rows: graded.Rows,
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

  def mean(self, state: TrainState, rows: graded.Rows, count: int
           ) -> float:
    """The mean score of the responses to `count` records, up to a whole batch.
    """
    return float(np.concatenate(self(state, rows, count)).mean())
