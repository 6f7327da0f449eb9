"""Text and thinking of a response that comes a token at a time."""

import pytest

import small_vocabs
from r1jax.data import streamed
from r1jax.data import vocabs

TEXTS = ('naïve 12 + 34', '你好，世界', 'a 🧮 b 🧮🧮', '👩‍👩‍👧 é\u0301 \ufffd x', '')


@pytest.fixture(name='load', scope='module')
def _load(tmp_path_factory):
  """Vocabularies of which a token may be a part of a character."""
  folder = tmp_path_factory.mktemp('vocabs')

  def made(name):
    if name == 'mini':
      return vocabs.load_vocab('sentencepiece', 'mini')
    if name == 'byte_level':
      return vocabs.load_vocab('huggingface', small_vocabs.save(
          folder / name, small_vocabs.tokenizer()), small_vocabs.END)
    train = dict(pieces=small_vocabs.sentencepiece_model,
                 spaced=small_vocabs.spaced_model)[name]
    return vocabs.load_vocab('sentencepiece', train(str(folder / name)))

  return made


def _parts(vocab, ids):
  text = streamed.Text(vocab)
  parts = [text.add([i]) for i in ids]
  return parts, text.rest()


@pytest.mark.parametrize('name', ['mini', 'byte_level', 'pieces', 'spaced'])
def test_characters_come_whole_and_all(load, name):
  vocab, waited = load(name), 0
  for text in TEXTS:
    ids = vocab.encode(text)
    parts, rest = _parts(vocab, ids)
    whole = ''.join(parts)
    assert whole + rest == vocab.decode(ids)
    assert whole.count('\ufffd') + rest.count('\ufffd') == vocab.decode(
        ids).count('\ufffd')
    assert '\ufffd' in text or not rest
    waited += parts.count('')
  assert waited > 4 or name == 'mini'  # whose pieces are characters


@pytest.mark.parametrize('name', ['byte_level', 'pieces'])
def test_bytes_that_are_no_character_do_not_hold_up_the_text(load, name):
  vocab = load(name)
  calc = vocab.encode('🧮')
  ids = calc[:-1] + vocab.encode('ok') + calc[1:2] * 9 + calc[:-1]
  parts, rest = _parts(vocab, ids)
  assert ''.join(parts) + rest == vocab.decode(ids)
  assert ''.join(parts[:len(calc) + 1]).endswith('ok')
  assert rest and set(rest) == {'\ufffd'} and len(rest) <= 3
  assert ''.join(parts).count('\ufffd') >= 6


CASES = [
    ('<think> 1+1 </think> 2', False, '<think> 1+1 </think>', ' 2'),
    ('1+1 </think> 2', True, '1+1 </think>', ' 2'),
    ('2 <3 and <thin', False, '', '2 <3 and <thin'),
    ('a </think> b', False, '', 'a </think> b'),
    ('a<think>b</think>c<think>d', False, '<think>b</think><think>d', 'ac'),
    ('<think>x<think>y</thi', True, '<think>x<think>y</thi', ''),
    ('<<think>>', False, '<think>>', '<'), ('', True, '', '')]


@pytest.mark.parametrize('text, opened, thought, answer', CASES)
@pytest.mark.parametrize('size', [1, 3, 100])
def test_the_thinking_is_told_apart(text, opened, thought, answer, size):
  parts = streamed.Parts(opened)
  found = []
  for start in range(0, len(text), size):
    found += parts.add(text[start:start + size])
  found += parts.rest()
  assert ''.join(part for _, part in found) == text
  assert ''.join(part for thinks, part in found if thinks) == thought
  assert ''.join(part for thinks, part in found if not thinks) == answer
  assert all(part for _, part in found)


def test_only_what_may_begin_a_tag_waits():
  parts = streamed.Parts(False)
  assert list(parts.add('a < b')) == [(False, 'a < b')]
  assert list(parts.add(' <')) == [(False, ' ')]
  assert list(parts.add('thinX')) == [(False, '<thinX')]
  assert not parts.thinks
  assert list(parts.add('<think>')) == [(True, '<think>')]
  assert parts.thinks
