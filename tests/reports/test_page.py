"""The report: self-contained, well-formed, and deaf to what a model writes."""

import errno
from html import parser
import os
import pathlib
import re
import sys

import jinja2
import pytest

from r1jax import errors
from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page as page_lib

EVIL = '</pre><script>alert(1)</script><img src=x onerror=y>&amp;"\'\x00\ud800'
VOID = {'meta', 'img', 'br', 'hr', 'link', 'input'}


class _Page(parser.HTMLParser):
  """Checks that tags nest; collects names, text and what could be fetched."""

  def __init__(self, page):
    super().__init__()
    self.open, self.names, self.text, self.fetched = [], [], '', []
    self.feed(page)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.names.append(tag)
    self.fetched += [v for k, v in attrs if k in ('src', 'href', 'xlink:href')]
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.names.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if 'style' not in self.open:
      self.text += data


def _sample(text, prompt='1 + 1', answer='2', fault=''):
  return {'prompt': prompt, 'answer': answer, 'responses': [
      {'name': 'before', 'text': '', 'reward': 0., 'correct': False,
       'fault': fault},
      {'name': 'after', 'text': text, 'reward': 2., 'correct': True}]}


def _curve(title='Accuracy', **fields):
  return charts.Chart(
      title, {'': [(i, i / 9) for i in range(10)]}, percent=True,
      before=intervals.Figure(.352, .331, .374), **fields)


def _write(tmp_path, **changes):
  context = dict(
      title='R1-Zero', kicker='rl', config={
          'seed': 3, 'optim': {'lr': 1e-4, 'rules': {}}},
      summary=dict(steps=10, seconds=90.),
      rl=dict(prompts=4, group=8, response_tokens=64), devices='1 cpu device',
      cards=[dict(name='Accuracy', unit='%', before='35.2', after='91.3',
                  intervals='[33.1, 37.4] → [89.8, 92.7]')],
      n=1000, change='+56.1 pp [54.0, 58.2]', direction='improved',
      breakdown=[('pass@1, sums', '35.2 %', '91.3 %')], truncated=.1,
      curves=[_curve(caption='Of sampled responses.')],
      panels=[charts.Chart('KL', {'': [(0, .1), (1, .2)]}, 'nats')] * 3,
      samples=[_sample('<think> 1 + 1 </think> <answer> 2 </answer>')],
      facts={'seed': 3})
  path = tmp_path / 'report.html'
  page_lib.render_page(path, 'rl.html.jinja', **(context | changes))
  return path.read_text('utf-8')


def test_one_file_that_fetches_and_runs_nothing(tmp_path):
  html = _write(tmp_path)
  page = _Page(html)
  assert not page.fetched and 'script' not in page.names
  assert not re.search(r'url\(|@import|https?:', html)
  assert [p.name for p in tmp_path.iterdir()] == ['report.html']
  assert page.names.count('svg') == 4


def test_a_full_disk_leaves_the_page_as_it_was(tmp_path, monkeypatch):
  html, path = _write(tmp_path), tmp_path / 'report.html'
  def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  with monkeypatch.context() as patched:
    patched.setattr(pathlib.Path, 'write_text', full)
    with pytest.raises(errors.RunError, match=(
        f'^{path}: No space left on device; make room')):
      _write(tmp_path)
  assert path.read_text('utf-8') == html and [*tmp_path.iterdir()] == [path]


def test_what_it_says(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['main.py', '--config=x.py:mini'])
  text = _Page(_write(tmp_path, samples=[_sample(
      'It is 2.', fault='no answer found')])).text
  for words in ('35.2→91.3 %', '[33.1, 37.4] → [89.8, 92.7]',
                '1,000 held-out problems', '+56.1 pp [54.0, 58.2], improved',
                'pass@1, sums', 'Of sampled responses.', 'nats',
                'stays near 0', '✓ correct', '✗ wrong', 'no answer found',
                'reward 2.00', 'optim.lr', '0.0001', 'optim.rules',
                'python -m r1jax.main --config=x.py:mini', 'nothing'):
    assert words in text
  assert 'were cut' not in text
  assert '80.0 % of the responses were cut' in _Page(
      _write(tmp_path, truncated=.8)).text


def test_the_paper_s_curves_stand_before_the_panels(tmp_path):
  html = _write(tmp_path)
  assert html.index('class="cards"') < html.index('class="wide"') < (
      html.index('class="panel thirds"')) < html.index('<article>')


def test_tags_are_marked_and_text_kept(tmp_path):
  html = _write(tmp_path, samples=[_sample('<think>想\n  2</think><b>')])
  assert ('<span class="tag think">&lt;think&gt;</span>想\n  2'
          '<span class="tag think">&lt;/think&gt;</span>&lt;b&gt;') in html


@pytest.mark.parametrize('where', [
    'title', 'kicker', 'devices', 'change', 'breakdown', 'cards', 'command',
    'prompt', 'answer', 'text', 'fault', 'config', 'facts', 'curve', 'series'])
def test_no_text_becomes_markup(tmp_path, monkeypatch, where):
  """A model's <script> and quotes are text, wherever they get to."""
  monkeypatch.setattr(
      sys, 'argv', ['main.py', EVIL if where == 'command' else ''])
  changes = {
      'command': {}, 'breakdown': {'breakdown': [(EVIL, EVIL, EVIL)]},
      'cards': {'cards': [dict(name=EVIL, unit=EVIL, before=EVIL, after=EVIL,
                               intervals=EVIL)]},
      'prompt': {'samples': [_sample('', prompt=EVIL)]},
      'answer': {'samples': [_sample('', answer=EVIL)]},
      'text': {'samples': [_sample(EVIL)]},
      'fault': {'samples': [_sample('', fault=EVIL)]},
      'config': {'config': {EVIL: {EVIL: EVIL}}},
      'facts': {'facts': {EVIL: EVIL}},
      'curve': {'curves': [_curve(EVIL, unit=EVIL, caption=EVIL,
                                  x_label=EVIL)]},
      'series': {'curves': [charts.Chart('', {EVIL: [(0, 1.)], 'b': []})]},
  }.get(where, {where: EVIL})
  page = _Page(_write(tmp_path, **changes))
  assert 'script' not in page.names and 'img' not in page.names
  assert '<script>alert(1)</script>' in page.text


def test_what_a_template_lacks_is_an_error(tmp_path):
  """A field that a template has no value for is an error, not a blank."""
  with pytest.raises(jinja2.UndefinedError, match='summary'):
    page_lib.render_page(tmp_path / 'report.html', 'rl.html.jinja', title='',
                         kicker='', config={})
  assert not list(tmp_path.iterdir())


def test_a_run_without_samples_or_rows_has_a_report(tmp_path):
  page = _Page(_write(tmp_path, samples=[], curves=[],
                      panels=[charts.Chart('KL', {'': []})] * 3))
  assert 'Sampled responses' not in page.text
  assert page.text.count('no values were recorded') == 3


def test_a_sample_may_lack_anything_but_its_texts(tmp_path):
  text = _Page(_write(tmp_path, samples=[
      {'prompt': '问题', 'responses': [{'name': 'x', 'text': '只有文字'}]}])).text
  assert '问题' in text and '只有文字' in text
  assert 'correct' not in text and 'answer ' not in text


@pytest.mark.parametrize('given', [
    ['--workdir=/a b', '--config.seed=3'], ['--workdir', '/a b'], []])
def test_the_next_command_replaces_what_it_changes(monkeypatch, given):
  monkeypatch.setattr(sys, 'argv', [
      'main.py', '--config=x.py:mini', *given, '--config.rl.group=4'])
  begin = 'python -m r1jax.main --config=x.py:mini'
  assert page_lib.command_line({'workdir': '/c', 'config.seed': 4}) == (
      f'{begin} --config.rl.group=4 --workdir=/c --config.seed=4')
  quoted = [f"'{arg}'" if ' ' in arg else arg for arg in given]
  assert page_lib.command_line() == ' '.join(
      [begin, *quoted, '--config.rl.group=4'])
