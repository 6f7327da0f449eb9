"""Tests of the prompt templates."""

import pytest

from r1jax import errors
from r1jax.data import chat
from r1jax.data import templates
from r1jax.data import vocabs

import chat_cases
import small_vocabs


def test_r1_zero_is_the_papers():
  assert templates.apply('r1_zero', 'What is 1+1?') == (
      'A conversation between User and Assistant. The user asks a question, '
      'and the Assistant solves it. The assistant first thinks about the '
      'reasoning process in the mind and then provides the user with the '
      'answer. The reasoning process and answer are enclosed within <think> '
      '</think> and <answer> </answer> tags, respectively, i.e., <think> '
      'reasoning process here </think> <answer> answer here </answer>. '
      'User: What is 1+1?. Assistant:')


@pytest.mark.parametrize('name', templates.TEMPLATES)
def test_a_prompt_is_kept_whole_and_no_space_ends_the_text(name):
  prompt = 'Let {x} = {0}, 100 %.\n\\frac{1}{2}'
  text = templates.apply(name, prompt)
  assert text.count(prompt) == 1
  assert text == text.rstrip()


def test_small_templates():
  assert templates.apply('mini', 'Q') == 'User: Q\nAssistant:'
  assert templates.apply('plain', 'Q') == 'Q'


def test_unknown_name_is_refused_with_the_nearest():
  mini = vocabs.load_vocab('sentencepiece', 'mini')
  for refused in (lambda: templates.apply('r1zero', 'Q'),
                  lambda: templates.prompt_function('r1zero', mini)):
    with pytest.raises(errors.ConfigError,
                       match='config.data.template.*did you mean r1_zero'):
      refused()


@pytest.mark.parametrize('name', templates.TEMPLATES)
def test_a_frame_is_a_template_by_name(name):
  mini = vocabs.load_vocab('sentencepiece', 'mini')
  fill = templates.prompt_function(name, mini)
  assert fill('Q') == templates.apply(name, 'Q')
  with pytest.raises(errors.ConfigError, match='data.system: .*None'):
    templates.prompt_function(name, mini, 'Be brief.')


def test_examples_and_an_instruction_stand_around_the_question(tmp_path):
  mini = vocabs.load_vocab('sentencepiece', 'mini')
  shots = [('1+1?', '2'), ('2+2?', '4')]
  fill = templates.prompt_function('mini', mini, None, shots, 'Think.')
  assert fill('3+3?') == (
      'User: 1+1?\nAssistant: 2\nUser: 2+2?\nAssistant: 4\n'
      'User: 3+3?\nThink.\nAssistant:')
  found = vocabs.load_vocab('huggingface', small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(), tokenizer_config={
          'chat_template': chat_cases.TEMPLATES['chatml'],
          **chat_cases.TOKENS}))
  fill = templates.prompt_function('chat', found, 'Hi', shots[:1], 'Think.')
  text = fill('3+3?')
  assert text == chat.render(found, [
      dict(role=role, content=content) for role, content in (
          ('system', 'Hi'), ('user', '1+1?'), ('assistant', '2'),
          ('user', '3+3?\nThink.'))], add_generation_prompt=True)


def test_the_chat_frame_is_the_vocabularys(tmp_path):
  found = vocabs.load_vocab('huggingface', small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(), tokenizer_config={
          'chat_template': chat_cases.TEMPLATES['chatml'],
          **chat_cases.TOKENS}))
  hi = chat_cases.MESSAGES['system'][0]['content']
  assert templates.prompt_function('chat', found, hi)('Hi') == (
      chat_cases.EXPECTED['chatml', 'system'])


@pytest.mark.parametrize('template, system, message', [
    ('gemma', 'Be brief.', 'data.template: .*roles must alternate'),
    (None, None, "data.template: 'chat' needs a chat template")])
def test_a_chat_frame_is_refused_before_the_first_question(
    tmp_path, template, system, message):
  found = vocabs.load_vocab('huggingface', small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(), tokenizer_config={
          'chat_template': chat_cases.TEMPLATES.get(template),
          **chat_cases.TOKENS}))
  with pytest.raises(errors.ConfigError, match=message):
    templates.prompt_function('chat', found, system)
