"""Samples responses by tree search over their steps, and scores them.

A search adds nodes to the tree of a prompt, each a step of the policy, guided
by a value model (kernels/step_tree.py); the steps visited most are taken, and
the search goes on from there until the response has ended. With
`search.simulations` 0 the responses are plain samples of the policy, to compare
with. rollouts.jsonl has up to `rl.group` responses to a prompt: the one that
the search has chosen, and others that it has found; each with its steps, its
value by the value model, and the tokens that were drawn for its prompt.

At the end the stage writes steps.jsonl: the steps with labels, to train a value
model on (a preference stage, loss 'stepwise'; data.options.labels names the
column). `outcome` is whether the answer was right, AlphaZero's target,
`quality` a value that is inferred from all responses to the prompt
(rewards/quality.py). With a section `keep` it writes the responses that are
right and readable, too, as rejection sampling does. Search, training on these,
and search again is the loop of AlphaZero (DeepSeek-R1, arXiv 2501.12948, 4.2).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import functools
import importlib.util
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import vocabs
from r1jax.kernels import group_sampling
from r1jax.kernels import step_tree
from r1jax.kernels import values
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.reports import intervals
from r1jax.rewards import cutting
from r1jax.rewards import quality
from r1jax.stages import model_source
from r1jax.stages import rollouts
from r1jax.stages import sample
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import history
from r1jax.training import loop
from r1jax.types import Prompts, Rollout

STEPS = 'steps.jsonl'


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  rl, seed = config.rl, config.seed
  longest = rollouts.longest_sequence(rl)
  policy = train_state.configured_model(
      config, mesh, longest, needs='a model to sample from')
  vocab = policy.vocabulary(config.vocab)
  valued = value_model(config, mesh, longest, policy.placed.model.config.vocab)
  plain = rollouts.policy_settings(rl, vocab, top_k=rl.top_k, top_p=rl.top_p)
  cut = StepCutter(vocab, config.search.ends, config.search.step_tokens)
  searcher = Searcher(policy.placed, valued and valued.placed, plain,
                      tree_settings(config.search, plain, cut.stop_ids))
  scorer = scoring.build(config, vocab, mesh)
  prompts = rollouts.read_prompts(
      config.data, vocab, rl.prompt_tokens, split=config.data.split,
      count=config.data.num_prompts)
  scoring.check_records(config.rewards, prompts)
  keep_rules = sample.filter_rules(config)
  # Not part of the state: they do not change.
  params = functools.cache(lambda: step_tree.Models(*(
      part and train_state.init_params(part.placed, part.source, seed)
      for part in (policy, valued))))
  keep = None if keep_rules is None else functools.partial(
      sample.finish_rejection, workdir, config.keep.shard_rows,
      config.keep.per_prompt, {'stage': config.name,
                               'init_from': config.init_from, 'seed': seed})
  size = rl.prompts

  def step(state, index):
    batch = batches.slice_of(prompts, index * size, size)
    found = searcher(params(), batch, seed, index)
    scored = scorer(found.rollout, batch)
    rows = logged(scored.rows, found, cut)
    if keep_rules is not None:
      rows = sample.marked(keep_rules, rows)
    return state._replace(step=state.step + 1), metrics(rows) | (
        scoring.scorer_metrics(scored)), rows

  return loop.Stage(
      -(-len(prompts.records) // size), *train_state.empty_state(mesh), step,
      finish=functools.partial(finish, workdir, keep), makes_rollouts=True,
      progress={'search/accuracy': 'accuracy', 'perf/tokens': 'tokens',
                'perf/tokens_per_second': 'tok/s'})


def value_model(config, mesh, longest: tuple[str, int], vocab: int
                ) -> train_state.StageModel | None:
  """The value model of `config.search.init_from`; None if that is unset.

  Raises:
    ConfigError: it has no scalar head, or another vocabulary than the policy's
      `vocab` pieces.
  """
  field, init_from = 'search.init_from', config.search.init_from
  if init_from is None:
    return None
  source = model_source.find(init_from, field)
  shape = source.model_config()
  if not shape.scalar or shape.vocab != vocab:
    raise errors.expected(
        field, f"a reward model (with a scalar head) of the policy's {vocab} "
        'pieces', init_from)
  return train_state.StageModel(
      train_state.place_model(shape, mesh, config.rules, longest=longest),
      source)


def tree_settings(section, plain: rollouts.Settings, stop_ids: tuple[int, ...]
                  ) -> step_tree.Settings:
  """The trees of a section `config.search`, with what samples them.

  Raises:
    ConfigError: mctx, which grows them, is not installed; or all steps after
      a node would be the same.
  """
  if section.simulations and importlib.util.find_spec('mctx') is None:
    raise errors.ConfigError(
        'search.simulations', "trees need mctx: pip install 'r1jax[search]'; "
        'or set 0, for plain samples')
  if section.simulations and section.width > 1 and (
      not plain.temperature or plain.top_k == 1):
    raise errors.expected(
        'rl.temperature', 'more than 0, with rl.top_k other than 1: else all '
        f'{section.width} steps after a node (search.width) are the same',
        plain.temperature)
  return step_tree.Settings(stop_ids=stop_ids, **{
      name: getattr(plain, name) for name in (
          'response_tokens', 'eos_ids', 'temperature', 'top_k', 'top_p')}, **{
              name: section[name] for name in (
                  'width', 'step_tokens', 'simulations', 'exploration',
                  'least_visits')})


class StepCutter:
  """Cuts tokens into steps, as the tree of a search grows them."""

  def __init__(self, vocab: vocabs.Vocab, ends: tuple[str, ...], longest: int):
    """A step ends with a token whose text has one of `ends` in it."""
    self._vocab, self._longest = vocab, longest
    if '' in ends:
      raise errors.expected('search.ends', 'texts that are not empty', ends)
    texts = (vocab.decode([n]) for n in range(vocab.size))
    self.stop_ids = tuple(
        n for n, text in enumerate(texts) if any(end in text for end in ends))
    if not self.stop_ids:
      raise errors.expected(
          'search.ends', 'texts of which one is in some token', ends)

  def __call__(self, tokens: np.ndarray) -> list[str]:
    """The texts of the steps; one that is blank is part of its neighbour."""
    # Some vocabularies drop the space that a text begins with.
    line = self._vocab.encode('\n')
    tokens = [*line, *tokens.tolist()]
    text = self._vocab.decode(tokens)
    # Half a character belongs to the next step.
    length = cutting.prefix_length(tokens, self._vocab.decode)
    steps, begin, before = [], len(line), length(len(line))
    for n, token in enumerate(tokens[begin:], begin + 1):
      if token in self.stop_ids or n - begin == self._longest or (
          n == len(tokens)):
        end = length(n) if n < len(tokens) else len(text)
        steps.append(text[before:end])
        begin, before = n, end
        if len(steps) > 1 and not all(map(str.strip, steps[-2:])):
          steps[-2:] = [steps[-2] + steps[-1]]
    return steps if any(map(str.strip, steps)) else []


class Found(NamedTuple):
  """Responses to B prompts, up to G each, and what they cost."""
  rollout: Rollout  # on the devices, N = B G
  value: np.ndarray  # f32[N], 1/2 without a value model
  real: np.ndarray  # bool[N]; others fill up a group
  drawn: np.ndarray  # i32[B], tokens drawn for a prompt
  trees: list[dict[str, Any]]  # B, of the searches; {} of plain samples


class Searcher:
  """Finds responses by tree search, or samples them."""

  def __init__(self, policy: train_state.PlacedModel,
               value: train_state.PlacedModel | None,
               plain: rollouts.Settings, settings: step_tree.Settings):
    self._models = step_tree.Models(policy.model, value and value.model)
    self._mesh, self._group, self._settings = policy.mesh, plain.group, settings
    self._sampler = rollouts.Sampler(policy, plain)

  def __call__(self, params: step_tree.Models, batch: batches.PromptBatch,
               seed: int, stream: int) -> Found:
    """Responses to a batch of B prompts, the same on every process.

    Args:
      params: of policy and value model.
      batch: the prompts.
      seed, stream: name the random streams, with the prompts' ids.

    Raises:
      Stopped: a signal asked for it.
    """
    prompts = sharding.from_host(
        Prompts(batch.tokens, batch.length, batch.id), self._mesh)
    if not self._settings.simulations:
      return self._samples(params, batch, prompts, seed, stream)
    params = step_tree.Models(*(
        model and _prepare(model, tree)
        for model, tree in zip(self._models, params)))
    node = _begin(self._models, params, prompts, np.uint32(seed),
                  np.uint32(stream), self._settings)
    searches, drawn, ended = [], sharding.to_host(node.drawn), False
    while not ended:
      distributed.check_stopped()
      node, seen = _search(self._models, params, self._settings, node)
      best, seen = jax.tree.map(sharding.to_host, (
          _Best(node.tokens, node.length, node.done, node.value), seen))
      searches.append(seen)
      drawn, ended = drawn + seen.drawn, best.done.all()
    return self._found(prompts, best, searches, drawn)

  def _samples(self, params, batch, prompts, seed, stream) -> Found:
    rollout = self._sampler(params.policy, batch, seed, stream)
    count = len(rollout.tokens)
    value = np.full(count, .5, np.float32)
    if self._models.value:
      value = sharding.to_host(_value_of(
          self._models.value, params.value, prompts, rollout,
          self._settings.eos_ids))
    drawn = sharding.to_host(rollout.mask).sum(1)
    return Found(rollout, value, np.ones(count, bool),
                 drawn.reshape(len(batch.id), -1).sum(1),
                 [{} for _ in batch.id])

  def _found(self, prompts: Prompts, best: '_Best',
             searches: list[step_tree.Seen], drawn: np.ndarray) -> Found:
    """The chosen response to each prompt first, then others that were found."""
    rows, real, trees = [], [], []
    for b in range(len(drawn)):
      group = dict(itertools.chain.from_iterable(
          self._finished(seen, b) for seen in searches))
      chosen = tuple(best.tokens[b, :best.length[b]].tolist())
      group.pop(chosen, None)
      group = [(chosen, best.value[b]), *group.items()][:self._group]
      fill = self._group - len(group)
      real += [True] * len(group) + [False] * fill
      rows += group + group[:1] * fill
      running = [seen for seen in searches if not seen.done[b, 0]]
      trees.append({
          'search/visits': [seen.visits[b].tolist() for seen in running],
          'search/means': [
              seen.mean[b].astype(float).round(3).tolist() for seen in running
          ]})
    tokens, length = batches.pad_right(
        [list(tokens) for tokens, _ in rows], self._settings.response_tokens)
    mask = np.arange(tokens.shape[1]) < length[:, None]
    rollout = sharding.from_host(
        (np.where(mask, tokens, 0), mask, np.zeros(mask.shape, np.float32)),
        self._mesh)
    return Found(Rollout(prompts, *rollout),
                 np.array([value for _, value in rows], np.float32),
                 np.array(real), drawn, trees)

  def _finished(self, seen: step_tree.Seen, b: int
                ) -> Iterator[tuple[tuple[int, ...], float]]:
    """The responses of tree `b` that have ended, with their values."""
    for n in np.flatnonzero(seen.done[b] & (seen.length[b] > 0)):
      tokens = seen.tokens[b, n, :seen.length[b, n]].tolist()
      if tokens[-1] in self._settings.eos_ids:
        yield tuple(tokens), seen.value[b, n]


class _Best(NamedTuple):
  """Of step_tree.Node, where the searches have come to."""
  tokens: np.ndarray
  length: np.ndarray
  done: np.ndarray
  value: np.ndarray


_prepare = jax.jit(
    lambda model, params: model.prepare(params), static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _begin(models, params, prompts: Prompts, seed, stream,
           settings: step_tree.Settings) -> step_tree.Node:
  keys = group_sampling.sample_keys(seed, stream, prompts.id, 1)
  return step_tree.begin(models, params, prompts, keys, settings)


_search = jax.jit(step_tree.search, static_argnums=(0, 2), donate_argnums=3)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _value_of(model, params, prompts: Prompts, rollout: Rollout,
              eos_ids: tuple[int, ...]) -> jax.Array:
  """The values of whole responses, f32[N], as the nodes of a tree have them."""
  length_N = rollout.mask.sum(1)
  last_N1 = jnp.take_along_axis(rollout.tokens, length_N[:, None] - 1, 1)
  said_N = length_N - jnp.isin(last_N1[:, 0], jnp.array(eos_ids, jnp.int32))
  score_N = values.of_responses(model, params, prompts, rollout.tokens, said_N)
  return jnp.where(said_N > 0, jax.nn.sigmoid(score_N), .5)


###############################################################################
# Rows, and the files made of them
###############################################################################


def logged(rows: list[dict[str, Any]], found: Found, cut: StepCutter
           ) -> list[dict[str, Any]]:
  """The rows of responses that are no filling, with what the search knows."""
  tokens, mask = map(
      sharding.to_host, (found.rollout.tokens, found.rollout.mask))
  group = len(found.real) // len(found.drawn)
  kept = []
  for n, row in enumerate(rows):
    b, number = divmod(n, group)
    if found.real[n]:
      tree = found.trees[b]
      kept.append(row | {
          'search/chosen': not tree or number == 0,
          'search/value': round(float(found.value[n]), 4),
          'search/drawn': int(found.drawn[b]),
          'search/steps': cut(tokens[n, :mask[n].sum()]),
      } | (tree if number == 0 else {}))
  return kept


def metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
  """Figures of a step, of the chosen responses but for the last three."""
  chosen = [row for row in rows if row['search/chosen']]
  mean = lambda name, among=chosen: float(np.mean([row[name] for row in among]))
  drawn = {row['id']: row['search/drawn'] for row in rows}
  return {
      'reward/mean': mean('reward'), 'search/accuracy': mean('accuracy'),
      'search/value': mean('search/value'),
      'response_length/mean': mean('tokens'),
      'search/responses': len(rows) / len(drawn),
      'search/found': mean('accuracy', rows),
      'perf/tokens': sum(drawn.values())}


def finish(workdir: str, keep: Callable[[Mapping[str, Any]], str] | None,
           summary: Mapping[str, Any]) -> str:
  """Writes steps.jsonl, and what `keep` writes; returns the closing words."""
  folder = sample.sampled(workdir)
  path = folder / history.ROLLOUTS
  files.write_output(folder / STEPS, labelled(files.stream_rows(path)))
  chosen = [(row['step'], row['id'], row['accuracy'], row['search/drawn'])
            for row in files.stream_rows(path) if row['search/chosen']]
  right = intervals.share([accuracy for *_, accuracy, _ in chosen])
  drawn = {tuple(prompt): drawn for *prompt, _, drawn in chosen}
  return '\n'.join([
      f'{intervals.text(right, interval=True)} of {len(chosen)} responses are '
      f'right; {np.mean(list(drawn.values())):.0f} tokens drawn for a prompt',
      f'steps with labels: {folder / STEPS}',
      *([] if keep is None else [keep(summary)])])


def labelled(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
  """The steps of all responses with their labels, `outcome` and `quality`.

  `rows` are those of rollouts.jsonl, in which a prompt's follow each other.
  """
  for _, group in itertools.groupby(
      rows, key=lambda row: (row['step'], row['id'])):
    group = [row for row in group if row['search/steps']]
    inferred = quality.values([row['search/steps'] for row in group],
                              [row['accuracy'] == 1. for row in group])
    for row, values_of in zip(group, inferred):
      steps = row['search/steps']
      yield {'prompt': row['prompt'], 'steps': steps,
             'outcome': [row['accuracy']] * len(steps), 'quality': values_of,
             'task': row['task']}
