"""Languages told apart word by word, and the reward for keeping to one."""

import itertools
import random
import string
import sys
import time

import pytest

from r1jax import errors
from r1jax.rewards import language

BOTH = language.Languages(('en', 'zh'))
EUROPE = language.Languages(('en', 'fr', 'de', 'ru'))


@pytest.mark.parametrize('text, target, share', [
    ('First 3+4=7.', 'en', 1.),
    ('First 3+4=7. 再算7*2=14。', 'en', 1 / 3),
    ('First 3+4=7. 再算7*2=14。', 'zh', 2 / 3),
    ('3+4=7', 'en', 1.),  # no words at all
    ('x + y = z, a', 'zh', 1.),  # variables are none
    ('дом house', 'en', 1 / 2),  # of no language told apart, yet a word
    ('so $\\text{maison}$ 我', 'en', 1 / 2),
    ('so \\(abc\\) \\[def\\] \\boxed{12} 我', 'en', 1 / 2),
    ('so `abc def` ```python\nimport x\n``` 我', 'en', 1 / 2),
    ('so <think> </answer> https://a.bc/de 我', 'en', 1 / 2),
    # Not by a price, nor by what no tag and no address holds.
    ('costs $5 我我 and then $6', 'en', 3 / 5),
    ('costs $5我$6 more', 'en', 2 / 3),
    ('so $ 我$ and', 'en', 2 / 3),
    ('so $x + 我$, $我$. and', 'en', 1.),
    ('so <全部> </全部> and', 'en', 2 / 6),
    ('so <b>我</b> <think_2> and', 'en', 2 / 3),
    ('so https://全部 and', 'en', 2 / 4),
    ('so https://a.bc/de?x=y,我我 and', 'en', 2 / 4),
    ('so ~~~python\nimport x\n~~~ 我', 'en', 1 / 2),
    ('so \\begin{align*} abc &= 我 \\end{align*} and', 'en', 1.),
    ('so \\begin{a}我\\end{b} and', 'en', 2 / 3),
    ('so \\begin{a}\\begin{b}我\\end{b}\\end{a} and', 'en', 1.),
    ('so \\begin{全部} and', 'en', 2 / 4),
    ('ｆｕｌｌ wide', 'en', 1.),
    ('nai\u0308ve cafe\u0301', 'en', 1.),
    ('nai\u0308ve 我', 'en', 1 / 2),
    ('so 人々', 'en', 1 / 3),
])
def test_shares_by_hand(text, target, share):
  assert BOTH.share(text, target) == pytest.approx(share)


def _words_one_by_one(text):
  """The words of a text, a letter at a time."""
  word, script = [], None
  for letter in language._NO_LANGUAGE.sub(' ', text) + ' ':
    kind = language._script(letter)
    if kind == '' or kind == script and kind not in (
        None, *language._UNSPACED):
      word.append(letter)
      continue
    if script and (len(word) > 1 or script in language._UNSPACED):
      yield ''.join(word).lower(), script
    word, script = [letter], kind


def test_words_are_those_of_a_loop_over_letters():
  rng = random.Random(0)
  letters = 'abXYZ éüÄ.,12中文再かなカナｶ全ไทยابجабв한글Ω\u0301\u0308\u0e31\ud800`$\\()[]'
  seen = set()
  for _ in range(3000):
    text = ''.join(rng.choices(letters, k=rng.randrange(30)))
    words = list(language.words_of(text).pairs())
    assert words == list(_words_one_by_one(text)), text
    seen.update(script for _, script in words)
  assert len(seen) > 8


@pytest.mark.parametrize('text, code', [
    ('The table is therefore red.', 'en'),
    ('Donc la table est rouge.', 'fr'),
    ('THE CAPITAL IS PARIS.', 'en'),
    ('Deshalb ist der Tisch rot.', 'de'),
    ('Поэтому стол красный.', 'ru'),
    ('Xyzzy', 'en'),  # of none, so of any: the first
    ('', 'en'),
])
def test_one_script_is_told_apart_by_dictionaries(text, code):
  assert EUROPE.of(text) == code
  assert EUROPE.share(text, code) == 1.


def test_a_script_of_one_language_asks_no_dictionary(monkeypatch):
  monkeypatch.setitem(sys.modules, 'simplemma', None)
  language._known.cache_clear()
  assert BOTH.of('这是 so 一句话') == 'zh'


def test_japanese_is_not_chinese_for_its_kana():
  both = language.Languages(('zh', 'ja'))
  assert both.share('これは日本', 'ja') == 1.
  assert both.share('これは日本', 'zh') == 2 / 5
  assert both.of('日本') == 'zh'
  assert both.of('カード') == both.of('ｶｰﾄﾞ') == 'ja'


@pytest.mark.parametrize('prompt, code', [
    ('12*3=', 'zh'), ('', 'zh'), ('$\\text{so}$', 'zh'), ('дом', 'zh'),
    ('so', 'en'), ('= 我', 'zh'), ('so so 我', 'en')])
def test_a_response_is_due_in_the_prompts_language_or_its_own(prompt, code):
  assert BOTH.due(prompt, '先算 so 三十六') == code


def test_mixed_is_more_than_a_tenth_of_other_words():
  nine = 'one two three four five six seven eight nine'
  assert not BOTH.mixed(nine + ' 我')
  assert BOTH.mixed(nine + ' 我我')
  assert not BOTH.mixed('我' * 20) and not BOTH.mixed('')


@pytest.mark.parametrize('text, score', [
    ('<think> First 3+4=7. 再算7*2=14。 </think> 14', 1 / 3),
    ('<think> First. </think> 我我我', 1.),  # the summary does not count
    ('</think> 我', 0.),
    ('<think> </think> <answer> 14 </answer>', 0.),
    ('<think> 3+4=7 </think> 7', 1.),
    ('First 我', 1 / 2),
    ('我 <think> First. </think> <think> 我 </think>', 1.),
    ('', 0.),
])
def test_consistency_is_that_of_the_thinking(text, score):
  assert language.consistency(BOTH, text, 'en') == pytest.approx(score)


@pytest.mark.parametrize('text', [
    '\\[' * 50_000, '\\(' * 50_000, '$' * 99_999, '`' * 100_000,
    '$5 ' * 33_000, '$a' * 50_000, '$' + 'a ' * 50_000, '$a $5' * 20_000,
    '~' * 99_999, '~~~ ' + '~~ ' * 33_000, '<' * 100_000, '<a' * 50_000,
    'https://' * 12_000, '\\begin{a}' * 10_000, '\\begin{' * 14_000,
    '\\begin{a}\\end{b}' * 6_000, '\\begin{a}' + '\\end{b}' * 12_000,
    '\\begin{' + 'a' * 99_999, ''.join(  # a name each
        '\\begin{%s%s%s}' % name
        for name in itertools.product(string.ascii_lowercase, repeat=3)),
    '<think>' * 20_000, '\ufffd' * 100_000, '\u0300' * 100_000,
    '\ud800 half a pair', '我' * 100_000])
def test_hostile_text_costs_no_more_than_its_length(text):
  begin = time.monotonic()
  assert 0. <= language.consistency(BOTH, text, 'en') <= 1.
  assert time.monotonic() - begin < 5.


@pytest.mark.parametrize('codes', [(), ('eng',), ('en', 'klingon')])
def test_an_unknown_language_is_refused(codes):
  with pytest.raises(errors.ConfigError, match='rewards.languages'):
    language.Languages(codes)


def test_every_language_that_shares_a_script_has_a_dictionary():
  from simplemma.strategies.dictionaries import dictionary_factory
  scripts = [x for several in language._SCRIPTS.values() for x in several]
  for code, (first, *_) in language._SCRIPTS.items():
    if scripts.count(first) > 1 and first not in language._UNSPACED:
      assert language._DICTIONARY.get(
          code, code) in dictionary_factory.SUPPORTED_LANGUAGES
