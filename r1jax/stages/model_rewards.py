"""Rewards from models: reward models, and a judge where no rule can decide.

A judge is a function from texts to replies (rewards.judge.Ask): a model on this
mesh, or one behind an endpoint.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple
import zlib

import jax
import ml_collections
import numpy as np

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.data import chat
from r1jax.data import templates
from r1jax.data import thinking
from r1jax.kernels import values
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.rewards import endpoint
from r1jax.rewards import judge as judge_lib
from r1jax.rewards import lengths
from r1jax.rewards import names
from r1jax.rewards import score as score_lib
from r1jax.stages import model_source
from r1jax.stages import rollouts
from r1jax.stages import train_state
from r1jax.types import Prompts


def load(rewards, mesh: jax.sharding.Mesh, rules: sharding.Rules, seed: int
         ) -> list[rewards_lib.GroupReward]:
  """Judge, reward models and length reward of a section `config.rewards`.

  Args:
    rewards: the section.
    mesh, rules: where their parameters go.
    seed: of a judge's random streams.

  Raises:
    ConfigError: names the model whose field is wrong.
  """
  names.check('rewards.models', rewards.models, score_lib.NAMES)
  loaded = []
  if has_judge(rewards):
    section = rewards.judge
    loaded.append(rewards_lib.GenerativeJudge(
        make_ask(section, 'rewards.judge', mesh, rules, seed),
        weight_of(rewards, 'accuracy'), retries=section.retries,
        prompt=section.prompt))
  for name, section in rewards.models.items():
    loaded.append(load_reward_model(
        section, name, weight_of(rewards, name), mesh, rules))
  length = length_reward(rewards)
  return [*loaded, length] if length else loaded


def length_reward(rewards) -> rewards_lib.LengthReward | None:
  """The reward of lengths, where one has a weight."""
  if not any(section.get(lengths.LENGTH) for section in (
      rewards.weights, *rewards.tasks.values())):
    return None
  return rewards_lib.LengthReward(
      rewards.length_rule, weight_of(rewards, lengths.LENGTH),
      rewards.target_tokens, rewards.length_slope)


def has_judge(rewards) -> bool:
  """Whether `config.rewards.judge` names one."""
  judge = rewards.judge
  return (judge.init_from or judge.url) is not None


def weight_of(rewards, part: str) -> Callable[[str], float]:
  """The weight of a part of the reward, as a function of the task."""
  weight = rewards.weights.get(part, 0.)
  tasks = {task: weights[part] for task, weights in rewards.tasks.items()
           if part in weights}
  return lambda task: tasks.get(task, weight)


def load_reward_model(section, name: str, weight: Callable[[str], float],
                      mesh: jax.sharding.Mesh, rules: sharding.Rules
                      ) -> rewards_lib.RewardModel | rewards_lib.ProcessReward:
  """A reward model: the workdir of a preference stage, or a published model.

  A workdir records how the model was trained. A published model scores whole
  responses in its own chat template. `scores` and `template` override both. One
  trained on labelled steps is a process reward model, the only kind that `cut`
  and `combine` are of.

  Args:
    section: `config.rewards.models.<name>`.
    name: of the part of the reward.
    weight: task -> the weight of this score in the reward.
    mesh, rules: where the parameters go.
  """
  field = f'rewards.models.{name}'
  if not section.init_from:
    raise errors.expected(
        f'{field}.init_from', 'the workdir of a preference stage, or the '
        'folder of a published reward model', section.init_from)
  if section.batch < 1:
    raise errors.expected(f'{field}.batch', 'at least 1', section.batch)
  source = model_source.find(section.init_from, f'{field}.init_from')
  shape = source.model_config()
  if not shape.scalar:
    raise errors.expected(f'{field}.init_from', 'a reward model (with a scalar '
                          'head)', section.init_from)
  placed = train_state.place_model(shape, mesh, rules)
  trained = _trained(source, f'{field}.init_from')
  trained = trained._replace(
      template=section.template or trained.template,
      scores=section.scores or trained.scores)
  errors.check_choice(
      f'{field}.scores', trained.scores, ('response', 'summary'))
  params = train_state.init_params(placed, source, seed=0)

  def on_host(function):
    score = jax.jit(functools.partial(function, placed.model),
                    out_shardings=placed.batch)
    def scored(batch):
      distributed.check_stopped()
      return sharding.to_host(score(params, sharding.from_host(batch, mesh)))
    return scored

  load = _of_steps if trained.loss == 'stepwise' else _of_responses
  return load(section, name, weight, trained, source, on_host, shape,
              sharding.batch_shards(mesh))


def _of_responses(section, name, weight, trained, source, on_host, shape,
                  shards: int) -> rewards_lib.RewardModel:
  """A reward model of whole responses, or of their summaries."""
  field = f'rewards.models.{name}'
  for setting in ('cut', 'combine'):
    if section[setting] is not None:
      raise errors.expected(
          f'{field}.{setting}', 'None: this model was not trained on steps '
          "(preference.loss 'stepwise')", section[setting])
  with errors.section('data', at=field):
    encode = _without(source.padding(), templates.pair_encoder(
        trained.template, source.vocabulary(shape.vocab), trained.system))
  if trained.scores == 'response':
    _check_thinking(encode, f'{field}.scores')
  return rewards_lib.RewardModel(
      name, weight, encode, on_host(_score),
      summary=trained.scores == 'summary', max_len=shape.max_len,
      batch=section.batch, shards=shards)


def _of_steps(section, name, weight, trained, source, on_host, shape,
              shards: int) -> rewards_lib.ProcessReward:
  """A process reward model."""
  field = f'rewards.models.{name}'
  if trained.scores != 'response':
    raise errors.expected(
        f'{field}.scores', "'response': the steps are those of the thinking",
        trained.scores)
  cut, combination = section.cut or 'lines', section.combine or 'min'
  with errors.section('data', at=field):
    encode = templates.step_encoder(
        trained.template, source.vocabulary(shape.vocab), trained.system,
        trained.separator)
  return rewards_lib.ProcessReward(
      name, weight, encode, on_host(_step_chances), cut=cut,
      combination=combination, max_len=shape.max_len,
      batch=-(-section.batch // shards) * shards)


class _Trained(NamedTuple):
  """How a reward model was trained, and is to be asked."""
  template: str
  system: str | None
  scores: str  # response | summary
  loss: str | None = None
  separator: str | None = None  # of steps


def _trained(source: model_source.ModelSource, field: str) -> _Trained:
  """How the reward model of a source was trained.

  Raises:
    ConfigError: of `field`; the workdir is not that of a preference stage.
  """
  stage = source.stage_config()
  if stage is None:
    return _Trained(templates.CHAT, None, 'response')
  data, preference = (
      part if isinstance(part, ml_collections.ConfigDict) else {}
      for part in (stage.get('data'), stage.get('preference')))
  template, scores = data.get('template'), preference.get('scores')
  if not (isinstance(template, str) and isinstance(scores, str)):
    raise errors.expected(
        field, 'the workdir of a preference stage, with data.template and '
        'preference.scores in its config.json', source.path)
  return _Trained(template, data.get('system'), scores, preference.get('loss'),
                  preference.get('separator'))


def _without(padding: int | None, encode: templates.Encode
             ) -> templates.Encode:
  """As `encode`, of an answer all but the padding at its end.

  What was never trained is left: an answer that is nothing but its end.
  """
  def encoded(prompt, answer):
    asked, said = encode(prompt, answer)
    while len(said) > 1 and said[-1] == padding:
      said = said[:-1]
    return asked, said
  return encoded


def _check_thinking(encode: templates.Encode, field: str) -> None:
  """Refuses to score whole responses where the template drops thinking."""
  try:
    encode('1?', f'{thinking.THOUGHT.format("2")} 3')
  except chat.Rewritten as problem:
    raise errors.ConfigError(
        field, f"expected 'summary', or another template: {problem.message}"
        ) from problem


def _score(model, params, batch: rewards_lib.ScoreBatch):
  prompts = Prompts(batch.tokens, batch.length, id=None)  # nothing is sampled
  return values.of_responses(
      model, params, prompts, batch.response, batch.response_length)


def _step_chances(model, params, batch: rewards_lib.StepBatch):
  return jax.nn.sigmoid(values.of_steps(model, params, batch.tokens, batch.end))


def make_ask(section, field: str, mesh: jax.sharding.Mesh,
             rules: sharding.Rules, seed: int) -> judge_lib.Ask:
  """The judge that a section names.

  It is a model on this mesh (`init_from`), or one behind an OpenAI-compatible
  endpoint (`url`, `model`), which only the main process asks.

  Args:
    section: `config.<field>`.
    field: its path, for errors.
    mesh, rules: where its parameters go.
    seed: of its random streams.

  Raises:
    ConfigError: names the field of the section.
  """
  if (section.init_from is None) == (section.url is None):
    raise errors.expected(
        f'{field}.init_from', f'a model, or an endpoint in config.{field}.url '
        '(one of the two)', section.init_from)
  if section.init_from is not None:
    source = model_source.find(section.init_from, f'{field}.init_from')
    return _Model(section, field, source, mesh, rules, seed)
  if section.model is None:
    raise errors.expected(
        f'{field}.model', 'the name that it is served under', None)
  served = endpoint.Endpoint(
      section.url, section.model, key_variable=section.key_variable,
      max_tokens=section.response_tokens, temperature=section.temperature,
      timeout_seconds=section.timeout_seconds, parallel=section.batch,
      field=field)

  def ask(texts: Sequence[str], attempt: int) -> list[str | None]:
    return distributed.in_main(lambda: served(texts, attempt))
  return ask


class _Model:
  """A model on this mesh that replies to texts; all processes ask alike."""

  def __init__(self, section: Mapping[str, Any], field: str,
               source: model_source.ModelSource, mesh: jax.sharding.Mesh,
               rules: sharding.Rules, seed: int):
    shape = source.model_config()
    tokens = section.prompt_tokens + section.response_tokens
    self._placed = train_state.place_model(
        shape, mesh, rules,
        longest=(f'{field}.response_tokens (+ {field}.prompt_tokens)', tokens))
    self._vocab = source.vocabulary(shape.vocab)
    self._params = train_state.init_params(self._placed, source, seed=0)
    with errors.section('data', at=field):
      self._fill = templates.prompt_function(section.template, self._vocab)
    bos = self._vocab.bos_id
    self._begin = [] if bos is None or section.template == templates.CHAT else [
        bos]
    self._size, self._seed = section.prompt_tokens, seed
    shards = sharding.batch_shards(mesh)
    self._batch = -(-section.batch // shards) * shards
    self._settings = rollouts.Settings(
        group=1, response_tokens=section.response_tokens,
        eos_ids=self._vocab.eos_ids, temperature=section.temperature)

  def __call__(self, texts: Sequence[str], attempt: int) -> list[str | None]:
    """A reply to each text; None to one of more than `prompt_tokens`, and to
    one that the template does not hold.

    A reply cut at `response_tokens` is '', malformed: its verdict may have been
    still to come.
    """
    settings = self._settings._replace(
        temperature=judge_lib.attempt_temperature(
            self._settings.temperature, attempt))
    prompts = list(map(self._tokens, texts))
    fit = [n for n, ids in enumerate(prompts) if 0 < len(ids) <= self._size]
    replies = [None] * len(texts)
    for index in batches.whole_batches(len(fit), self._batch):
      distributed.check_stopped()
      chosen = [fit[n] for n in index]
      batch = self._reply(settings, [prompts[n] for n in chosen],
                          [texts[n] for n in chosen], attempt)
      for n, reply in zip(chosen, batch):
        replies[n] = reply
    return replies

  def _tokens(self, text: str) -> list[int]:
    """The judge's prompt; [] where its template drops some of the text."""
    try:
      return self._begin + self._vocab.encode(self._fill(text))
    except chat.Rewritten:
      return []

  def _reply(self, settings: rollouts.Settings, prompts: list[list[int]],
             texts: list[str], attempt: int) -> list[str]:
    """Replies to a batch; the random stream of each is named by its text."""
    tokens, length = batches.pad_right(prompts, self._size)
    names = [zlib.crc32(text.encode('utf-8', 'replace')) >> 1 for text in texts]
    batch = batches.PromptBatch(tokens, length, np.array(names, np.int32), ())
    rollout = rollouts.Sampler(self._placed, settings)(
        self._params, batch, self._seed, attempt)
    tokens, mask = map(sharding.to_host, (rollout.tokens, rollout.mask))
    replies = []
    for ids, length in zip(tokens, mask.sum(1)):
      ended = int(ids[length - 1]) in settings.eos_ids
      replies.append(
          self._vocab.decode(ids[:length - 1].tolist()) if ended else '')
    return replies
