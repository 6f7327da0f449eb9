"""The models of `config.rewards`, of scores and a judge: loaded, compiled."""

from collections.abc import Sequence
import functools
import zlib

import jax
import ml_collections
import numpy as np

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.data import templates
from r1jax.kernels import values
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.rewards import endpoint
from r1jax.rewards import judge
from r1jax.stages import model_source
from r1jax.stages import rollouts
from r1jax.stages import train_state
from r1jax.types import Prompts

def load_model_rewards(config, mesh) -> list[rewards_lib.ModelReward]:
  """The models that `config.rewards.models` names, on the mesh, and the judge.

  {name: {'init_from': ..., 'scores': ..., 'template': ..., 'batch': ...}}:
  `init_from` is the workdir of a preference stage, which tells how it was
  trained, or a released folder, that is asked in its chat template about whole
  responses; `scores` ('summary' or 'response') and `template` say otherwise;
  the weight is config.rewards.weights.<name>, 0 if it is not there, or that of
  config.rewards.tasks.<task>.
  config.rewards.judge (make_ask) tells what verifiers of kind 'judge' cannot.

  Raises:
    ConfigError: names the model whose field is wrong.
  """
  found = []
  if has_judge(config):
    weights, tasks = config.rewards.weights, config.rewards.get('tasks', {})
    found.append(rewards_lib.GenerativeJudge(
        make_ask(config.rewards.judge, 'rewards.judge', config, mesh),
        lambda task: tasks.get(task, {}).get('accuracy', weights.accuracy),
        retries=config.rewards.judge.retries,
        prompt=config.rewards.judge.prompt))
  for name, fields in config.rewards.get('models', {}).items():
    where = f'config.rewards.models.{name}.init_from'
    with errors.renamed('config.init_from', where):
      found.append(_load(config, mesh, name, fields))
  return found


def has_judge(config) -> bool:
  """Whether `config.rewards.judge` names one."""
  judge = config.rewards.get('judge')
  return judge is not None and (judge.init_from or judge.url) is not None


def _load(config, mesh, name, fields) -> rewards_lib.RewardModel:
  where = f'rewards.models.{name}'
  if not fields.init_from:
    raise errors.expected(
        f'{where}.init_from', 'the workdir of a preference stage, or the '
        'folder of a released reward model', fields.init_from)
  if fields.batch < 1:
    raise errors.expected(f'{where}.batch', 'at least 1', fields.batch)
  weights = config.rewards.weights.get(name, 0.)
  tasks = {task: own[name] for task, own in config.rewards.get(
      'tasks', {}).items() if name in own}
  own = ml_collections.ConfigDict(dict(
      model={}, init_from=fields.init_from, rules=config.rules,
      vocab=dict(kind='model', path='')))
  setup = train_state.place_model(own, mesh)
  if not setup.model.config.scalar:
    raise errors.expected(f'{where}.init_from', 'a model of scores',
                           fields.init_from)
  saved = model_source.saved_config(fields.init_from)
  data = saved.data if saved else {'template': templates.CHAT}
  which = fields.get('scores') or (
      saved.preference.scores if saved else 'response')
  errors.check_choice(f'{where}.scores', which, ('response', 'summary'))
  vocab = model_source.vocabulary(own, setup.model.config)
  params = train_state.init_params(setup, fields.init_from, seed=0)
  score = jax.jit(functools.partial(_score, setup.model),
                  out_shardings=setup.batch)

  def asked(batch: rewards_lib.Asked) -> np.ndarray:
    return sharding.to_host(score(params, sharding.from_host(batch, mesh)))

  with errors.renamed('config.data', f'config.{where}'):
    encode = templates.pair_encoder(
        fields.get('template') or data['template'], vocab, data.get('system'))
  return rewards_lib.RewardModel(
      name, lambda task: tasks.get(task, weights), encode, asked,
      summary=which == 'summary', max_len=setup.model.config.max_len,
      batch=fields.batch, shards=sharding.batch_shards(mesh))


def _score(model, params, batch: rewards_lib.Asked):
  prompts = Prompts(batch.tokens, batch.length, batch.length)
  return values.of_responses(
      model, params, prompts, batch.response, batch.response_length)


_LATER = 0.5  # least temperature of a second attempt, or it were the first


def make_ask(section, where: str, config, mesh) -> judge.Ask:
  """The one that `section`, which is `config.<where>`, names.

  `init_from` is a model here (model_source.resolve), or `url` and `model` one behind an
  OpenAI-compatible endpoint, which the main process alone asks.

  Raises:
    ConfigError: names the field of the section.
  """
  if (section.init_from is None) == (section.url is None):
    raise errors.expected(
        f'{where}.init_from', f'a model, or an endpoint in config.{where}.url '
        '(one of the two)', section.init_from)
  if section.init_from is not None:
    return _Model(section, where, config, mesh)
  if section.model is None:
    raise errors.expected(
        f'{where}.model', 'the name that it is served under', None)
  served = endpoint.Endpoint(
      section.url, section.model, key_variable=section.key_variable,
      max_tokens=section.response_tokens, temperature=section.temperature,
      timeout_seconds=section.timeout_seconds, parallel=section.batch,
      field=where)

  def ask(texts: Sequence[str], attempt: int) -> list[str | None]:
    said = problem = None
    if distributed.is_main():
      try:
        said = served(texts, attempt)
      except errors.ConfigError as error:
        problem = str(error)  # the others wait to be told, too
    said, problem = distributed.gather([said, problem])[0]
    if problem:
      raise errors.ConfigError(problem)
    return said
  return ask


class _Model:
  """A model on this mesh; every process must ask it alike."""

  def __init__(self, section, where: str, config, mesh):
    own = ml_collections.ConfigDict(dict(
        model={}, init_from=section.init_from, rules=config.rules,
        vocab=dict(kind='model', path=''), rl=dict(
            prompt_tokens=section.prompt_tokens,
            response_tokens=section.response_tokens)))
    with errors.renamed('config.init_from', f'config.{where}.init_from'):
      self._setup = train_state.place_model(own, mesh)
      self._vocab = model_source.vocabulary(own, self._setup.model.config)
      self._params = train_state.init_params(
          self._setup, section.init_from, seed=0)
    with errors.renamed('config.data', f'config.{where}'):
      self._fill = templates.prompt_function(section.template, self._vocab)
    bos = self._vocab.bos_id
    self._begin = [] if bos is None or section.template == templates.CHAT else [
        bos]
    self._size, self._seed = section.prompt_tokens, config.seed
    shards = sharding.batch_shards(mesh)
    self._batch = -(-section.batch // shards) * shards
    self._settings = rollouts.Settings(
        group=1, response_tokens=section.response_tokens,
        eos_ids=self._vocab.eos_ids, temperature=section.temperature)
    self._sample = rollouts.sampling(self._setup.batch)

  def __call__(self, texts: Sequence[str], attempt: int) -> list[str | None]:
    """A reply to each text; None to one of more than `prompt_tokens`.

    One that is cut at `response_tokens` is '', malformed: of a thought without
    its end nobody knows what it would have come to.
    """
    settings = self._settings
    if attempt:
      settings = settings._replace(
          temperature=max(settings.temperature, _LATER))
    asked = [self._begin + self._vocab.encode(self._fill(text))
             for text in texts]
    fit = [n for n, ids in enumerate(asked) if len(ids) <= self._size]
    replies = [None] * len(texts)
    for index in batches.whole_batches(len(fit), self._batch):
      chosen = [fit[n] for n in index]
      said = self._reply(settings, [asked[n] for n in chosen],
                         [texts[n] for n in chosen], attempt)
      for n, reply in zip(chosen, said):
        replies[n] = reply
    return replies

  def _reply(self, settings: rollouts.Settings, asked: list[list[int]],
             texts: list[str], attempt: int) -> list[str]:
    """Replies to a batch; the random stream of each is named by its text."""
    tokens, length = batches.pad_right(asked, self._size)
    names = [zlib.crc32(text.encode('utf-8', 'replace')) >> 1 for text in texts]
    prompts = Prompts(tokens, length, np.array(names, np.int32))
    rollout = self._sample(
        self._setup.model, settings, self._params,
        sharding.from_host(prompts, self._setup.mesh), np.uint32(self._seed),
        np.uint32(attempt))
    said, mask = map(sharding.to_host, (rollout.tokens, rollout.mask))
    found = []
    for ids, length in zip(said, mask.sum(1)):
      ended = int(ids[length - 1]) in settings.eos_ids
      found.append(
          self._vocab.decode(ids[:length - 1].tolist()) if ended else '')
    return found


def read_prompts(config, vocab, split: str, count: int):
  """The prompts of a split of `config.data`, with what was left out counted."""
  from r1jax.data import sources  # reasoning_gym, and TensorFlow:
  from r1jax.data import tasks  # only where a dataset is built
  data, shots = config.data, config.data.get('shots', 0)
  examples = sources.examples(
      data.examples, shots, data.seed) if shots else ()
  prompts, counts = tasks.prompt_set(
      data.task, vocab, config.rl.prompt_tokens, split=split,
      template=data.template, system=data.get('system'),
      examples=examples, instruction=data.get('instruction'), seed=data.seed,
      num_prompts=count, options=data.options.to_dict())
  if counts['too_long']:
    print(f'{counts["too_long"]} prompts of split {split!r} are longer than '
          f'config.rl.prompt_tokens = {config.rl.prompt_tokens} and left out')
  undecided = [record['task'] for record in prompts.records
               if record['verifier'] == 'judge']
  if undecided and not has_judge(config):
    raise errors.expected('rewards.judge.init_from', 'a judge (or its url), '
                           f'for the verifier of task {undecided[0]!r} is one',
                           None)
  return prompts


def make_scorer(config) -> rewards_lib.Scorer:
  """The scorer of `config.rewards`, with the sampler's token limit."""
  fields = config.rewards.to_dict()
  fields.pop('judge', None)
  learned = fields.pop('models', {})
  for name in learned:
    if name in fields.get('functions', {}):
      raise errors.ConfigError(f'config.rewards.functions.{name}: a model of '
                               'config.rewards.models has this name')
  ruled = lambda weights: {name: weight for name, weight in weights.items()
                           if name not in learned}
  tasks = {task: ruled(own) for task, own in fields.pop('tasks', {}).items()}
  return rewards_lib.Scorer(ruled(fields.pop('weights')), tasks,
                            max_tokens=config.rl.response_tokens, **fields)
