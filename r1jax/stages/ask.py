"""Who a stage asks for help: a model here, or one that is served elsewhere.

A judge, or an editor, is a function from texts to texts (rewards.judge.Ask).
This makes one of a section of the config.
"""

from collections.abc import Sequence
import zlib

import ml_collections
import numpy as np

from r1jax import config as config_lib
from r1jax.data import templates
from r1jax.parallel import distributed
from r1jax.parallel import mesh as mesh_lib
from r1jax.parallel import sharding
from r1jax.rewards import endpoint
from r1jax.rewards import judge
from r1jax.stages import origin
from r1jax.stages import rollouts
from r1jax.stages import setup as setup_lib
from r1jax.types import Prompts


_LATER = 0.5  # least temperature of a second attempt, or it were the first


def make(section, where: str, config, mesh) -> judge.Ask:
  """The one that `section`, which is `config.<where>`, names.

  `init_from` is a model here (origin.find), or `url` and `model` one behind an
  OpenAI-compatible endpoint, which the main process alone asks.

  Raises:
    ConfigError: names the field of the section.
  """
  if (section.init_from is None) == (section.url is None):
    raise config_lib.error(
        f'{where}.init_from', f'a model, or an endpoint in config.{where}.url '
        '(one of the two)', section.init_from)
  if section.init_from is not None:
    return _Model(section, where, config, mesh)
  if section.model is None:
    raise config_lib.error(
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
      except config_lib.ConfigError as error:
        problem = str(error)  # the others wait to be told, too
    said, problem = distributed.gather([said, problem])[0]
    if problem:
      raise config_lib.ConfigError(problem)
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
    with config_lib.renamed('config.init_from', f'config.{where}.init_from'):
      self._setup = setup_lib.make(own, mesh)
      self._vocab = origin.vocabulary(own, self._setup.model.config)
      self._params = setup_lib.init_params(
          self._setup, section.init_from, seed=0)
    with config_lib.renamed('config.data', f'config.{where}'):
      self._fill = templates.frame(section.template, self._vocab)
    bos = self._vocab.bos_id
    self._begin = [] if bos is None or section.template == templates.CHAT else [
        bos]
    self._size, self._seed = section.prompt_tokens, config.seed
    shards = mesh_lib.shards(mesh)
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
    for start in range(0, len(fit), self._batch):
      # The last batch is filled up with texts that were asked before.
      chosen = [fit[n % len(fit)] for n in range(start, start + self._batch)]
      said = self._reply(settings, [asked[n] for n in chosen],
                         [texts[n] for n in chosen], attempt)
      for n, reply in zip(chosen, said):
        replies[n] = reply
    return replies

  def _reply(self, settings: rollouts.Settings, asked: list[list[int]],
             texts: list[str], attempt: int) -> list[str]:
    """Replies to a batch; the random stream of each is named by its text."""
    tokens = np.zeros((len(asked), self._size), np.int32)
    for row, ids in zip(tokens, asked):
      row[:len(ids)] = ids
    names = [zlib.crc32(text.encode('utf-8', 'replace')) >> 1 for text in texts]
    prompts = Prompts(tokens, np.array([len(ids) for ids in asked], np.int32),
                      np.array(names, np.int32))
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
