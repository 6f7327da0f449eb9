"""Scoring: rollouts in, rewards out.

Each process decodes the responses of its own rows and scores them by rule, on
the host. Reward models and a judge then score on the devices, all processes
together. Every process ends up with the rewards of all responses.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.data import thinking
from r1jax.data import vocabs
from r1jax.parallel import distributed
from r1jax.parallel import roll_call
from r1jax.parallel import sharding
from r1jax.rewards import accuracy
from r1jax.rewards import cutting
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import sandbox
from r1jax.stages import early_scores
from r1jax.stages import model_rewards
from r1jax.stages import pieces
from r1jax.types import Rollout, Steps


_ENDS = 'step_ends'  # of a logged response, tokens


class Scored(NamedTuple):
  """A rollout of N responses with its rewards."""
  rollout: Rollout  # on the devices
  reward: np.ndarray  # f32[N], the weighted sum; 0 for padding prompts
  parts: dict[str, np.ndarray]  # f32[N] each, unweighted
  length: np.ndarray  # i32[N], tokens, EOS included
  finished: np.ndarray  # bool[N], by EOS, not at the limit
  counters: dict[str, int]  # of verifiers and judges, all hosts together
  rows: list[dict[str, Any]]  # of rollouts.jsonl, of all hosts, no padding
  drawn: int | None = None  # groups sampled, with dynamic sampling
  dropped: int = 0  # groups of them that are not trained on
  # With dynamic sampling or partial rollouts, which of the N are trained on,
  # bool[N], and their rows; None: all.
  kept: np.ndarray | None = None
  kept_rows: Sequence[dict[str, Any]] | None = None
  steps: Steps | None = None  # rewards of steps, with process supervision
  measured: Any = None  # what `meanwhile` gave
  seconds: Mapping[str, float] = {}  # metrics, of scoring by rule


class _ByRule(NamedTuple):
  """Some of the responses, scored by rule."""
  rows: dict[int, dict[str, Any]]  # of rollouts.jsonl
  parts: tuple[str, ...]  # names of columns
  counters: dict[str, int]


class RolloutScorer:
  """Scores the responses of a policy, by rules and by models."""

  def __init__(self, vocab: vocabs.Vocab, rule_scorer: rewards_lib.Scorer,
               models: Sequence[rewards_lib.GroupReward] = (),
               process: rewards_lib.ProcessReward | None = None):
    """`models` score after the rules; a judge overwrites `accuracy`.

    `process` is that of `models` whose rewards of steps are wanted.
    """
    self._vocab, self._rule_scorer, self.models = vocab, rule_scorer, models
    self._process = process

  def __call__(self, rollout: Rollout | pieces.Drawing,
               batch: batches.PromptBatch,
               meanwhile: Callable[[Rollout], Any] | None = None) -> Scored:
    """The rewards of a rollout of `batch`, B prompts and N = B G responses.

    Responses to padding prompts, which fill up a batch and have no record, are
    not scored.

    Args:
      rollout: one that is being drawn is scored by rule while it is.
      batch: its prompts.
      meanwhile: is called when the whole rollout is there; the devices do what
        it dispatches while the host scores by rule.

    Raises:
      Stopped: a signal asked for it; the responses are then lost.
    """
    drawing = isinstance(rollout, pieces.Drawing)
    group = rollout.group if drawing else len(rollout.tokens) // len(batch.id)
    with roll_call.alone(), early_scores.EarlyScores(
        functools.partial(self._by_rule, batch, group)) as scores:
      if drawing:
        for ended in rollout:
          scores.add(ended)
        rollout = rollout.rollout
      tokens, masks = map(sharding.own_rows, (rollout.tokens, rollout.mask))
      distributed.check_stopped()  # they were waited for
      measured = meanwhile and meanwhile(rollout)
      found, seconds = scores.finish(
          {n: (tokens[n], int(masks[n].sum())) for n in sorted(tokens)})
    # A verifier's limit is in seconds: scored on two hosts, a response could
    # get two rewards. So each is scored once, and the others are told.
    count = rollout.tokens.shape[0]
    shares, counters = zip(*distributed.gather(
        [[row for part in found for row in part.rows.items()],
         sum_counters(part.counters for part in found)]))
    by_row = {n: row for share in shares for n, row in share}
    rows = [by_row[n] for n in sorted(by_row)]
    counts = sum_counters(counters)
    for model in self.models if rows else ():  # no group may be complete
      distributed.check_stopped()
      counts |= model.apply(batch.records, rows)

    def column(name, dtype=np.float32):
      values = np.zeros(count, dtype)
      values[:len(rows)] = [row[name] for row in rows]
      return values

    names = [*found[0].parts, *(model.name for model in self.models)]
    return Scored(rollout, column('reward'), {n: column(n) for n in names},
                  column('tokens', np.int32), column('finished', bool),
                  counts, rows,
                  steps=self._process and self._steps(
                      rows, rollout.tokens.shape),
                  measured=measured, seconds=seconds)

  def _by_rule(self, batch: batches.PromptBatch, group: int,
               given: pieces.Ended) -> _ByRule:
    """Scores responses to `batch`, but those to padding prompts."""
    mine = [n for n in sorted(given) if n < len(batch.records) * group]
    prompts = [n // group for n in mine]
    records = [batch.records[b] for b in prompts]
    responses = [self._decode(*given[n], record)
                 for n, record in zip(mine, records)]
    scores = self._rule_scorer.score(records, responses)
    rows = _log_rows(records, batch.id[prompts], responses, scores)
    if self._process:
      for n, row, record in zip(mine, rows, records):
        row[_ENDS] = self.step_ends(
            record, row, given[n][0], self._process.steps(row['response']))
    return _ByRule(dict(zip(mine, rows)), (*scores.parts,), scores.counters)

  def add_votes(self, batch: batches.PromptBatch, rows: Sequence[dict]
               ) -> dict[str, int]:
    """Adds to the rows of a batch the class of their answer, 'vote'.

    Answers to a problem that its verifier takes for the same have one number;
    None is no answer. Returns counters of the comparisons.
    """
    group = len(rows) // len(batch.records)
    groups = [rows[n:n + group] for n in range(0, len(rows), group)]
    votes, counters = distributed.in_main(lambda: self._rule_scorer.votes(
        batch.records, [[row['extracted'] for row in part] for part in groups]))
    for part, numbers in zip(groups, votes, strict=True):
      for row, number in zip(part, numbers, strict=True):
        row['vote'] = number
    return {f'vote_{name}': count for name, count in counters.items()}

  def step_ends(self, record: Mapping[str, Any], row: Mapping[str, Any],
                tokens: np.ndarray, steps: Sequence[str]) -> list[int]:
    """The index in i32[R] `tokens` of the last one of each step of a response.

    `record` is that of the prompt, `row` of the response, which is logged. The
    last step of a finished response ends with its end token, as the output
    does: that, too, has the step's reward.
    """
    said = tokens[:row['tokens'] - row['finished']].tolist()
    ends = cutting.last_tokens(
        steps, said, functools.partial(self._text, record))
    if ends and row['finished']:
      ends[-1] = row['tokens'] - 1
    return ends

  def _steps(self, rows: Sequence[Mapping[str, Any]], shape: tuple[int, int]
             ) -> Steps:
    """The rewards of the steps of the logged responses; padding has none.

    Steps that end at one token are one: the worse counts.
    """
    reward, end = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for n, row in enumerate(rows):
      for at, chance in zip(
          row[_ENDS], row[f'{self._process.name}/steps'], strict=True):
        reward[n, at] = min(chance, reward[n, at]) if end[n, at] else chance
        end[n, at] = True
    return Steps(reward, end)

  def _decode(self, tokens: np.ndarray, length: int, record: Mapping[str, Any]
              ) -> rewards_lib.Response:
    """The response in i32[R] `tokens`, of which the first `length` count."""
    finished = int(tokens[length - 1]) in self._vocab.eos_ids
    return rewards_lib.Response(
        self._text(record, tokens[:length - finished].tolist()), length,
        finished)

  def _text(self, record: Mapping[str, Any], tokens: Sequence[int]) -> str:
    """What the tokens of a response say.

    The record may have tokens that `begun` it, at the end of the prompt. Where
    the prompt has opened the thinking, the text begins so, too.
    """
    opening = thinking.OPEN if record.get('opened') else ''
    return opening + self._vocab.decode([*record.get('begun', ()), *tokens])


def _log_rows(records, ids, responses, scores) -> list[dict[str, Any]]:
  return [
      {'id': int(i), 'task': record['task'], 'prompt': record['prompt'],
       'answer': record['answer'], 'response': response.text,
       'tokens': response.tokens, 'finished': response.finished}
      | scores.row(n)
      | ({'source': record['source']} if 'source' in record else {})
      for n, (i, record, response) in enumerate(zip(ids, records, responses))]


def learned_from(scored: Scored, mask_truncated: bool) -> np.ndarray | None:
  """Which of N responses the updates learn from, bool[N]; None: all."""
  if not mask_truncated:
    return scored.kept
  return scored.finished & (True if scored.kept is None else scored.kept)


def select_groups(rounds: Sequence[Scored], chosen: np.ndarray,
                  group: int) -> Scored:
  """One rollout of the `chosen` groups among those of several rollouts.

  The rows and counters of all are kept, for the log.
  """
  responses = (chosen[:, None] * group + np.arange(group)).reshape(-1)
  def pick(index, *trees):
    one = lambda *arrays: _jitted_pick(arrays[0].sharding)(index, *arrays)
    return jax.tree.map(one, *trees)

  prompts = pick(chosen, *(s.rollout.prompts for s in rounds))
  rollout = pick(
      responses, *(s.rollout._replace(prompts=()) for s in rounds))
  reward, parts, length, finished = jax.tree.map(
      lambda *arrays: np.concatenate(arrays)[responses],
      *((s.reward, s.parts, s.length, s.finished) for s in rounds))
  return Scored(rollout._replace(prompts=prompts), reward, parts, length,
                finished, sum_counters(s.counters for s in rounds),
                [row for s in rounds for row in s.rows],
                seconds=sum_counters(s.seconds for s in rounds))


@functools.cache
def _jitted_pick(out_shardings: jax.sharding.NamedSharding):
  """Rows of several arrays end to end: one program for all steps."""
  return jax.jit(lambda index, *arrays: jnp.concatenate(arrays)[index],
                 out_shardings=out_shardings)


def build(config, vocab: vocabs.Vocab, mesh, process: str | None = None
          ) -> RolloutScorer:
  """The scorer that `config.rewards` describes.

  Args:
    config: of a stage that samples.
    vocab: of the policy, to decode what it sampled.
    mesh: where reward models and a judge live.
    process: `config.rl.process`, the model whose rewards of steps are wanted.
  """
  rule_scorer = make_rule_scorer(config.rewards, config.rl.response_tokens)
  models = model_rewards.load(config.rewards, mesh, config.rules, config.seed)
  of_steps = {model.name: model for model in models
              if isinstance(model, rewards_lib.ProcessReward)}
  if process is not None and process not in of_steps:
    raise errors.expected(
        'rl.process', 'the name of a model of config.rewards.models that was '
        'trained on steps', process)
  return RolloutScorer(vocab, rule_scorer, models, of_steps.get(process))


def make_rule_scorer(rewards: Mapping[str, Any], max_tokens: int
               ) -> rewards_lib.Scorer:
  """The rule-based rewards of a section `config.rewards`.

  Args:
    rewards: its fields.
    max_tokens: the limit at which the sampler cuts a response.
  """
  models = rewards['models']
  of_rules = lambda weights: {name: weight for name, weight in weights.items()
                              if name not in models}
  tasks = {task: of_rules(weights)
           for task, weights in rewards['tasks'].items()}
  return rewards_lib.Scorer(
      of_rules(rewards['weights']), tasks, max_tokens=max_tokens,
      functions=dict(rewards['functions']), reserved=models,
      code=runner_lib.Limits(**{
          name: rewards['code'][name] for name in runner_lib.Limits._fields}),
      **{
          name: rewards[name] for name in (
              'overlong_cache_tokens', 'workers', 'timeout_seconds', 'answer',
              'form', 'languages', 'language')})


def check_weights(rewards, prompts: batches.PromptSet) -> None:
  """Refuses rewards that are 0 for every response: nothing is learned."""
  usual = {**dict.fromkeys(rewards.functions, 1.), **rewards.weights}
  tasks = {record['task'] for record in prompts.kinds}
  if not any(any({**usual, **rewards.tasks.get(task, {})}.values())
             for task in tasks):
    raise errors.expected(
        'rewards.weights', 'a weight other than 0: every reward would be 0, '
        'with nothing to learn', usual)


def check_tasks(rewards, prompts: batches.PromptSet) -> None:
  """Refuses weights of a task of which there are no prompts."""
  tasks = {record['task'] for record in prompts.kinds}
  for task in rewards.tasks:
    if task not in tasks:
      field = 'rewards.tasks.'
      raise errors.ConfigError(
          f'{field}{task}', 'config.data has no prompt of this task, but of '
          f'{sorted(tasks)}' + errors.nearest(task, tasks, f'config.{field}'))


def check_judge(rewards, prompts: batches.PromptSet) -> None:
  """Refuses records that only a judge can check where there is none."""
  if model_rewards.has_judge(rewards):
    return
  for record in prompts.kinds:
    if record['verifier'] == 'judge':
      raise errors.expected(
          'rewards.judge.init_from', 'a judge here or at rewards.judge.url: it '
          f'is the verifier of task {record["task"]!r}', None)


def check_code(rewards, prompts: batches.PromptSet) -> None:
  """Refuses records whose answers are programs where none can be run."""
  if any(map(accuracy.is_program, prompts.kinds)):
    sandbox.check(rewards.code.unsafe_subprocess)


def check_records(rewards, prompts: batches.PromptSet) -> None:
  """Refuses records that `config.rewards` cannot score."""
  check_judge(rewards, prompts)
  check_code(rewards, prompts)
  if length := model_rewards.length_reward(rewards):
    length.check(prompts.records)


def sum_counters(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
  """The sums of several rollouts' counters, zeros included."""
  total = collections.Counter()
  for counts in counters:
    total.update(counts)
  return dict(total)


def scorer_metrics(scored: Scored) -> dict[str, float]:
  """Counts of verifiers and judges, means of reward functions, seconds.

  The counts are of all responses, the means of those that are trained on.
  """
  counts = {f'verifier/{name}': count
            for name, count in scored.counters.items()}
  rows = scored.rows if scored.kept_rows is None else scored.kept_rows
  return counts | dict(scored.seconds) | {
      f'reward/{name}': mean for name, mean in (
          rewards_lib.column_means(rows).items())}


def step_metrics(steps: Steps | None) -> dict[str, float]:
  """The mean number of steps of a response, and the mean reward of a step."""
  if steps is None:
    return {}
  return {'process/steps': float(steps.end.sum(1).mean()),
          'process/reward': float(steps.reward.sum() / max(
              steps.end.sum(), 1))}


def describe_counters(counts: Mapping[str, int]) -> str:
  """The counts of `sum_counters` for a terminal, those that are not 0."""
  return 'verifier: ' + (', '.join(
      f'{name} {count}' for name, count in counts.items() if count)
                         or 'nothing failed')
