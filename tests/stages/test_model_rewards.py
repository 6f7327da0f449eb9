"""A model that is asked, as a function from texts to texts."""

import functools
import json

import jax
import pytest

from experiments import common
from experiments import r1
from experiments import sections
from r1jax import errors
from r1jax.data import chat
from r1jax.data import verdicts
from r1jax.mini import lessons
from r1jax.parallel import sharding
from r1jax.rewards import endpoint
from r1jax.stages import model_rewards
from r1jax.stages import model_source

TEXTS = ['What is 1+1?', 'Name the capital of France.', '法国的首都是哪里？']


def _section(**fields):
  return sections.judge(**dict(
      init_from='mini', template='mini', prompt_tokens=24, response_tokens=32,
      batch=2) | fields)


def _make(sizes=None, **fields):
  devices = jax.devices()[:1 if sizes is None else 8]
  return model_rewards.make_ask(
      _section(**fields), 'rewards.judge',
      sharding.make_mesh(sizes or {}, devices), common.RULES, seed=0)


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


def test_what_is_too_long_gets_no_reply():
  replies = _mini()(['so ' * 100, TEXTS[1]], 0)
  assert replies[0] is None and replies[1]
  assert _mini()(['so ' * 100], 0) == [None] and _mini()([], 0) == []


def test_an_endpoint_is_asked_as_the_section_says(monkeypatch):
  made = []

  class Fake:
    def __init__(self, *args, **kwargs):
      made.append((args, kwargs))

    def __call__(self, texts, attempt):
      return [json.dumps([text, attempt]) for text in texts]

  monkeypatch.setattr(endpoint, 'Endpoint', Fake)
  asked = _make(init_from=None, url='http://a/v1', model='m', batch=3)
  assert asked(['x'], 2) == ['["x", 2]']
  (args, kwargs), = made
  assert args == ('http://a/v1', 'm') and kwargs['parallel'] == 3
  assert kwargs['max_tokens'] == 32 and kwargs['field'] == 'rewards.judge'


def test_a_judge_is_not_asked_what_its_template_drops(monkeypatch):
  asked = _mini()
  def fill(text, whole=asked._fill):
    if 'Name' in text:
      raise chat.Rewritten('data.template', 'it drops this')
    return whole(text)

  replies = asked(TEXTS, 0)
  monkeypatch.setattr(asked, '_fill', fill)
  assert asked(TEXTS, 0) == [replies[0], None, replies[2]]


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
