"""Next-token training on packed rows: pretraining, supervised fine-tuning.

Documents or conversations come from a seqio task; the loss is the mean
negative log-likelihood of every token, in a conversation of those that the
assistant says (`lm.prompt_weight` gives the others theirs); with a section
`distill`, mixed with the divergence from a teacher's logits (distill.py).
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.models import lora
from r1jax.parallel import sharding
from r1jax.stages import distill
from r1jax.stages import model_source
from r1jax.stages import train_state
from r1jax.training import accumulate
from r1jax.training import files
from r1jax.training import loop
from r1jax.training import optim
from r1jax.types import LMBatch, Params, TrainState


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its documents, compiles nothing yet."""
  setup = train_state.place_model(config, mesh)
  rows = packed_documents(config, setup.model.config, config.data.split)
  steps = train_state.total_steps(config, rows.size, config.lm.batch)
  tx = train_state.optimizer(config, steps)
  teacher, teaching = distill.load_teacher(config, mesh, setup.model.config)
  abstract = train_state.abstract_state(setup, tx, ref=False)
  update = jax.jit(
      functools.partial(
          train_step, setup.model, tx, config.lm.micro_batches,
          config.lm.logp_chunk, teacher),
      donate_argnums=0, out_shardings=(train_state.shardings_of(abstract), None))

  def init():
    params = train_state.init_params(setup, config.init_from, config.seed)
    return train_state.init_state(setup, tx, abstract, params, config.seed)

  def step(state, index):
    batch = LMBatch(*rows.batch(index, config.lm.batch, config.seed))
    state, metrics = update(state, sharding.from_host(batch, mesh), teaching)
    tokens = int((batch.segment > 0).sum())
    return state, metrics | {'perf/tokens': tokens}, []

  evaluate = None
  if config.eval.split:
    evaluate = evaluation(config, setup, packed_documents(
        config, setup.model.config, config.eval.split, config.eval.problems))
  return loop.Stage(steps, init, abstract, step, evaluate=evaluate,
                    finish=functools.partial(closing_words, workdir),
                    shown={'loss': 'loss', 'lm/entropy': 'entropy'})


def closing_words(workdir: str, summary) -> str:
  """What was reached, and what the parameters are for."""
  after = summary['after']
  held_out = after and (
      f'held out: {after["loss"]:.3f} nats a token, '
      f'{100 * after["token_accuracy"]:.1f} % of tokens foretold\n')
  if not summary['steps']:
    return held_out or 'nothing was trained: config.steps is 0'
  rows = files.read_rows(pathlib.Path(workdir) / 'metrics.jsonl')[-50:]
  loss = sum(row['loss'] for row in rows) / len(rows)
  return (f'trained: {loss:.3f} nats a token over the last {len(rows)} of '
          f'{summary["steps"]} steps\n{held_out or ""}'
          'next: begin another stage from it with '
          f'--config.init_from={workdir}')


def packed_documents(config, model, split: str, count: int | None = None):
  """The documents of a split of `config.data`, packed into rows."""
  from r1jax.data import batches  # with TensorFlow behind tasks: only here
  from r1jax.data import tasks
  vocab = model_source.vocabulary(config, model)
  where = dict(split=split, seed=config.data.seed,
               options=config.data.options.to_dict())
  template = config.data.get('template')
  if template is None:
    return batches.packed(
        tasks.documents(config.data.task, vocab, num_documents=count, **where),
        config.lm.length)
  found = tasks.conversations(
      config.data.task, vocab, template=template, count=count, **where)
  kept = [pair for pair in found if len(pair[0]) <= config.lm.length]
  if found and not kept:
    shortest = min(len(tokens) for tokens, _ in found)
    raise errors.expected(
        'lm.length', f'at least {shortest}, the tokens of the shortest '
        'conversation', config.lm.length)
  if len(kept) < len(found):
    print(f'{len(found) - len(kept)} of {len(found)} conversations are longer '
          f'than config.lm.length = {config.lm.length} and left out')
  return batches.packed(
      [tokens for tokens, _ in kept], config.lm.length,
      [weight + config.lm.prompt_weight * (1 - weight) for _, weight in kept])


def loss(model, chunk: int, params, batch: LMBatch):
  """Sum and denominator of the loss and figures of one micro-batch."""
  logp, entropy = logprobs.of_sequences(
      model, params, batch.tokens, batch.segment, batch.position, chunk=chunk)
  value, count = losses.cross_entropy(logp, batch.weight)
  return (value, count), {
      'lm/entropy': (jnp.sum(entropy * batch.weight), count),
  }


def evaluation(config, setup: train_state.PlacedModel, rows):
  """Makes state -> (figures, samples) over all of `rows`.

  'loss' is in nats a token, 'token_accuracy' the share of tokens that are the
  model's likeliest; both are over what the loss counts.
  """
  size = config.lm.batch // config.lm.micro_batches
  measure = jax.jit(functools.partial(
      measured, setup.model, config.lm.logp_chunk))

  def evaluate(state):
    params = lora.join(state.ref, state.params)
    totals = []
    for start in range(0, rows.size, size):
      index = np.arange(start, start + size)
      batch = LMBatch(*rows.take(index % rows.size))
      again = (index >= rows.size)[:, None]  # what fills up the last batch
      batch = batch._replace(weight=np.where(again, 0, batch.weight))
      totals.append(measure(params, sharding.from_host(batch, setup.mesh)))
    loss_sum, right, count = np.sum(jax.device_get(totals), 0)
    return {'n': rows.size, 'loss': float(loss_sum / count),
            'token_accuracy': float(right / count)}, []
  return evaluate


def measured(model, chunk: int, params, batch: LMBatch):
  """Sums over a batch of the loss, of tokens foretold, of weights; pure."""
  def each(logits_XV, token_X):
    likeliest = jnp.argmax(logits_XV, -1) == token_X
    return logprobs.of_logits(logits_XV, token_X)[0], likeliest

  logp, right = logprobs.of_sequences(
      model, params, batch.tokens, batch.segment, batch.position, chunk=chunk,
      measure=each)
  value, count = losses.cross_entropy(logp, batch.weight)
  return value, jnp.sum(right * batch.weight), count


def train_step(model, tx, micro_batches: int, chunk: int,
               teacher: distill.Teacher | None, state: TrainState,
               batch: LMBatch, teaching: Params | None = None):
  """One update on one batch of packed rows; pure.

  `teaching` are the parameters of a teacher, if there is one.
  """
  def of_part(params, part):
    params = lora.join(state.ref, params)
    if teacher is None:
      return loss(model, chunk, params, part)
    return distill.loss(model, chunk, teacher, params, teaching, part)

  grads, figures = accumulate.gradients(
      of_part, state.params, accumulate.split(batch, micro_batches))
  state, metrics = optim.update(tx, grads, state)
  return state._replace(step=state.step + 1), figures | metrics
