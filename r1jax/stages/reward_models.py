"""The models of `config.rewards`, of scores and a judge: loaded, compiled."""

import functools

import jax
import ml_collections
import numpy as np

from r1jax import config as config_lib
from r1jax import rewards as rewards_lib
from r1jax.data import templates
from r1jax.kernels import scores
from r1jax.parallel import mesh as mesh_lib
from r1jax.parallel import sharding
from r1jax.stages import ask
from r1jax.stages import origin
from r1jax.stages import setup as setup_lib
from r1jax.types import Prompts


def load(config, mesh) -> list[rewards_lib.Judge]:
  """The models that `config.rewards.models` names, on the mesh, and the judge.

  {name: {'init_from': ..., 'scores': ..., 'template': ..., 'batch': ...}}:
  `init_from` is the workdir of a preference stage, which tells how it was
  trained, or a released folder, that is asked in its chat template about whole
  responses; `scores` ('summary' or 'response') and `template` say otherwise;
  the weight is config.rewards.weights.<name>, 0 if it is not there, or that of
  config.rewards.tasks.<task>.
  config.rewards.judge (ask.make) tells what verifiers of kind 'judge' cannot.

  Raises:
    ConfigError: names the model whose field is wrong.
  """
  found = []
  if has_judge(config):
    weights, tasks = config.rewards.weights, config.rewards.get('tasks', {})
    found.append(rewards_lib.GenerativeJudge(
        ask.make(config.rewards.judge, 'rewards.judge', config, mesh),
        lambda task: tasks.get(task, {}).get('accuracy', weights.accuracy),
        retries=config.rewards.judge.retries,
        prompt=config.rewards.judge.prompt))
  for name, fields in config.rewards.get('models', {}).items():
    where = f'config.rewards.models.{name}.init_from'
    with config_lib.renamed('config.init_from', where):
      found.append(_load(config, mesh, name, fields))
  return found


def has_judge(config) -> bool:
  """Whether `config.rewards.judge` names one."""
  judge = config.rewards.get('judge')
  return judge is not None and (judge.init_from or judge.url) is not None


def _load(config, mesh, name, fields) -> rewards_lib.RewardModel:
  where = f'rewards.models.{name}'
  if not fields.init_from:
    raise config_lib.error(
        f'{where}.init_from', 'the workdir of a preference stage, or the '
        'folder of a released reward model', fields.init_from)
  if fields.batch < 1:
    raise config_lib.error(f'{where}.batch', 'at least 1', fields.batch)
  weights = config.rewards.weights.get(name, 0.)
  tasks = {task: own[name] for task, own in config.rewards.get(
      'tasks', {}).items() if name in own}
  own = ml_collections.ConfigDict(dict(
      model={}, init_from=fields.init_from, rules=config.rules,
      vocab=dict(kind='model', path='')))
  setup = setup_lib.make(own, mesh)
  if not setup.model.config.scalar:
    raise config_lib.error(f'{where}.init_from', 'a model of scores',
                           fields.init_from)
  saved = origin.saved(fields.init_from)
  data = saved.data if saved else {'template': templates.CHAT}
  which = fields.get('scores') or (
      saved.preference.scores if saved else 'response')
  config_lib.check_choice(f'{where}.scores', which, ('response', 'summary'))
  vocab = origin.vocabulary(own, setup.model.config)
  params = setup_lib.init_params(setup, fields.init_from, seed=0)
  score = jax.jit(functools.partial(_score, setup.model),
                  out_shardings=setup.batch)

  def asked(batch: rewards_lib.Asked) -> np.ndarray:
    return sharding.to_host(score(params, sharding.from_host(batch, mesh)))

  with config_lib.renamed('config.data', f'config.{where}'):
    encode = templates.encoder(
        fields.get('template') or data['template'], vocab, data.get('system'))
  return rewards_lib.RewardModel(
      name, lambda task: tasks.get(task, weights), encode, asked,
      summary=which == 'summary', max_len=setup.model.config.max_len,
      batch=fields.batch, shards=mesh_lib.shards(mesh))


def _score(model, params, batch: rewards_lib.Asked):
  prompts = Prompts(batch.tokens, batch.length, batch.length)
  return scores.of_responses(
      model, params, prompts, batch.response, batch.response_length)
