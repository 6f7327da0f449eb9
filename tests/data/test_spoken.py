"""What a chat template makes of a row holds what the row says, or it is refused.

The templates are in the manner of released ones; the names say whose.
"""

import time

import pytest

from r1jax import errors
from r1jax.data import chat
from r1jax.data import spoken
from r1jax.data import templates
from r1jax.data import vocabs

import chat_cases
import graded_rows
import small_vocabs

THOUGHT = '<think> 1+1=2 </think> 2'
END = '{{ eos_token }}'


def _turns(assistant, other='[{{ m.role }}]{{ m.content }}', ask='[assistant]',
           before=''):
  """A template of turns, by what it writes of the assistant's and of others'."""
  return (f'{before}{{% for m in messages %}}{{% if m.role == "assistant" %}}'
          f'[assistant]{assistant}{END}{{% else %}}{other}{{% endif %}}'
          f'{{% endfor %}}{{% if add_generation_prompt %}}{ask}{{% endif %}}')


_ASKS = '{{ "[assistant]<think>\\n" }}'  # for thoughts
_QWEN3 = _turns("""\
{%- set content, reasoning = m.content, '' -%}
{%- if m.reasoning_content is string %}
{%- set reasoning = m.reasoning_content -%}
{%- elif '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].rstrip('\\n')\
.split('<think>')[-1].lstrip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif %}
{%- if loop.last -%}
{{ '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' \
+ content.lstrip('\\n') }}
{%- else -%}{{ content }}{%- endif -%}""")

TEMPLATES = {
    'plain': _turns('{{ m.content }}'),
    'trims': _turns('{{ m.content | trim }}', '[user]{{ m.content | trim }}'),
    'qwen3': _QWEN3,
    'r1_distill': _turns("{{ m.content.split('</think>')[-1] }}"),
    'r1_distill_later': _turns(
        "{{ m.content.split('</think>')[-1] }}", ask=_ASKS),
    'asks_for_thoughts': _turns('{{ m.content }}', ask=_ASKS),
    'thoughts': _turns('<think>{{ m.reasoning_content }}</think>'
                       '{{ m.content }}'),
    'first_line': _turns("{{ m.content.split('\\n')[0] }}"),
    'first_signs': _turns('{{ m.content[:5] }}'),
    'replaces': _turns("{{ m.content | replace('+', 'plus') }}"),
    'upper': _turns('{{ m.content | upper }}'),
    'escapes': _turns('{{ m.content | e }}'),
    'json': _turns('{{ m.content | tojson }}', '[user]{{ m.content | tojson }}'),
    'unwraps': _turns("{{ m.content | replace('\\n', ' ') }}"),
    'nothing': _turns(''),
    'question': _turns('{{ messages[0].content }}'),
    'ends_early': _turns('{{ eos_token }}{{ m.content }}').replace(
        '{{ m.content }}' + END, '{{ m.content }}'),
    'no_tags': _turns("{{ m.content | replace('<think>', '') "
                      "| replace('</think>', '') }}"),
}


@pytest.fixture(name='found')
def _found(tmp_path):
  """Makes the vocabulary of a template, given or by name."""
  def make(template):
    path = small_vocabs.save(
        tmp_path, small_vocabs.tokenizer(), tokenizer_config={
            'chat_template': TEMPLATES.get(template, template),
            **chat_cases.TOKENS})
    return vocabs.load_vocab('huggingface', path)
  return make


def _row(answer, **fields):
  return [{'role': 'user', 'content': 'What is 1+1?'},
          {'role': 'assistant', 'content': answer, **fields}]


HELD = [
    ('plain', THOUGHT, {}), ('plain', ' \n2\n', {}), ('trims', ' \n2\n', {}),
    ('trims', f'\n{THOUGHT}\n', {}), ('plain', 'Say <think>.', {}),
    ('qwen3', THOUGHT, {}), ('qwen3', '<think>\n1+1=2\n</think>\n\n2', {}),
    ('qwen3', '<think>1+1=2</think>2', {}), ('qwen3', '2', {}),
    ('qwen3', '2', {'reasoning_content': '1+1=2'}),
    ('thoughts', '2', {'reasoning_content': ' 1+1=2\n'}),
    ('asks_for_thoughts', '<think>\n1+1=2\n</think>\n2', {}),
    ('json', '2', {}), ('r1_distill', '2', {}), ('escapes', '2', {}),
    ('plain', 'assistant', {}), ('plain', 'a\n\n b', {}),
]
DROPPED = [
    ('r1_distill', THOUGHT, {}, '<think> 1.1=2 </think>'),
    ('r1_distill', 'First. </think> Second. </think> 2', {}, 'First'),
    ('r1_distill_later', THOUGHT, {}, '<think> 1.1=2 </think>'),
    ('qwen3', 'Let me see. <think> 1+1=2 </think> 2', {}, 'Let me see'),
    ('qwen3', '<think> a </think> b </think> c', {}, ''),
    ('plain', '2', {'reasoning_content': '1+1=2'}, '1.1=2'),
    ('plain', '2', {'reasoning': '1+1=2'}, '1.1=2'),
    ('plain', '2', {'thinking': '1+1=2'}, '1.1=2'),
    ('thoughts', THOUGHT, {'reasoning_content': 'Sum'}, None),
    ('first_line', '1+1\n= 2', {}, '1.1 = 2'),
    ('first_signs', 'It is 2.', {}, 'It is 2'),
    ('replaces', '1+1', {}, '1.1'), ('upper', 'Two', {}, 'Two'),
    ('escapes', '1 < 2', {}, '1 < 2'), ('json', 'a\nb', {}, 'a b'),
    ('unwraps', 'a\nb', {}, 'a b'), ('nothing', '2', {}, '2'),
    ('question', '2', {}, '2'), ('no_tags', THOUGHT, {}, '<think>'),
]


@pytest.mark.parametrize('template, answer, fields', HELD)
def test_a_whole_answer_is_learned(found, template, answer, fields):
  vocab = found(template)
  ids, weights = chat_cases.conversation_tokens(vocab, _row(answer, **fields))
  said = vocab.decode([i for i, weight in zip(ids, weights) if weight])
  for word in answer.replace('<think>', ' ').replace('</think>', ' ').split():
    assert word in said
  for words in fields.values():
    assert words.strip() in said


@pytest.mark.parametrize('template, answer, fields, dropped', DROPPED)
def test_an_answer_that_is_not_whole_is_refused(
    found, template, answer, fields, dropped):
  if dropped is None:  # both are there
    chat_cases.conversation_tokens(found(template), _row(answer, **fields))
    return
  with pytest.raises(errors.ConfigError, match=(
      'config.data.template: the chat template of .* rewrites a conversation '
      f"of user, assistant: it drops .*{dropped}.* of what the assistant"
      )) as caught:
    chat_cases.conversation_tokens(found(template), _row(answer, **fields))
  assert '\n' not in str(caught.value)


def test_an_answer_behind_the_end_of_its_turn_is_refused(found):
  with pytest.raises(errors.ConfigError, match='vocab.eos: .*no end token'):
    chat_cases.conversation_tokens(found('ends_early'), _row('2'))


def test_an_answer_that_does_not_begin_as_it_is_asked_to_is_refused(found):
  with pytest.raises(errors.ConfigError, match='begins this answer with .2'):
    chat_cases.conversation_tokens(found('asks_for_thoughts'), _row('2'))


def test_each_turn_is_held_or_refused(found):
  """Earlier thinking is learned from, too; where it is read it may be gone."""
  messages = _row(THOUGHT) + _row('Yes.')
  assert chat_cases.conversation_tokens(found('plain'), messages)
  with pytest.raises(errors.ConfigError, match='rewrites'):
    chat_cases.conversation_tokens(found('qwen3'), messages)
  for template in ('plain', 'qwen3', 'r1_distill'):
    asked, said = chat_cases.answer_tokens(found(template), messages[:3], 'Yes.')
    assert asked and said
  last = '{{ messages[-1].content }}{{ eos_token }}'
  with pytest.raises(errors.ConfigError, match="'What is 1.1.' of what the us"):
    chat_cases.answer_tokens(found(last), _row('2')[:1] + _row('2'), '3')


def test_answers_that_differ_in_their_thinking_are_no_pair(found):
  """The row is named; no model learns from two equal answers."""
  records = [dict(prompt='What is 1+1?', place='pairs.jsonl:3', grades=[1, 0],
                  responses=[THOUGHT, '<think> I guess. </think> 2'])]
  encode = templates.pair_encoder('chat', found('r1_distill'))
  with pytest.raises(errors.ConfigError, match=(
      'data.template: pairs.jsonl:3: .*drops .<think> 1.1=2 </think>')):
    graded_rows.responses(records, encode, 100)
  rows = graded_rows.responses(
      records, templates.pair_encoder('chat', found('qwen3')), 100)
  assert len(rows.records) == 1


_SYSTEM = [{'role': 'system', 'content': 'Be brief.\n\nBe "kind". '},
           {'role': 'user', 'content': 'Hi'}]


@pytest.mark.parametrize('before, other', [
    ('', '[{{ m.role }}]{{ m.content }}'),
    # Merged into the question, trimmed, on one line, as JSON.
    ('', '{% if m.role == "user" %}[user]{{ messages[0].content }}\n\n'
     '{{ m.content }}{% endif %}'),
    ('{{ messages[0].content | trim }}', '{{ m.content }}'),
    ('', '{{ m.content.replace("\\n\\n", "\\n") }}'),
    ('', '{{ m.content | tojson }}')])
def test_a_system_message_is_in_the_text(found, before, other):
  assert 'Be brief.' in chat.prompt(
      found(_turns('{{ m.content }}', other, before=before)), _SYSTEM)


@pytest.mark.parametrize('other, messages, role', [
    ('{% if m.role == "user" %}{{ m.content }}{% endif %}', _SYSTEM, 'system'),
    ('{% if m.role == "user" %}{{ m.content[:1] }}{% endif %}', _SYSTEM[1:],
     'user'),
    ('{% if m.role == "user" %}{{ m.content }}{% endif %}',
     [*_SYSTEM[1:], {'role': 'tool', 'content': '42 degrees'}], 'tool'),
    # Python's way to write a list.
    ('{{ m.content }}', [{'role': 'user', 'content': [
        {'type': 'text', 'text': 'Hi'}]}], 'user')])
def test_a_message_that_a_template_drops_is_refused(
    found, other, messages, role):
  vocab = found(_turns('{{ m.content }}', other))
  for refused in (lambda: chat.prompt(vocab, messages),
                  lambda: chat_cases.answer_tokens(vocab, messages, '2')):
    with pytest.raises(errors.ConfigError,
                       match=f'data.template: .*drops .* of what the {role}'):
      refused()


def test_a_system_message_that_is_dropped_is_refused_before_the_data(found):
  vocab = found(_turns('{{ m.content }}', '{% if m.role == "user" %}'
                       '{{ m.content }}{% endif %}'))
  assert templates.prompt_function('chat', vocab)('Hi')
  with pytest.raises(errors.ConfigError, match="drops 'Be brief.' of what th"):
    templates.prompt_function('chat', vocab, 'Be brief.')


def test_examples_are_shown_with_their_thinking(found):
  shots = [('1+1?', THOUGHT)]
  assert THOUGHT in templates.prompt_function(
      'chat', found('plain'), None, shots)('2+2?')
  with pytest.raises(errors.ConfigError, match='drops .<think> 1.1=2'):
    templates.prompt_function('chat', found('r1_distill'), None, shots)


def test_a_switch_may_be_taken_out(found):
  vocab = found(_turns('{{ m.content }}',
                       '{{ m.content | replace("/no_think", "") }}'))
  assert chat.prompt(vocab, 'Hi /no_think there')


def test_tools_that_are_called_are_in_the_text(found):
  call = {'type': 'function', 'id': 'x1', 'function': {
      'name': 'weather', 'arguments': '{"city": "Aachen"}'}}
  messages = [{'role': 'user', 'content': 'Hot?'},
              {'role': 'assistant', 'content': None, 'tool_calls': [call]}]
  writes = _turns('{{ m.tool_calls[0].function | tojson }}')
  assert chat_cases.conversation_tokens(found(writes), messages)
  with pytest.raises(errors.ConfigError, match="drops 'weather' of what the a"):
    chat_cases.conversation_tokens(found(_turns('')), messages)
  name = _turns('{{ m.tool_calls[0].function.name }}')
  with pytest.raises(errors.ConfigError, match="drops 'city' of what the assi"):
    chat_cases.conversation_tokens(found(name), messages)


@pytest.mark.parametrize('fields', [
    {'reasoning_content': '1+1=2'}, {'thinking': '1+1=2'},
    {'tool_calls': [{'function': {'name': 'add'}}]}])
def test_only_a_chat_template_has_a_place_for_more_than_content(fields):
  with pytest.raises(errors.ConfigError, match="data.template: expected 'chat'"):
    chat.question_and_answer(_row('2', **fields))
  assert chat.question_and_answer(_row('2', reasoning_content='')) == (
      'What is 1+1?', '2')


def test_a_template_of_pairs_holds_the_prompt():
  mini = vocabs.load_vocab('sentencepiece', 'mini')
  with pytest.raises(errors.ConfigError, match='data.template: .*the prompt'):
    templates.pair_encoder('{{ "Answer:" }}', mini)
  assert templates.pair_encoder('Q: {prompt} A:', mini)('Hi', '2')


def test_where_the_answer_ends():
  message = {'role': 'assistant', 'content': ' <think>a</think>b '}
  assert spoken.not_learned('x<think>\n a </think> b.', 1, message) == ('', 22)
  assert spoken.not_learned('x<think>\n a </think> b.', 2, message) == (
      '<think>', 2)
  assert spoken.not_learned('aab', 0, {'content': 'ab'}) == ('', 3)


@pytest.mark.parametrize('added, message', [
    (' Thanks!', "adds 'Thanks!' to the end"), ('', None),
    (END + '<system>be nice' + END, None),  # behind the turn
])
def test_a_turn_ends_where_its_answer_does(found, added, message):
  vocab = found(_turns('{{ m.content }}' + added))
  if message:
    with pytest.raises(chat.Rewritten, match=message):
      chat_cases.conversation_tokens(vocab, _row('2'))
    return
  ids, weights = chat_cases.conversation_tokens(vocab, _row('2'))
  said = vocab.decode([i for i, weight in zip(ids, weights) if weight])
  assert '2' in said and 'nice' not in said


def test_words_within_others_are_no_longer_there(found):
  """A system message 'Be' is not found in the user's 'Be nice'."""
  vocab = found('{% for m in messages %}{% if m.role != "system" %}'
                '[{{ m.role }}]{{ m.content }}' + END + '{% endif %}'
                '{% endfor %}{% if add_generation_prompt %}[assistant]'
                '{% endif %}')
  talk = [{'role': 'user', 'content': 'Be nice'},
          {'role': 'assistant', 'content': '2'}]
  chat_cases.conversation_tokens(vocab, talk)
  with pytest.raises(chat.Rewritten, match="drops 'Be' of what the system"):
    chat_cases.conversation_tokens(vocab, [{'role': 'system', 'content': 'Be'}, *talk])


def test_repeated_tags_are_looked_for_within_bounds():
  answer = '<think>' * 2000 + '</think>' + '<think>' * 2000
  start = time.monotonic()
  assert spoken.not_learned(answer.replace('</think>', ''), 0, {
      'role': 'assistant', 'content': answer})[0]
  assert time.monotonic() - start < 10
