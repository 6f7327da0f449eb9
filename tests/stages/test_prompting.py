"""How a model is asked: as in its training, wherever that is written."""

import json

import pytest

import small_vocabs
import tiny
from r1jax import errors
from r1jax.models import hf_export
from r1jax.stages import model_source
from r1jax.stages import prompting

PIECES = 400
CHATML = ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|end|>"
          '{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}')


def _folder(path, template=CHATML, begin=False):
  """A Hugging Face folder of a tiny model with a vocabulary."""
  hf_export.save_folder(
      str(path), tiny.config(vocab=PIECES), tiny.params(vocab=PIECES))
  settings = dict(eos_token=small_vocabs.END)
  if template is not None:
    settings['chat_template'] = template
  small_vocabs.save(path, small_vocabs.tokenizer(begin),
                    tokenizer_config=settings)
  return str(path)


def _workdir(path, init_from, **data):
  """A stage's workdir, as far as it says how the model is asked."""
  (path / 'checkpoints').mkdir(parents=True)
  (path / 'config.json').write_text(json.dumps(dict(
      stage='rl', init_from=init_from, model={}, vocab=dict(kind='model'),
      **dict(data=data) if data else {})))
  return str(path)


def _of(init_from):
  source = model_source.find(init_from, '--model')
  return prompting.of(source, source.model_config().vocab)


def test_a_published_model_has_its_own_chat_template(tmp_path):
  asked = _of(_folder(tmp_path / 'model', begin=True))
  text = asked._replace(system='Be brief.').text('Why?', [('Who?', 'I.')])
  assert text == ('<system>Be brief.<|end|><user>Who?<|end|><assistant>I.'
                  '<|end|><user>Why?<|end|><assistant>')
  assert asked.vocab.bos_id is not None  # which the template would write
  assert asked.tokens(text) == asked.vocab.encode(text)
  assert [asked.vocab.token(i) for i in asked.vocab.eos_ids] == ['<|end|>']


def test_one_without_continues_a_text_after_its_first_token(tmp_path):
  asked = _of(_folder(tmp_path / 'model', template=None, begin=True))
  assert asked.template == 'plain' and asked.text('Once') == 'Once'
  assert asked.tokens('Once') == [asked.vocab.bos_id,
                                  *asked.vocab.encode('Once')]


def test_the_models_of_the_mini_world_know_its_frame():
  assert _of('mini').text('1 + 1 = ?') == 'User: 1 + 1 = ?\nAssistant:'


def test_a_run_is_asked_as_it_was_trained(tmp_path):
  model = _folder(tmp_path / 'model')
  zero = _of(_workdir(tmp_path / 'zero', model, template='r1_zero'))
  assert zero.text('1 + 1?').endswith('User: 1 + 1?. Assistant:')
  assert zero.text('b', [('a', '<answer> 1 </answer>')]).count('User: ') == 2
  chat = _of(_workdir(tmp_path / 'chat', model, template='chat', system='Add.',
                      instruction='Think.'))
  assert chat.text('1 + 1?') == (
      '<system>Add.<|end|><user>1 + 1?\nThink.<|end|><assistant>')
  assert chat.text('2?', [('1?', 'A.')]) == (
      '<system>Add.<|end|><user>1?\nThink.<|end|><assistant>A.<|end|>'
      '<user>2?\nThink.<|end|><assistant>')


def test_a_stage_of_documents_is_asked_as_what_it_began_from(tmp_path):
  model = _folder(tmp_path / 'model')
  zero = _workdir(tmp_path / 'zero', model, template='r1_zero')
  for name, init_from, template in (
      ('a', zero, 'r1_zero'), ('b', model, 'chat')):
    for suffix, data in (('1', dict(template=None)), ('2', {})):
      asked = _of(_workdir(tmp_path / (name + suffix), init_from, **data))
      assert asked.template == template


def test_a_template_file_is_that_of_the_run(tmp_path):
  file = tmp_path / 'mine.txt'
  file.write_text('Q: {prompt} A:')
  workdir = _workdir(tmp_path / 'run', _folder(tmp_path / 'model'),
                     template=str(file))
  assert _of(workdir).text('x') == 'Q: x A:'
  file.unlink()
  with pytest.raises(errors.ConfigError, match='^--model: no such file: .*mine'):
    _of(workdir)


@pytest.mark.parametrize('data', [
    dict(template=3), dict(template='chat', system=['x'])])
def test_a_config_of_another_type_is_refused(tmp_path, data):
  workdir = _workdir(tmp_path / 'run', _folder(tmp_path / 'model'), **data)
  with pytest.raises(errors.ConfigError, match='^--model: expected texts as'):
    _of(workdir)


def test_a_system_message_needs_a_template_that_has_one():
  asked = _of('mini')._replace(system='Be brief.')
  with pytest.raises(errors.ConfigError, match='^--system: .*None with'):
    asked.checked('--system')
