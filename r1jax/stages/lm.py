"""Next-token training on packed rows: pretraining, SFT, distillation.

Documents or conversations come from a task. The loss is the mean negative
log-likelihood of every token; in conversations, of the assistant's tokens (the
others have the weight `lm.prompt_weight`). A section `distill` adds the
divergence from a teacher's logits (distill.py).
"""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import ragged
from r1jax.data import tasks
from r1jax.data import vocabs
from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.models import lora
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.stages import distill
from r1jax.stages import train_state
from r1jax.training import accumulate
from r1jax.training import files
from r1jax.training import history
from r1jax.training import loop
from r1jax.training import optim
from r1jax.types import LMBatch, Params, TrainState


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its documents, compiles nothing yet."""
  lm, seed = config.lm, config.seed
  base = train_state.configured_model(config, mesh, ('lm.length', lm.length))
  placed, vocab = base.placed, base.vocabulary(config.vocab)
  rows = read_rows(config.data, lm, vocab, config.data.split)
  batch_rows = lm.batch
  steps = train_state.total_steps(config, rows.size, batch_rows)
  optimizer = train_state.optimizer(config.optim, steps, placed.trained)
  teacher = teacher_params = None
  if 'distill' in config:
    teacher, teacher_params = distill.load_teacher(
        config.distill, mesh, config.rules, lm.length, placed.model.config,
        vocab)
  abstract = train_state.abstract_state(placed, optimizer, ref=False)
  update = jitted(placed, optimizer, abstract, lm, teacher)
  init = functools.partial(
      train_state.initial_state, placed, base.source, optimizer, abstract, seed)

  def step(state, index):
    batch = LMBatch(*rows.batch(index, batch_rows, seed))
    state, metrics = update(
        state, sharding.from_host(batch, mesh), teacher_params)
    tokens = int((batch.segment > 0).sum())
    return state, metrics | {'perf/tokens': tokens}, []

  evaluate = None
  if config.eval.split:
    held_out = read_rows(
        config.data, lm, vocab, config.eval.split, config.eval.problems)
    evaluate = make_evaluator(
        placed, held_out, lm.batch // lm.micro_batches, lm.logp_chunk)
  return loop.Stage(steps, init, abstract, step, evaluate=evaluate,
                    finish=functools.partial(closing_words, workdir),
                    progress={'loss': 'loss', 'lm/entropy': 'entropy'})


def jitted(placed: train_state.PlacedModel, optimizer: optim.Optimizer,
           abstract: TrainState, lm, teacher: distill.Teacher | None = None):
  """`train_step`, jitted: (state, batch, teacher's parameters) -> new ones.

  `lm` is the section of the config.
  """
  return jax.jit(
      functools.partial(train_step, placed.model, optimizer, lm.micro_batches,
                        lm.logp_chunk, teacher),
      donate_argnums=0,
      out_shardings=(train_state.shardings_of(abstract), None))


def closing_words(workdir: str, summary) -> str:
  """The loss reached, and the command for the next stage."""
  after = summary['after']
  held_out = after and (
      f'held out: {after["loss"]:.3f} nats per token, '
      f'{100 * after["token_accuracy"]:.1f} % next-token accuracy\n')
  if not summary['steps']:
    return held_out or 'nothing was trained: config.steps is 0'
  rows = list(itertools.islice(files.stream_backwards(
      pathlib.Path(workdir) / history.METRICS), 50))
  trained = rows and (
      f'trained: {sum(row["loss"] for row in rows) / len(rows):.3f} nats per '
      f'token over the last {len(rows)} of {summary["steps"]} steps\n')
  return (f'{trained or ""}{held_out or ""}'
          'next: start another stage from it with '
          f'--config.init_from={workdir}')


def read_rows(data, lm, vocab: vocabs.Vocab, split: str,
              count: int | None = None):
  """The documents of a split, or its conversations, packed into rows.

  Args:
    data, lm: sections of the config; without `data.template` the task gives
      documents.
    vocab: of the model.
    split: of the data.
    count: the most documents to read; None: all.
  """
  options = data.options.to_dict()
  if data.template is None:
    return _packed(
        tasks.documents(data.task, vocab, split=split, seed=data.seed,
                        num_documents=count, options=options),
        None, vocab, lm.length, split)
  tokens, said = tasks.conversations(
      data.task, vocab, split=split, seed=data.seed, template=data.template,
      count=count, options=options)
  fits = tokens.length <= lm.length
  if len(fits) and not fits.any():
    raise errors.expected(
        'lm.length', f'at least {tokens.length.min()}, the tokens of the '
        'shortest conversation', lm.length)
  if not fits.all():
    distributed.say(
        f'{(~fits).sum()} of {len(fits)} conversations are longer than '
        f'config.lm.length = {lm.length} and left out')
  weight = np.where(said.values, 1, lm.prompt_weight).astype(np.float32)
  return _packed(tokens.chosen(fits), ragged.Ragged(weight, said.end).chosen(
      fits), vocab, lm.length, split)


def _packed(documents: ragged.Ragged, weights: ragged.Ragged | None,
            vocab: vocabs.Vocab, length: int, split: str) -> batches.Packed:
  """The documents that say something, in rows; tells how many say nothing."""
  says = says_something(documents, weights, vocab)
  if not says.any():
    raise errors.ConfigError(
        'data.task', f'nothing to learn from: the {len(documents)} texts of '
        f'split {split!r} are empty')
  if not says.all():
    distributed.say(
        f'{(~says).sum()} of {len(says)} texts of split {split!r} are empty '
        'and left out')
  rows = batches.packed(
      documents.chosen(says), length,
      None if weights is None else weights.chosen(says))
  distributed.check_rows(split, (rows.tokens, rows.weight))
  return rows


def says_something(documents: ragged.Ragged, weights: ragged.Ragged | None,
                   vocab: vocabs.Vocab) -> np.ndarray:
  """Which documents are learned from, bool[M].

  A document is if a token with loss is more than white space or a special token
  (such as the end token), and one is not its first, which nothing predicts.

  Args:
    documents, weights: as of batches.packed.
    vocab: of the documents.
  """
  size, end, tokens = documents.length, documents.end[1:], documents.values
  there = np.bincount(tokens) > 0
  word = np.array([there[n] and bool(vocab.decode([n]).strip())
                   for n in range(len(there))], bool)
  learned = np.ones(len(tokens), bool) if weights is None else (
      weights.values > 0)
  target = learned.copy()
  target[(end - size)[size > 0]] = False

  def of_each(flags):
    total = np.concatenate([[0], np.cumsum(flags)])
    return total[end] - total[end - size]

  return (of_each(learned & word[tokens]) > 0) & (of_each(target) > 0)


def loss(model, chunk: int, params, batch: LMBatch):
  """Sums and denominators of the loss and metrics of one micro-batch."""
  logp, entropy = logprobs.of_sequences(
      model, params, batch.tokens, batch.segment, batch.position, chunk=chunk)
  value, count = losses.cross_entropy(logp, batch.weight)
  return (value, count), {
      'lm/entropy': (jnp.sum(entropy * batch.weight), count),
  }


def make_evaluator(placed: train_state.PlacedModel, rows, batch: int,
                   chunk: int):
  """Makes state -> (results, samples) over all of `rows`, `batch` at a time.

  'loss' is in nats per token; 'token_accuracy' is the share of tokens that the
  model finds most likely. Both are over the tokens that the loss counts.
  """
  measure = jax.jit(functools.partial(measured, placed.model, chunk))

  def evaluate(state):
    params = lora.join(state.ref, state.params)
    totals = []
    for start in range(0, rows.size, batch):
      jax.block_until_ready(totals[-2:-1])  # no more than one is in flight
      distributed.check_stopped()
      index = np.arange(start, start + batch)
      part = LMBatch(*rows.take(index % rows.size))
      again = (index >= rows.size)[:, None]  # what fills up the last batch
      part = part._replace(weight=np.where(again, 0, part.weight))
      totals.append(measure(params, sharding.from_host(part, placed.mesh)))
    loss_sum, right, count = np.sum(jax.device_get(totals), 0)
    return {'n': rows.size, 'loss': float(loss_sum / count),
            'token_accuracy': float(right / count)}, []
  return evaluate


def measured(model, chunk: int, params, batch: LMBatch):
  """A batch's summed loss, correctly predicted tokens, and weights; pure."""
  def each(logits_XV, token_X):
    right = jnp.argmax(logits_XV, -1) == token_X
    return logprobs.of_logits(logits_XV, token_X)[0], right

  logp, right = logprobs.of_sequences(
      model, params, batch.tokens, batch.segment, batch.position, chunk=chunk,
      measure=each)
  value, count = losses.cross_entropy(logp, batch.weight)
  return value, jnp.sum(right * batch.weight), count


def train_step(model, optimizer, micro_batches: int, chunk: int,
               teacher: distill.Teacher | None, state: TrainState,
               batch: LMBatch, teacher_params: Params | None = None):
  """One update on one batch of packed rows; pure.

  `teacher_params` are those of a teacher, if there is one.
  """
  def of_part(params, part):
    params = lora.join(state.ref, params)
    if teacher is None:
      return loss(model, chunk, params, part)
    return distill.loss(model, chunk, teacher, params, teacher_params, part)

  grads, metrics = accumulate.gradients(
      of_part, state.params, accumulate.split(batch, micro_batches))
  state, more = optim.update(optimizer, grads, state)
  return state._replace(step=state.step + 1), metrics | more
