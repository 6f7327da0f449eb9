"""Chat templates in the styles of released models, and what they must give.

EXPECTED is what transformers 5.23 gave: `apply_chat_template(messages,
chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=True)` of
a tokenizer whose special tokens are TOKENS. It changes with a case only.
"""

from r1jax.data import chat
from r1jax.data import pieces

TOKENS = {'bos_token': '<|begin|>', 'eos_token': '<|end|>',
          'pad_token': '<|end|>'}

_CHATML = """\
{%- if messages[0].role != 'system' -%}
    {{- '<|begin|>system\\nBe kind.' + eos_token + '\\n' }}
{%- endif %}
{% for message in messages %}
    {%- generation %}
    {{- '<|begin|>' + message['role'] + '\\n' + message.content }}
    {%- endgeneration %}
    {{- eos_token }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|begin|>assistant' }}
{% endif %}"""

_LLAMA3 = """\
{{- bos_token }}
{%- if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{%- for message in messages %}
    {%- set content = '[' ~ message['role'] ~ ']\\n\\n' ~ message.content | trim
        ~ '<|end|>' %}
    {{- content }}
    {%- if loop.index == 7 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]\\n\\n' }}{% endif %}"""

_GEMMA = """\
{{ bos_token }}
{%- for message in messages -%}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must alternate, received ' + message.role) }}
    {%- endif -%}
    {%- set role = 'model' if message.role == 'assistant' else message.role -%}
    {{ '<start>' + role + '\n' + message.content | trim + eos_token + '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start>model\n' }}
{%- endif -%}
"""

_R1 = """\
{% set ns = namespace(system='', first=true) %}
{%- for message in messages if message.role == 'system' -%}
  {%- set ns.system = ns.system + message.content -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}
    {{ '<User>' + message['content'] }}
  {%- elif message.role == 'assistant' -%}
    {{ '<Assistant>' + message.content.split('</think>')[-1] + eos_token }}
  {%- endif -%}
{%- endfor -%}
{% if add_generation_prompt %}{{ '<Assistant><think>\\n' }}{% endif %}"""

_JSON = """\
{% for message in messages %}
  {{ message | tojson }}
  {{ [message.role] | tojson(indent=1) }}
{% endfor %}
{{ documents is none }}|{{ undefined_name }}|{{ strftime_now('') }}
"""

TEMPLATES = {'chatml': _CHATML, 'llama3': _LLAMA3, 'gemma': _GEMMA, 'r1': _R1,
             'json': _JSON}

MESSAGES = {
    'question': [{'role': 'user', 'content': ' What is <1> + 1?\n'}],
    'system': [{'role': 'system', 'content': 'Be "brief" & 好.'},
               {'role': 'user', 'content': 'Hi'}],
    'turns': [{'role': 'user', 'content': 'Hi'},
              {'role': 'assistant', 'content': '<think>\nx\n</think>\n\nYes!',
               'name': None},
              {'role': 'user', 'content': 'Bye  '}],
}

EXPECTED = {  # None: the template refuses
    ('chatml', 'question'): (
        '<|begin|>system\nBe kind.<|end|>\n<|begin|>user\n'
        ' What is <1> + 1?\n<|end|>\n<|begin|>assistant\n'),
    ('chatml', 'system'): (
        '<|begin|>system\nBe "brief" & 好.<|end|>\n<|begin|>user\n'
        'Hi<|end|>\n<|begin|>assistant\n'),
    ('chatml', 'turns'): (
        '<|begin|>system\nBe kind.<|end|>\n<|begin|>user\nHi<|end|>\n'
        '<|begin|>assistant\n<think>\nx\n</think>\n\nYes!<|end|>\n'
        '<|begin|>user\nBye  <|end|>\n<|begin|>assistant\n'),
    ('llama3', 'question'): (
        '<|begin|>[user]\n\nWhat is <1> + 1?<|end|>[assistant]\n\n'),
    ('llama3', 'system'): (
        '<|begin|>[system]\n\nBe "brief" & 好.<|end|>[user]\n\n'
        'Hi<|end|>[assistant]\n\n'),
    ('llama3', 'turns'): (
        '<|begin|>[user]\n\nHi<|end|>[assistant]\n\n<think>\nx\n</think>\n'
        '\nYes!<|end|>[user]\n\nBye<|end|>[assistant]\n\n'),
    ('gemma', 'question'): (
        '<|begin|><start>user\nWhat is <1> + 1?<|end|>\n<start>model\n'),
    ('gemma', 'system'): None,
    ('gemma', 'turns'): (
        '<|begin|><start>user\nHi<|end|>\n<start>model\n<think>\nx\n'
        '</think>\n\nYes!<|end|>\n<start>user\nBye<|end|>\n<start>model\n'),
    ('r1', 'question'): (
        '<|begin|><User> What is <1> + 1?\n<Assistant><think>\n'),
    ('r1', 'system'): '<|begin|>Be "brief" & 好.<User>Hi<Assistant><think>\n',
    ('r1', 'turns'): (
        '<|begin|><User>Hi<Assistant>\n\n'
        'Yes!<|end|><User>Bye  <Assistant><think>\n'),
    ('json', 'question'): (
        '  {"role": "user", "content": " What is <1> + 1?\\n"}\n  [\n'
        ' "user"\n]\nTrue||'),
    ('json', 'system'): (
        '  {"role": "system", "content": "Be \\"brief\\" & 好."}\n  [\n'
        ' "system"\n]\n  {"role": "user", "content": "Hi"}\n  [\n "user"\n'
        ']\nTrue||'),
    ('json', 'turns'): (
        '  {"role": "user", "content": "Hi"}\n  [\n "user"\n]\n'
        '  {"role": "assistant", "content": '
        '"<think>\\nx\\n</think>\\n\\nYes!"}\n'
        '  [\n "assistant"\n]\n  {"role": "user", "content": "Bye  "}\n'
        '  [\n "user"\n]\nTrue||'),
}


def conversation_tokens(vocab, messages):
  """A conversation's ids, and which of them are the assistant's."""
  found = pieces.encode(vocab, chat.conversation_pieces(vocab, messages))
  return sum(found, []), [
      bool(n % 2) for n, ids in enumerate(found) for _ in ids]


def answer_tokens(vocab, messages, answer):
  """The ids of messages, as for sampling, and of an answer to them."""
  return pieces.encode(vocab, chat.answer_pieces(vocab, messages, [answer]))
