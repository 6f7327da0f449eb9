"""Tests of the tasks: what a source becomes as arrays of tokens."""

import json
import re

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from r1jax import errors
from r1jax.data import chat
from r1jax.data import tasks
from r1jax.data import templates
from r1jax.data import vocabs
from r1jax.mini import corpus

import chat_cases
import small_vocabs

_QUESTIONS = [f'What is {n} * 34?' + ' Think.' * (n % 5) for n in range(12)]


@pytest.fixture
def small(sentencepiece_path):
  return vocabs.load_vocab('sentencepiece', sentencepiece_path)


@pytest.fixture
def questions(tmp_path):
  """A task of twelve problems, also readable as documents."""
  path = tmp_path / 'questions.jsonl'
  rows = [dict(question=q, answer=i, text=q) for i, q in enumerate(_QUESTIONS)]
  path.write_text('\n'.join(map(json.dumps, rows)))
  return f'jsonl:{path}'


def _tokens(prompts):
  return prompts.tokens[np.arange(len(prompts.length))]


def test_many_texts_have_the_ids_of_each(vocabulary):
  texts = ['Natalia sold 48 clips.', '<think> 48 + 24 = 72 </think>\n ', '',
           'naïve 北京 ∑', 'User:  two  spaces\n\nAssistant:', '4</s>4<s>',
           '</s></s>']
  for some in texts, ['4 clips</s>' * 99, *texts[:3]], [], [''], texts[-1:]:
    found = vocabulary.encode_all(some)
    assert [ids.tolist() for ids in found] == list(map(vocabulary.encode, some))
    assert found.values.dtype == np.int32


@pytest.mark.parametrize('template', templates.TEMPLATES)
def test_prompts(vocabulary, questions, template):
  prompts, counts = tasks.prompt_set(
      questions, vocabulary, 512, template=template)
  assert counts == {'prompts': 12, 'too_long': 0}
  assert [r['prompt'] for r in prompts.records] == _QUESTIONS
  assert [r['answer'] for r in prompts.records] == [str(i) for i in range(12)]
  for tokens, length, question in zip(
      _tokens(prompts), prompts.length, _QUESTIONS):
    expected = vocabulary.encode(templates.apply(template, question))
    assert tokens[:length].tolist() == expected
    assert (tokens[length:] == vocabulary.pad_id).all()
  assert prompts.tokens.shape == (12, 512)


def test_a_mixture_and_its_tasks_are_in_seqios_registries(small, questions):
  tasks.prompt_set([(questions, 1.), (questions, 2.)], small, 512)
  for task in seqio.MixtureRegistry.get('r1jax_inputs_train').tasks:
    assert seqio.TaskRegistry.get(task.name) is task
    dataset = task.get_dataset({'row': None}, split='train', shuffle=False)
    assert len(list(dataset)) == 12


def test_long_prompts_are_left_out_and_counted(small, questions):
  length = [len(small.encode(q)) for q in _QUESTIONS]
  limit = sorted(length)[6]
  fitting = [q for q, n in zip(_QUESTIONS, length) if n <= limit]
  prompts, counts = tasks.prompt_set(questions, small, limit, template='plain')
  assert [r['prompt'] for r in prompts.records] == fitting
  assert counts == {'prompts': len(fitting), 'too_long': 12 - len(fitting)}
  assert max(prompts.length) == limit
  few, counts = tasks.prompt_set(
      questions, small, limit, template='plain', num_prompts=2)
  assert [r['prompt'] for r in few.records] == fitting[:2]
  with pytest.raises(errors.ConfigError, match='prompt_tokens: all 12'):
    tasks.prompt_set(questions, small, 2)


def test_documents_end_and_are_whole(vocabulary, questions):
  found = tasks.documents(questions, vocabulary)
  assert vocabulary.pad_id == vocabulary.eos_id
  assert [d.tolist() for d in found] == [
      [*vocabulary.encode(q), vocabulary.eos_id] for q in _QUESTIONS]
  assert found[0].dtype == np.int32
  assert len(tasks.documents(questions, vocabulary, num_documents=3)) == 3


def test_a_beginning_token_begins_prompts_and_documents(tmp_path, questions):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(begin=True))
  llama = vocabs.load_vocab('huggingface', path, small_vocabs.END)
  prompts, _ = tasks.prompt_set(questions, llama, 512, template='plain')
  assert _tokens(prompts)[0, :prompts.length[0]].tolist() == [
      llama.bos_id, *llama.encode(_QUESTIONS[0])]
  assert tasks.documents(questions, llama)[0].tolist() == [
      llama.bos_id, *llama.encode(_QUESTIONS[0]), llama.eos_id]


@pytest.mark.parametrize('name', ['llama3', 'chatml'])
def test_a_chat_template_alone_says_how_a_prompt_begins(
    tmp_path, questions, name):
  path = small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(begin=True), tokenizer_config={
          'chat_template': chat_cases.TEMPLATES[name], **chat_cases.TOKENS})
  llama = vocabs.load_vocab('huggingface', path)
  prompts, _ = tasks.prompt_set(
      questions, llama, 512, template='chat', system='Be brief.')
  for tokens, length, question in zip(
      _tokens(prompts), prompts.length, _QUESTIONS):
    text = chat.prompt(llama, question, 'Be brief.')
    assert tokens[:length].tolist() == llama.encode(text)
    assert tokens[0] == llama.bos_id != tokens[1]  # the template's, once
  with pytest.raises(errors.ConfigError, match='config.data.template'):
    tasks.prompt_set(questions, vocabs.load_vocab('sentencepiece', 'mini'), 512,
                     template='chat')


def test_a_mixture_draws_by_rate_the_same_everywhere(small, tmp_path):
  def drawn(many, few, **options):
    parts = []
    for name, folder, rate in (('many', many, 3.), ('few', few, 1.)):
      path = tmp_path / folder / f'{name}.jsonl'
      path.parent.mkdir(exist_ok=True)
      path.write_text('\n'.join(json.dumps(
          {'question': f'{name} {i}', 'answer': i}) for i in range(300)))
      parts.append((f'jsonl:{path}', rate))
    found, _ = tasks.prompt_set(parts, small, 64, template='plain', **options)
    return [r['prompt'] for r in found.records]

  found = drawn('a', 'b')
  assert found == drawn('b', 'a')  # wherever the files lie
  assert found != drawn('a', 'b', seed=1)
  assert len(set(found)) == len(found)  # none twice
  assert sum('many' in p for p in found) == 300  # up to the first that ends
  assert 60 < sum('few' in p for p in found) < 140  # expected: 100
  assert drawn('a', 'b', num_prompts=50) == found[:50]


def test_options_of_a_mixture_belong_to_its_tasks(small, questions):
  task = [(questions, 1.)]
  prompts, _ = tasks.prompt_set(
      task, small, 512, options={'0': {'verifier': 'exact'}})
  assert prompts.records[0]['verifier'] == 'exact'
  with pytest.raises(errors.ConfigError, match='config.data.options'):
    tasks.prompt_set(task, small, 512, options={'verifier': 'exact'})


def test_the_mini_world(small):
  def prompts(split):
    return tasks.prompt_set('mini_reasoning', small, 512, split=split,
                            template='mini', num_prompts=30)[0]
  train, heldout = prompts('train'), prompts('heldout')
  assert {r['task'] for r in train.records} == set(corpus.TASKS)
  assert all(r['entry']['question'] == r['prompt'] for r in train.records)
  assert not ({r['prompt'] for r in train.records} &
              {r['prompt'] for r in heldout.records})
  np.testing.assert_array_equal(_tokens(train), _tokens(prompts('train')))
  documents = tasks.documents('mini_corpus', small, num_documents=20)
  assert len(documents) == 20 and documents[0][-1] == small.eos_id


def test_benchmarks(small, tmp_path):
  path = tmp_path / 'gpqa_diamond.csv'
  path.write_text('Question,Correct Answer,' + ','.join(
      f'Incorrect Answer {n}' for n in (1, 2, 3)) + '\n1+1?,2,3,4,5\n')
  prompts, counts = tasks.prompt_set(f'gpqa:{path}', small, 2_000)
  record, = prompts.records
  assert counts['prompts'] == 1 and set(record['options']) == set('2345')
  assert record['options']['ABCD'.index(record['answer'])] == '2'
  others, _ = tasks.prompt_set(f'gpqa:{path}', small, 2_000, seed=1)
  assert others.records[0]['options'] != record['options']


def test_reasoning_gym(small):
  prompts, counts = tasks.prompt_set(
      'reasoning_gym:chain_sum', small, 512, seed=2,
      options=dict(size=5, min_terms=2, max_terms=3))
  assert counts['prompts'] == 5
  entry = prompts.records[0]['entry']
  assert entry['metadata']['difficulty']['num_terms'] == (2, 3)  # a tuple


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A tiny data set as TFDS prepares one."""
  folder = str(tmp_path_factory.mktemp('tfds'))

  def split(name, size):
    return tf.data.Dataset.from_tensor_slices({
        'question': [f'{name}: {i} + 1?' for i in range(size)],
        'answer': [f'so\n#### {i + 1}' for i in range(size)],
        'number': [i + 1 for i in range(size)],
        'rare': [' ' if name == 'test' and i else 'a' for i in range(size)],
        'all': [['a', 'b']] * size})

  tfds.dataset_builders.store_as_tfds_dataset(
      name='sums', version='1.0.0', data_dir=folder,
      features=tfds.features.FeaturesDict({
          'question': tfds.features.Text(), 'answer': tfds.features.Text(),
          'number': np.int32, 'rare': tfds.features.Text(),
          'all': tfds.features.Sequence(tfds.features.Text())}),
      split_datasets={'train': split('train', 9), 'test': split('test', 3)})
  return folder


@pytest.mark.parametrize('name', ['tfds:sums', 'tfds:sums:1.0.0'])
def test_tfds(small, prepared, name):
  def read(split):
    prompts, _ = tasks.prompt_set(
        name, small, 64, split=split, template='plain',
        options={'data_dir': prepared})
    return prompts
  train = read('train')
  assert sorted(r['prompt'] for r in train.records) == [
      f'train: {i} + 1?' for i in range(9)]
  for tokens, length, record in zip(
      _tokens(train), train.length, train.records):
    assert tokens[:length].tolist() == small.encode(record['prompt'])
    assert record['answer'] == str(int(record['prompt'][7]) + 1)
    assert (record['task'], record['verifier']) == ('sums', 'math')
  np.testing.assert_array_equal(_tokens(train), _tokens(read('train')))
  assert len(read('test').records) == 3
  assert list(read('train[:4]').records) == list(train.records)[:4]


def test_a_number_of_tfds_is_an_answer(small, prepared):
  prompts, _ = tasks.prompt_set(
      'tfds:sums', small, 64, split='test', template='plain',
      options={'data_dir': prepared, 'answer': 'number'})
  assert sorted(r['answer'] for r in prompts.records) == ['1', '2', '3']


@pytest.mark.parametrize('task, options, split, message', [
    ('jsonlines:x', {}, 'train', 'data.task.*did you mean jsonl'),
    ('mini_reasoning', dict(sizes=3), 'train', 'options.*did you mean size'),
    ('tfds:gsm8k', {}, 'train', 'data_dir: no prepared .*tfds build gsm8k'),
    ('tfds:no_such_set', {}, 'train', 'data_dir: no prepared'),
    ('tfds:', {}, 'train', 'data.task: .*name'),
    ('tfds:gsm8k:9.9.9', {}, 'train', 'data.task: .*version'),
    ('tfds:sums', {}, 'trian', 'data.split .*did you mean train'),
    ('tfds:sums', {}, 'train[:x]', 'data.split .*:x'),
    ('tfds:sums', dict(verifier='maths'), 'train', 'data.options.verifier'),
    ('mini_reasoning', {}, 'trian', 'data.split .*did you mean train'),
    ('tfds:sums', dict(answer='result'), 'train', 'data.options.answer'),
    ('tfds:sums', dict(question='a'), 'train', 'data.options: '),
    ('tfds:sums', dict(answer='all'), 'train', 'data.options.answer: .*text'),
    ('tfds:sums', dict(prompt='number'), 'train', 'options.prompt: .*text'),
    ('tfds:sums', dict(task=3), 'train', 'data.options.task'),
    ('tfds:sums', {}, 'train[9:]', 'data.task: .*tfds:sums.* is empty'),
    ('tfds:sums', dict(answer='rare'), 'test',
     r"data.options.answer: tfds:sums/test\[\d\]: .* in 'rare', received ' '"),
    ('tfds:sums', dict(prompt='rare'), 'test[1:]',
     r'data.options.prompt: tfds:sums/test\[1:\]\[\d\]: .* not empty'),
])
def test_refusals_name_the_field(
    small, prepared, task, options, split, message):
  if task.startswith('tfds'):
    options = {'data_dir': prepared, **options}
  with pytest.raises(errors.ConfigError, match=message):
    tasks.prompt_set(task, small, 64, split=split, options=options)


def test_an_unknown_template_and_an_empty_file_are_refused(small, tmp_path):
  (path := tmp_path / 'empty.jsonl').touch()
  with pytest.raises(errors.ConfigError, match='config.data.template'):
    tasks.prompt_set(f'jsonl:{path}', small, 64, template='r1')
  with pytest.raises(errors.ConfigError, match='data.task: .* is empty'):
    tasks.prompt_set(f'jsonl:{path}', small, 64)


def test_a_template_that_refuses_a_row_is_one_line(small, questions):
  with pytest.raises(errors.ConfigError, match="template: .*'level' is undef"):
    tasks.prompt_set(questions, small, 64, template='{{ level }} {{ prompt }}')


_USER = {'role': 'user', 'content': 'Hi'}


@pytest.mark.parametrize('row, message', [
    ({'prompt': 'q', 'response': None}, "a text in 'response', received None"),
    ({'prompt': 'q', 'response': 5}, "a text in 'response', received 5"),
    ({'prompt': None, 'response': 'a'}, "in 'prompt', received None"),
    ({'question': 7, 'answer': 'a'}, "in 'question', received 7"),
    ({'messages': 'hello'}, "messages, .* in 'messages', received 'hello'"),
    ({'messages': None}, "messages, .* in 'messages', received None"),
    ({'messages': ['q', 'a']}, "messages, .* in 'messages', received 'q'"),
    ({'messages': [_USER, {'role': 'assistant'}]},
     "messages whose content is a text in 'messages'"),
    ({'messages': [_USER]}, "of which the assistant's is the last"),
])
@pytest.mark.parametrize('template', ['mini', 'chat'])
def test_a_wrong_row_to_learn_from_is_one_line(
    small, tmp_path, template, row, message):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"prompt": "q", "response": "a"}\n' + json.dumps(row))
  small.chat_template = (
      '{% for m in messages %}{{ m.content + "</s>" }}{% endfor %}')
  with pytest.raises(errors.ConfigError) as caught:
    tasks.conversations(f'jsonl:{path}', small, template=template)
  assert re.fullmatch(f'config.data.task: {path}:2: expected .*{message}.*',
                      str(caught.value))


@pytest.mark.parametrize('row, message', [
    ({'prompt': None, 'answer': 1}, "in 'prompt', received None"),
    ({'prompt': 7, 'answer': 1}, "in 'prompt', received 7"),
    ({'prompt': '', 'answer': 1}, "a text that is not empty in 'prompt'"),
    ({'prompt': 'q', 'answer': None}, "in 'answer', received None"),
    ({'prompt': 'q', 'answer': True}, "in 'answer', received True"),
    ({'prompt': 'q', 'answer': {'a': 1}}, "in 'answer', received {'a': 1}"),
    ({'prompt': 'q', 'answer': float('nan')}, "in 'answer', received nan"),
    ({'prompt': 'q', 'answer': []}, r"in 'answer', received \[\]"),
])
def test_a_wrong_row_of_prompts_is_one_line(small, tmp_path, row, message):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"prompt": "q", "answer": "a"}\n' + json.dumps(row))
  with pytest.raises(errors.ConfigError) as caught:
    tasks.prompt_set(f'jsonl:{path}', small, 64)
  assert re.fullmatch(f'config.data.task: {path}:2: expected .*{message}.*',
                      str(caught.value))


@pytest.mark.parametrize('text', [None, 5, ['a']])
def test_a_document_that_is_no_text_is_one_line(small, tmp_path, text):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"text": ""}\n' + json.dumps({'text': text}))
  with pytest.raises(errors.ConfigError, match=(
      f"^config.data.task: {path}:2: expected a text in 'text', received ")):
    tasks.documents(f'jsonl:{path}', small)


def test_what_a_template_cannot_take_is_named_by_its_row(small, tmp_path):
  path = tmp_path / 'a.json'
  parts = {'role': 'assistant', 'content': [{'type': 'text', 'text': 'Yo'}]}
  path.write_text(json.dumps([{'messages': [_USER, parts]}]))
  with pytest.raises(errors.ConfigError, match=(
      f"^config.data.template: {path}:1.0.: expected 'chat'")):
    tasks.conversations(f'jsonl:{path}', small, template='mini')
  small.chat_template = (
      '{% for m in messages %}{% if m.content is not string %}'
      '{{ raise_exception("no") }}{% endif %}{{ m.content + "</s>" }}'
      '{% endfor %}')
  with pytest.raises(errors.ConfigError, match=(
      f'^config.data.template: {path}:1.0.: the chat template of')):
    tasks.conversations(f'jsonl:{path}', small)


def test_conversations_and_what_the_assistant_says(tmp_path):
  made = small_vocabs.save(
      tmp_path / 'vocab', small_vocabs.tokenizer(),
      tokenizer_config={'eos_token': small_vocabs.END})
  words = vocabs.load_vocab('huggingface', made)
  words.chat_template = (
      "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}"
              "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
              '{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}')
  path = tmp_path / 'sums.jsonl'
  path.write_text('{"question": "1+1?", "answer": "It is 2"}\n')
  (ids,), (said,) = tasks.conversations(f'jsonl:{path}', words)
  assert ids.dtype == np.int32 and said.dtype == np.uint8
  assert words.decode(ids[said == 0]) == 'user:1+1?assistant:'
  assert words.decode(ids[said == 1]) == 'It is 2'
  assert ids[-1] == words.eos_id and said[-1]
  path.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
  with pytest.raises(errors.ConfigError, match='assistant.s is the last'):
    tasks.conversations(f'jsonl:{path}', words)


def test_what_is_refused_is_not_logged_besides(
    small, prepared, tmp_path, capfd, caplog):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"prompt": null, "answer": 1}')
  for task, split, options in (
      (f'jsonl:{path}', 'train', {}),
      ('tfds:sums', 'test', {'data_dir': prepared, 'answer': 'rare'})):
    with pytest.raises(errors.ConfigError):
      tasks.prompt_set(task, small, 64, split=split, options=options)
  logged = capfd.readouterr().err + caplog.text
  assert 'Failed' not in logged and 'Traceback' not in logged
