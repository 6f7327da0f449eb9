"""Tests of chat templates, against what transformers makes of them."""

import datetime

import pytest

from r1jax import errors
from r1jax.data import chat
from r1jax.data import vocabs

import chat_cases
import small_vocabs

_TURNS = chat_cases.MESSAGES['turns']


@pytest.fixture
def talking(tmp_path):
  """Returns a function that makes a vocabulary with a chat template."""
  def make(template, begin=True, **settings):
    (tmp_path / 'chat_template.jinja').write_text(template)
    path = small_vocabs.save(
        tmp_path, small_vocabs.tokenizer(begin=begin),
        tokenizer_config=settings | chat_cases.TOKENS)
    return vocabs.load_vocab('huggingface', path)
  return make


@pytest.mark.parametrize('name, messages', chat_cases.EXPECTED)
def test_text_is_that_of_transformers(talking, name, messages):
  found = talking(chat_cases.TEMPLATES[name])
  expected = chat_cases.EXPECTED[name, messages]
  messages = chat_cases.MESSAGES[messages]
  if expected is None:
    with pytest.raises(errors.ConfigError, match='data.template: .*refuse'):
      chat.render(found, messages, add_generation_prompt=True)
  else:
    assert expected == chat.render(
        found, messages, add_generation_prompt=True)


def test_a_question_and_a_system_message(talking):
  found = talking(chat_cases.TEMPLATES['chatml'])
  assert chat.prompt(found, 'Hi', 'Be "brief" & 好.') == (
      chat_cases.EXPECTED['chatml', 'system'])
  assert chat.prompt(found, 'Hi').count('Be kind.') == 1


def test_a_template_may_ask_for_the_date(talking):
  found = talking("{{ strftime_now('%Y') }}")
  assert chat.render(found, []) == str(datetime.date.today().year)


@pytest.mark.parametrize('files, expected', [
    (dict(chat_template='x'), 'x'),
    (dict(chat_template=[{'name': 'tool_use', 'template': 'y'},
                         {'name': 'default', 'template': 'z'}]), 'z'),
    (dict(chat_template=[{'name': 'tool_use', 'template': 'y'}]), None),
    ({}, None)])
def test_older_folders_keep_the_template_in_their_settings(
    tmp_path, files, expected):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(),
                           tokenizer_config=files | chat_cases.TOKENS)
  assert vocabs.load_vocab('huggingface', path).chat_template == expected
  (tmp_path / 'chat_template.jinja').write_text('own file')
  assert vocabs.load_vocab('huggingface', path).chat_template == 'own file'


@pytest.mark.parametrize('template, message', [
    ("{{ raise_exception('no system message') }}", 'no system message'),
    ('{% for m in messages %}', 'refuses a conversation of user'),
    ("{{ messages[0].nothing + 'x' }}", 'nothing'),
    ("{{ none + 'x' }}", 'NoneType'),
    ("{{ messages.append(1) }}", 'append'),  # the sandbox
    ("{{ ''.__class__.__mro__ }}", 'unsafe'),
])
def test_a_templates_own_error_is_one_line(talking, template, message):
  with pytest.raises(errors.ConfigError,
                     match=f'data.template: .*{message}'):
    chat.prompt(talking(template), 'Hi')


def test_a_vocabulary_that_does_not_converse_says_what_to_set():
  with pytest.raises(errors.ConfigError,
                     match='data.template.*mini.model.*chat_template.jinja'):
    chat.prompt(vocabs.load_vocab('sentencepiece', 'mini'), 'Hi')


def _spoken(found, messages):
  ids, weights = chat_cases.conversation_tokens(found, messages)
  assert len(ids) == len(weights)
  said = [i for i, weight in zip(ids, weights) if weight]
  return ids, weights, ''.join(
      found.decode([i]) or found.tokens['eos_token'] for i in said)


@pytest.mark.parametrize('name', ['chatml', 'llama3', 'gemma'])
def test_the_assistant_says_its_words_and_the_end(talking, name):
  found = talking(chat_cases.TEMPLATES[name])
  messages = [{'role': 'user', 'content': 'Hi'},
              {'role': 'assistant', 'content': 'How many clips?'},
              {'role': 'user', 'content': 'What is 12 * 34?'},
              {'role': 'assistant', 'content': '408'}]
  ids, weights, spoken = _spoken(found, messages)
  assert spoken == 'How many clips?<|end|>408<|end|>'
  prompt = found.encode(chat.prompt(found, 'Hi'))
  assert ids[:len(prompt)] == prompt
  assert not any(weights[:len(prompt)])
  assert ids[-1] == found.eos_id  # a line break after it no one says
  whole = found.encode(chat.render(found, messages))
  assert ids == whole[:len(ids)]


def test_a_prompt_is_cut_into_tokens_as_for_sampling(talking):
  """The first word of an answer would merge with the prompt's last space."""
  found = talking("{% for m in messages %}{{ m.content + ' ' }}"
                  "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
                  '{% endfor %}')
  messages = [{'role': 'user', 'content': 'How many'},
              {'role': 'assistant', 'content': 'clips'}]
  ids, _, spoken = _spoken(found, messages)
  prompt = found.encode('How many ')
  assert ids[:len(prompt)] == prompt
  assert found.encode('How many clips')[:len(prompt)] != prompt
  assert spoken == 'clips <|end|>'


def test_no_space_is_put_before_a_later_part(tmp_path):
  """Tokenizers that begin a text with a space do so once."""
  small_vocabs.spaced_model(str(tmp_path / 'tokenizer'))
  (tmp_path / 'tokenizer_config.json').write_text('{"bos_token": "<s>"}')
  (tmp_path / 'chat_template.jinja').write_text(
      "{% for m in messages %}{% if m.role == 'user' %}"
      '{{ bos_token }}Q: {{ m.content }}\n\nA:{% else %} {{ m.content }} '
      '{{ eos_token }}{% endif %}{% endfor %}')
  found = vocabs.load_vocab('sentencepiece', str(tmp_path))
  messages = [{'role': 'user', 'content': 'sold'},
              {'role': 'assistant', 'content': '48 clips'}] * 2
  ids, weights = chat_cases.conversation_tokens(found, messages)
  assert ids == found.encode(chat.render(found, messages))
  said = [i for i, w in zip(ids, weights) if w]
  assert said == [*found.encode('48 clips '), found.eos_id] * 2


def test_what_follows_the_end_may_differ(talking):
  """Llama 3's first template asks for an answer even after the last one."""
  found = talking('{% for m in messages %}[{{ m.role }}] {{ m.content }}'
                  '{{ eos_token }}{% endfor %}[assistant] ')
  messages = [{'role': 'user', 'content': 'Hi'},
              {'role': 'assistant', 'content': '4 clips'}] * 2
  ids, _, spoken = _spoken(found, messages)
  assert spoken == '4 clips<|end|>' * 2
  assert found.decode(ids) == '[user] Hi[assistant] 4 clips' * 2


def test_each_end_token_ends_a_turn(tmp_path):
  template = ('{% for m in messages %}{{ m.role }}: {{ m.content }}'
              '<|pad|>{% endfor %}assistant: ')
  found = vocabs.load_vocab('huggingface', small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(),
      tokenizer_config={'eos_token': '<|end|>', 'chat_template': template},
      generation_config={'eos_token_id': [0, 2]}))
  ids, weights = chat_cases.conversation_tokens(found, [
      {'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': '7'}])
  assert [i for i, w in zip(ids, weights) if w] == [*found.encode('7'), 2]


@pytest.mark.parametrize('name, messages, message', [
    ('r1', [*_TURNS, {'role': 'assistant', 'content': 'Bye'}],
     'data.template: .*rewrites.*user, assistant'),
    ('chatml', _TURNS, "data.task: .*the last; received .*'role': 'user'"),
    ('chatml', [], r'data.task: .*received \[\]'),
    ('chatml', 'text', 'data.task: .*received text'),
    ('chatml', None, 'data.task: .*received None'),
])
def test_what_cannot_be_taught_is_refused(talking, name, messages, message):
  with pytest.raises(errors.ConfigError, match=message):
    chat_cases.conversation_tokens(talking(chat_cases.TEMPLATES[name]), messages)


def test_a_turn_that_does_not_end_is_refused(talking):
  found = talking('{% for m in messages %}{{ m.content }}{% endfor %}')
  with pytest.raises(errors.ConfigError, match="vocab.eos: .*'72'.*<.end"):
    chat_cases.conversation_tokens(found, [
        {'role': 'user', 'content': 'Hi '},
        {'role': 'assistant', 'content': '72'}])
