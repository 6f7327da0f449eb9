"""Tests of what is kept: read back as it was, and never of another content."""

import json
import os
import pathlib
import time
import types

import numpy as np
import pytest

from r1jax import cache as cache_lib
from r1jax import digests
from r1jax import errors
from r1jax.data import kept
from r1jax.data import tasks
from r1jax.data import vocabs

import small_vocabs


pytestmark = pytest.mark.usefixtures('token_cache')


@pytest.fixture(name='vocab')
def _vocab(huggingface_path):
  return vocabs.load_vocab('huggingface', huggingface_path)


@pytest.fixture(name='path')
def _path(tmp_path):
  path = tmp_path / 'rows.jsonl'
  _write(path, range(6))
  return path


@pytest.fixture(name='encoded')
def _encoded(monkeypatch, vocab):
  """The texts that were tokenised, in one list."""
  texts, encode_all = [], vocab.encode_all
  monkeypatch.setattr(
      vocab, 'encode_all', lambda some: texts.extend(some) or encode_all(some))
  return texts


def _write(path, numbers):
  path.write_text('\n'.join(json.dumps(
      {'question': f'{n}' * (n + 1), 'answer': n, 'text': f'is {n}',
       'verifier': 'x'}) for n in numbers))


def _plain(prompts):
  index = np.arange(len(prompts.length))
  return (prompts.tokens[index].tolist(), prompts.length.tolist(),
          list(prompts.records), list(prompts.kinds))


def _read(path, vocab, limit=64, **options):
  prompts, counts = tasks.prompt_set(
      f'jsonl:{path}', vocab, limit, **{'template': 'plain', **options})
  return _plain(prompts), counts


def test_a_second_reading_gives_the_same_and_tokenises_nothing(
    path, vocab, encoded, token_cache):
  first = _read(path, vocab, 3)
  assert len(encoded) == 6 and first[1]['too_long']
  assert _read(path, vocab, 3) == first
  assert len(encoded) == 6 and len(list(token_cache.iterdir())) == 1


def test_documents_and_conversations_are_kept(
    path, vocab, encoded, token_cache):
  read = lambda: [list(map(list, tasks.documents(f'jsonl:{path}', vocab))), [
      (ids.tolist(), said.tolist()) for ids, said in zip(*tasks.conversations(
          f'jsonl:{talk}', vocab, template='plain'))]]
  talk = path.with_name('talk.jsonl')
  talk.write_text('{"prompt": "q", "response": "a b"}')
  first = read()
  assert first[0][2][-1] == vocab.eos_id and first[1][0][1][-1] == 1
  done = len(encoded)
  assert read() == first and len(encoded) == done
  assert len(list(token_cache.iterdir())) == 2


@pytest.mark.parametrize('change', [
    dict(split='train[1:]'), dict(template='mini'), dict(instruction='Think.'),
    dict(num_prompts=3), dict(limit=2), dict(examples=[('1', '2')]),
    dict(options={'answer': 'text'}), dict(options={'task': 'other'})])
def test_another_setting_is_read_anew(path, vocab, token_cache, change):
  usual, other = _read(path, vocab), _read(path, vocab, **change)
  assert other != usual and len(list(token_cache.iterdir())) == 2
  assert _read(path, vocab, **change) == other
  assert _read(path, vocab) == usual


def test_a_changed_file_is_read_anew(path, vocab):
  before, times = _read(path, vocab), path.stat()
  path.write_text(path.read_text().replace('is 3', 'is 4'))  # as long
  os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
  assert _read(path, vocab) != before
  assert [r['row']['text'] for r in _read(path, vocab)[0][2]].count('is 4') == 2


def test_a_template_may_be_a_long_text_or_have_the_name_of_a_file(
    path, vocab, monkeypatch):
  monkeypatch.chdir(path.parent)
  path.with_name('mini').write_bytes(b'\xff')
  assert _read(path, vocab, template='mini')
  _read(path, vocab, 9999, template='Answer. ' * 40 + '{prompt}')


def test_what_a_changed_template_file_fills_is_read_anew(path, vocab):
  template = path.with_name('a.txt')
  template.write_text('Q: {prompt}')
  before = _read(path, vocab, template=str(template))
  template.write_text('A: {prompt}')
  assert _read(path, vocab, template=str(template)) != before


_CHAT = ('{% if messages is defined %}{{ messages[0].content }}!'
         '{% else %}?{% endif %}')


@pytest.mark.parametrize('one, other', [
    ('a.txt', 'a.jinja'), ('b.txt', 'Q: {prompt}\n'), ('chat', _CHAT)],
                         ids=['suffix', 'last line', 'chat'])
def test_a_text_that_is_read_in_two_ways_is_two_templates(
    path, monkeypatch, one, other):
  monkeypatch.chdir(path.parent)
  vocab = vocabs.load_vocab('huggingface', small_vocabs.save(
      path.with_name('vocab'), small_vocabs.tokenizer(), tokenizer_config={
          'eos_token': small_vocabs.END, 'chat_template': _CHAT}))
  for name, end in (('a.txt', ''), ('a.jinja', ''), ('b.txt', '\n')):
    path.with_name(name).write_text('Q: {prompt}' + end)
  assert _read(path, vocab, template=one) != _read(path, vocab, template=other)


def test_a_template_is_known_wherever_it_lies(path, vocab, encoded):
  for name in ('a.txt', 'b.txt'):
    path.with_name(name).write_text('Q: {prompt}')
    _read(path, vocab, template=str(path.with_name(name)))
  _read(path, vocab, template='Q: {prompt}')
  assert len(encoded) == 6


def test_another_vocabulary_is_another_digest(tmp_path, vocabulary):
  digest = vocabulary.digest()
  assert digest == vocabulary.digest()
  vocabulary.chat_template = '{{ messages }}'
  assert vocabulary.digest() != digest
  digests = [vocabs.load_vocab('huggingface', small_vocabs.save(
      tmp_path / str(n), small_vocabs.tokenizer(begin=n == 1),
      tokenizer_config={'eos_token': small_vocabs.END,
                        'split_special_tokens': n == 2})).digest()
             for n in range(3)]
  assert len(set(digests)) == 3


def test_other_code_and_other_libraries_read_anew(path, vocab, monkeypatch,
                                                  encoded):
  _read(path, vocab)
  for name in ('release', 'of_code'):
    monkeypatch.setattr(digests, name, lambda *_: '0')
    _read(path, vocab)
  assert len(encoded) == 18


def test_a_template_that_asks_for_the_date_is_read_anew_each_day(
    path, vocab, token_cache, monkeypatch):
  template = '{{ strftime_now("%Y") }} {{ prompt }}'
  read = lambda: _read(path, vocab, template=template)
  assert read() == read() and len(list(token_cache.iterdir())) == 1
  monkeypatch.setattr(kept.datetime, 'date', types.SimpleNamespace(
      today=lambda: '2050-01-01'))
  read()
  assert len(list(token_cache.iterdir())) == 2


def test_what_changes_while_it_is_read_is_not_kept(
    path, vocab, token_cache, monkeypatch):
  encode_all = vocab.encode_all

  def encode_and_change(texts):
    _write(path, range(7))
    return encode_all(texts)

  monkeypatch.setattr(vocab, 'encode_all', encode_and_change)
  _read(path, vocab)
  assert not token_cache.exists()


def test_a_refused_file_is_refused_again(path, vocab, token_cache):
  with path.open('a') as file:
    file.write('\n{"question": "", "answer": 1}')
  for count in (None, 2, 2):  # also behind the last that is taken
    with pytest.raises(errors.ConfigError, match=f'{path}:7: .* not empty'):
      _read(path, vocab, num_prompts=count)
  assert not token_cache.exists()


def test_small_files_and_sources_that_generate_are_not_kept(
    path, vocab, token_cache, monkeypatch):
  tasks.prompt_set('mini_reasoning', vocab, 512, num_prompts=3)
  monkeypatch.setattr(kept, '_LEAST', 10_000)
  _read(path, vocab)
  assert not token_cache.exists()


def test_a_full_disk_is_no_reason_to_stop(path, vocab, monkeypatch, caplog):
  usual = _read(path, vocab)
  monkeypatch.setenv('R1JAX_CACHE', str(path))  # a file, not a folder
  assert _read(path, vocab) == usual
  assert 'the tokens are not kept' in caplog.text


def test_what_is_used_stays_where_there_is_no_room(
    path, vocab, token_cache, monkeypatch):
  monkeypatch.setattr(cache_lib, '_BYTES', 1)
  _read(path, vocab)
  before, = token_cache.iterdir()
  os.utime(before, (1, 1))
  _read(path, vocab, template='mini')
  last, = token_cache.iterdir()  # the other has gone
  first = time.time() - 9
  os.utime(last, (first, first))
  _read(path, vocab, template='mini')
  assert last.stat().st_mtime > first


@pytest.mark.parametrize('size', [0, 5, -1, -8])
def test_a_damaged_file_is_made_anew_and_says_so(
    path, vocab, token_cache, encoded, caplog, size):
  first = _read(path, vocab)
  file, = token_cache.iterdir()
  os.truncate(file, size % file.stat().st_size)
  assert _read(path, vocab) == first and len(encoded) == 12
  assert 'is damaged, and made anew' in caplog.text
  assert _read(path, vocab) == first and len(encoded) == 12


@pytest.mark.parametrize('user, owner, is_read', [
    (5, 5, True), (5, 0, True), (5, 6, False), (0, 6, False)])
def test_a_file_of_another_user_is_not_read(
    path, vocab, encoded, monkeypatch, caplog, user, owner, is_read):
  first, fstat = _read(path, vocab), os.fstat
  monkeypatch.setattr(os, 'getuid', lambda: user)
  monkeypatch.setattr(os, 'fstat', lambda file: os.stat_result(
      (*fstat(file)[:4], owner, *fstat(file)[5:])))
  assert _read(path, vocab) == first and len(encoded) == (6 if is_read else 12)
  warned = 'it belongs to another user, 6; set R1JAX_CACHE to a folder of your'
  assert (warned in caplog.text) == (not is_read)


@pytest.mark.parametrize('folder', ['n' * 300, 'cache'])
def test_what_cannot_be_opened_is_made_anew_and_says_so(
    path, vocab, encoded, monkeypatch, caplog, folder):
  first = _read(path, vocab)
  monkeypatch.setenv('R1JAX_CACHE', str(path.with_name(folder)))
  monkeypatch.setattr(kept, 'open', _denied, raising=False)
  assert _read(path, vocab) == first and len(encoded) == 12
  assert 'is not read, and made anew' in caplog.text


def _denied(file, mode):
  if mode == 'rb':
    raise PermissionError(13, 'Permission denied')
  return open(file, mode)


def test_how_many_problems_are_left_out_is_said_again(path, vocab, caplog):
  tests = [{'input': '1', 'output': '1'}]
  path.write_text('\n'.join(json.dumps(
      dict(description=f'Say {n}.', examples=tests * (n > 1)))
                            for n in range(5)))
  for number in (1, 2, 3):
    prompts, _ = tasks.prompt_set(f'codeforces:{path}', vocab, 512)
    assert len(prompts.records) == 3
    assert caplog.text.count('2 problems of ') == number


@pytest.fixture(name='mixed')
def _mixed(path, vocab):
  parts = [(f'jsonl:{path}', 1.), (f'jsonl:{path.with_name("more.jsonl")}', 2.)]
  _write(path.with_name('more.jsonl'), range(6, 20))
  return lambda: _plain(tasks.prompt_set(parts, vocab, 64, template='plain')[0])


def test_a_mixture_is_kept(mixed, encoded, token_cache):
  first = mixed()
  done = len(encoded)
  assert len(first[0]) > 6 and len(list(token_cache.iterdir())) == 1
  assert mixed() == first and len(encoded) == done


@pytest.mark.parametrize('library', ['seqio', 'tensorflow'])
def test_a_mixture_is_made_anew_where_what_draws_it_is_another(
    mixed, encoded, monkeypatch, library):
  first, done, release = mixed(), len(encoded), digests.release
  monkeypatch.setattr(digests, 'release', lambda name: (
      None if name == library else release(name)))
  assert mixed() == first and len(encoded) == 2 * done


def test_arrays_of_any_length_come_back(tmp_path):
  made = {'a': np.arange(3, dtype=np.int32), 'none': np.zeros(0, np.int64),
          'bytes': np.frombuffer(b'abcde', np.uint8),
          'z': np.arange(2, dtype=np.int64)}
  file = pathlib.Path(tmp_path, 'x', 'y')
  kept._write(file, made)
  found = kept._read(file)
  assert list(found) == list(made)
  for name, values in made.items():
    assert found[name].dtype == values.dtype
    np.testing.assert_array_equal(found[name], values)
  assert list(file.parent.iterdir()) == [file]
