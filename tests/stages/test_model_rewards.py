"""A model that is asked, as a function from texts to texts."""

import functools
import json
import types

import jax
import jax.numpy as jnp
import ml_collections
import pytest

import tiny
from experiments import machine_sections
from experiments import r1
from experiments import reward_sections
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import chat
from r1jax.data import templates
from r1jax.data import verdicts
from r1jax.mini import lessons
from r1jax.parallel import sharding
from r1jax.rewards import endpoint
from r1jax.stages import model_rewards
from r1jax.stages import model_source
from r1jax.stages import rollouts
from r1jax.stages import train_state

TEXTS = ['What is 1+1?', 'Name the capital of France.', '法国的首都是哪里？']


def _section(**fields):
  return reward_sections.judge(**dict(
      init_from='mini', template='mini', prompt_tokens=24, response_tokens=32,
      batch=2) | fields)


def _make(sizes=None, **fields):
  devices = jax.devices()[:1 if sizes is None else 8]
  return model_rewards.make_ask(
      _section(**fields), 'rewards.judge',
      sharding.make_mesh(sizes or {}, devices), machine_sections.RULES, seed=0)


@functools.cache
def _mini():
  return _make()


def test_a_reply_depends_on_its_text_alone():
  """And on the attempt; not on its neighbours, batches or the mesh."""
  one = _mini()
  replies = one(TEXTS, 0)
  assert all(isinstance(reply, str) and reply.strip() for reply in replies[1:])
  assert one(TEXTS[::-1], 0) == replies[::-1]
  again = one(TEXTS * 2, 1)
  assert again[:3] == again[3:] and again[:3] != replies and again[0].strip()
  assert _make(dict(data=2, fsdp=2, tensor=2), batch=5)(TEXTS, 1) == again[:3]


def test_a_reply_that_is_cut_is_none_but_empty():
  assert _mini()(TEXTS[:2], 0) == ['', ' Paris']  # the first goes on and on
  tokens = len(_mini()._vocab.encode(' Paris'))  # its end is one more
  assert _make(response_tokens=tokens)(TEXTS[1:2], 0) == ['']


def test_the_end_of_a_reply_is_no_part_of_it(monkeypatch):
  asked = _mini()
  monkeypatch.setattr(asked._vocab, 'decode', list)
  (first, *rest), = asked(TEXTS[1:2], 0)
  assert not {first, *rest} & set(asked._vocab.eos_ids)


def test_what_is_too_long_gets_no_reply():
  replies = _mini()(['so ' * 100, TEXTS[1]], 0)
  assert replies[0] is None and replies[1]
  assert _mini()(['so ' * 100], 0) == [None] and _mini()([], 0) == []


def test_a_prompt_may_fill_its_room(monkeypatch):
  asked = _mini()
  size = len(asked._tokens(TEXTS[1]))
  monkeypatch.setattr(
      asked, '_reply', lambda settings, prompts, texts, attempt: texts)
  for room, reply in ((size, TEXTS[1]), (size - 1, None)):
    monkeypatch.setattr(asked, '_size', room)
    assert asked(TEXTS[1:2], 0) == [reply]


def _unbuilt(monkeypatch, bos=3, **fields):
  """A judge without parameters, whose tokens are the lengths of texts; and
  the calls of its sampler, which replies 7 and the end token."""
  calls = []
  source = types.SimpleNamespace(
      model_config=tiny.config, vocabulary=lambda pieces: types.SimpleNamespace(
          bos_id=bos, eos_ids=(1,), encode=lambda text: [len(text)],
          decode=str))
  for name in ('place_model', 'init_params'):
    monkeypatch.setattr(train_state, name, lambda *_, **__: None)
  monkeypatch.setattr(
      templates, 'prompt_function', lambda template, vocab: lambda text: text)

  def sampler(placed, settings):
    del placed
    def sample(params, batch, seed, stream):
      del params
      calls.append((settings.temperature, seed, stream))
      tokens = jnp.array([[7, 1, 0]] * len(batch.tokens))
      return types.SimpleNamespace(tokens=tokens, mask=tokens > 0)
    return sample

  monkeypatch.setattr(rollouts, 'Sampler', sampler)
  return model_rewards._Model(
      _section(**fields), 'rewards.judge', source, sharding.make_mesh(
          {}, jax.devices()[:1]), machine_sections.RULES, 5), calls


def test_only_a_chat_template_has_the_begin_token_itself(monkeypatch):
  for bos, template, begin in ((3, 'mini', [3]), (3, 'chat', []),
                               (None, 'mini', [])):
    asked, _ = _unbuilt(monkeypatch, bos, template=template)
    assert asked._tokens('four') == begin + [4]


def test_each_attempt_draws_anew(monkeypatch):
  asked, calls = _unbuilt(monkeypatch)
  for attempt in range(3):
    assert asked(['a'], attempt) == ['[7]']
  assert calls == [(0., 5, 0), (.5, 5, 1), (.5, 5, 2)]


def test_an_endpoint_is_asked_as_the_section_says(monkeypatch):
  made = []

  class Fake:
    def __init__(self, *args, **kwargs):
      made.append((args, kwargs))

    def __call__(self, texts, attempt):
      return [json.dumps([text, attempt]) for text in texts]

  monkeypatch.setattr(endpoint, 'Endpoint', Fake)
  asked = _make(init_from=None, url='http://a/v1', model='m', batch=3,
                temperature=.7, key_variable='KEY', timeout_seconds=5.)
  assert asked(['x'], 2) == ['["x", 2]']
  (args, kwargs), = made
  assert args == ('http://a/v1', 'm') and kwargs['parallel'] == 3
  assert kwargs['max_tokens'] == 32 and kwargs['field'] == 'rewards.judge'
  assert kwargs['temperature'] == .7 and kwargs['key_variable'] == 'KEY'
  assert kwargs['timeout_seconds'] == 5.


def test_a_judge_is_not_asked_what_its_template_drops(monkeypatch):
  asked = _mini()
  def fill(text, whole=asked._fill):
    if 'Name' in text:
      raise chat.Rewritten('data.template', 'it drops this')
    return whole(text)

  replies = asked(TEXTS, 0)
  monkeypatch.setattr(asked, '_fill', fill)
  assert asked(TEXTS, 0) == [replies[0], None, replies[2]]


def _encode(drops, *told):
  """A template that says what it was told; some drop thinking."""
  def encode(prompt, answer):
    del prompt
    if drops and '<think>' in answer:
      raise chat.Rewritten('data.template', 'it drops this')
    return told, [answer, 9]  # 9 is the padding
  return encode


def _load(monkeypatch, stage=None, scalar=True, drops=False, **fields):
  """(arguments, settings) of the reward model of a section, unbuilt."""
  source = types.SimpleNamespace(
      path='x', model_config=lambda: tiny.config(scalar=scalar, max_len=77),
      stage_config=lambda: stage, padding=lambda: 9,
      vocabulary=lambda pieces: f'{pieces} words')
  monkeypatch.setattr(model_source, 'find', lambda *_: source)
  monkeypatch.setattr(train_state, 'place_model', lambda *_: (
      types.SimpleNamespace(model=None, batch=None)))
  monkeypatch.setattr(train_state, 'init_params', lambda *_, **__: None)
  monkeypatch.setattr(
      templates, 'pair_encoder', functools.partial(_encode, drops))
  monkeypatch.setattr(
      rewards_lib, 'RewardModel', lambda *args, **kwargs: (args, kwargs))
  return model_rewards.load_reward_model(
      reward_sections.reward_model(**dict(init_from='x') | fields), 'taste', 'weight',
      sharding.make_mesh(dict(data=8)), machine_sections.RULES)


STAGE = ml_collections.ConfigDict(dict(
    data=dict(template='mini', system='Be brief.'),
    preference=dict(scores='summary')))


@pytest.mark.parametrize('stage, fields, told, summary', [
    (None, {}, ('chat', None), False),  # a published model
    (STAGE, {}, ('mini', 'Be brief.'), True),
    (STAGE, dict(template='own', scores='response'), ('own', 'Be brief.'),
     False), (None, dict(scores='summary'), ('chat', None), True)])
def test_a_reward_model_reads_as_it_was_trained_or_is_told(
    monkeypatch, stage, fields, told, summary):
  (name, weight, encode, _), settings = _load(
      monkeypatch, stage, batch=5, **fields)
  assert (name, weight) == ('taste', 'weight')
  assert settings == dict(summary=summary, max_len=77, batch=5, shards=8)
  template, system = told
  assert encode('?', 'a') == ((template, '30 words', system), ['a'])


@pytest.mark.parametrize('fields, match', [
    (dict(init_from=None), 'init_from: expected the workdir'),
    (dict(batch=0), 'batch: expected at least 1'),
    (dict(scalar=False), 'init_from: expected a reward model'),
    (dict(scores='all'), 'scores: expected'),
    (dict(drops=True), "scores: expected 'summary'")])
def test_mistakes_of_a_reward_model_are_named(monkeypatch, fields, match):
  with pytest.raises(errors.ConfigError, match=f'rewards.models.taste.{match}'):
    _load(monkeypatch, **fields)
  assert _load(monkeypatch, drops=True, scores='summary')


def test_judge_and_reward_models_have_the_weights_of_their_parts(monkeypatch):
  rewards = reward_sections.rewards(
      dict(accuracy=.5, taste=2.), {'t': dict(taste=1., accuracy=3.)},
      dict(taste=reward_sections.reward_model()))
  monkeypatch.setattr(model_rewards, 'make_ask', lambda *given: given)
  monkeypatch.setattr(
      model_rewards, 'load_reward_model', lambda *given: given)
  monkeypatch.setattr(
      rewards_lib, 'GenerativeJudge', lambda *args, **kwargs: (args, kwargs))
  given = lambda weight: [weight(task) for task in 'tu']
  (section, name, weight, *_), = model_rewards.load(rewards, 'mesh', 'rules', 5)
  assert (section, name) == (rewards.models.taste, 'taste')
  assert given(weight) == [1., 2.]
  rewards.judge.update(url='http://a/v1', retries=7, prompt='{task}?')
  ((ask, weight), settings), _ = model_rewards.load(
      rewards, 'mesh', 'rules', 5)
  assert ask == (rewards.judge, 'rewards.judge', 'mesh', 'rules', 5)
  assert given(weight) == [3., .5]
  assert settings == dict(retries=7, prompt='{task}?')
  assert given(model_rewards.weight_of(rewards, 'absent')) == [0., 0.]
  rewards.models = {'accuracy': reward_sections.reward_model()}
  with pytest.raises(errors.ConfigError, match='rewards.models.accuracy'):
    model_rewards.load(rewards, 'mesh', 'rules', 5)


@pytest.mark.parametrize('dropped', [True, False])
def test_a_template_that_drops_thinking_scores_summaries_alone(dropped):
  def encode(prompt, answer):
    if dropped and '<think>' in answer:
      raise chat.Rewritten('data.template', "it drops '<think> 2 </think>'")
    return [1], [2]

  check = lambda: model_rewards._check_thinking(encode, 'rewards.models.a.scores')
  if dropped:
    with pytest.raises(errors.ConfigError, match=(
        "config.rewards.models.a.scores: expected 'summary', .*drops '<think>")):
      check()
  else:
    check()


def test_a_published_model_s_score_is_read_before_its_padding(tmp_path):
  """Where the padding is the end token, as transformers does."""
  encode = lambda prompt, answer: ([4, 1, 4], [*map(int, answer), 4])
  for padding, answer, said in (
      (4, '1', [1]), (4, '144', [1]), (4, '141', [1, 4, 1]), (4, '', [4]),
      (5, '1', [1, 4]), (None, '1', [1, 4])):
    got = model_rewards._without(padding, encode)('?', answer)
    assert got == ([4, 1, 4], said)
  (tmp_path / 'config.json').write_text('{"pad_token_id": 4}')
  source = model_source.ModelSource('released', str(tmp_path), 'init_from')
  assert source.padding() == 4
  assert source._replace(kind='stage').padding() is None


REFUSAL = 'rewards.judge.url', 'it answers 401'


@pytest.mark.parametrize('main', [True, False])
def test_every_process_is_told_that_an_endpoint_refuses(monkeypatch, main):
  def refuse(self, texts, attempt):
    raise errors.ConfigError('rewards.judge.url', 'it answers 401')

  told = []
  monkeypatch.setattr(endpoint.Endpoint, '__call__', refuse)
  monkeypatch.setattr(model_rewards.distributed, 'is_main', lambda: main)
  monkeypatch.setattr(model_rewards.distributed, 'gather', lambda value: (
      told.append(value) or [[None, REFUSAL], value]))
  asked = _make(init_from=None, url='http://a/v1', model='m')
  monkeypatch.setattr(model_rewards.distributed.jax, 'process_count', lambda: 2)
  with pytest.raises(errors.ConfigError, match='it answers 401'):
    asked(['x'], 0)
  assert told == [[None, REFUSAL if main else None]]


@pytest.mark.parametrize('fields, match', [
    (dict(init_from=None), 'config.rewards.judge.init_from: .*one of the two'),
    (dict(url='http://a/v1'), 'config.rewards.judge.init_from'),
    (dict(init_from=None, url='http://a/v1'), 'config.rewards.judge.model'),
    (dict(init_from='/nowhere'), 'config.rewards.judge.init_from'),
    (dict(template='chat'), 'config.rewards.judge.template'),
    (dict(response_tokens=9999), 'response_tokens.*expected at most'),
])
def test_mistakes_are_named(fields, match):
  with pytest.raises(errors.ConfigError, match=match):
    _make(**fields)


def test_the_packaged_helper_judges_problems_well():
  """Held-out ones, of 344 of which it told 335; facts it knows less of."""
  asked, replies = zip(*(
      pair for pair in lessons.lessons('judge', 'heldout', 128, 0)
      if 'The answer is' in pair[0]))
  said = _make(**r1.judged().rewards.judge.to_dict() | {'batch': 32})(asked, 0)
  same = [reply is not None and verdicts.parse_verdict(reply) == verdicts.parse_verdict(right)
          for reply, right in zip(said, replies)]
  assert len(same) > 80 and sum(same) >= .93 * len(same)
