"""The report: self-contained, well-formed, and deaf to what a model writes."""

from html import parser
import re

import pytest

from r1jax.training import charts
from r1jax.training import report

BEFORE = {'n': 1000, 'pass@1': .352, 'ci95': [.331, .374], 'greedy': .388,
          'format': .712, 'response_length': 41.3}
AFTER = {'n': 1000, 'pass@1': .913, 'ci95': [.898, .927], 'greedy': .931,
         'format': .994, 'response_length': 107.8}
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


def _sample(text, prompt='1 + 1', answer='2'):
  return {'prompt': prompt, 'answer': answer,
          'before': {'text': '', 'reward': 0., 'correct': False},
          'after': {'text': text, 'reward': 2., 'correct': True}}


def _write(tmp_path, **changes):
  arguments = dict(
      title='R1-Zero', subtitle='A trial.',
      rows=[{'step': i, 'acc': i / 9, 'kl': .1} for i in range(10)],
      curves=[charts.Curve('Accuracy', 'acc', percent=True,
                           before=charts.Figure(.352, .331, .374),
                           caption='Of sampled responses.')],
      panels=[charts.Curve('KL', 'kl', 'nats')] * 3,
      summary={'stage': 'rl', 'before': BEFORE, 'after': AFTER},
      samples=[_sample('<think> 1 + 1 </think> <answer> 2 </answer>')],
      config={'seed': 3, 'optim': {'lr': 1e-4, 'rules': {}}},
      command='python -m r1jax.main', facts={'seed': 3},
      notes=['The loss is near 0.'])
  path = tmp_path / 'report.html'
  report.write(path, **(arguments | changes))
  return path.read_text('utf-8')


def test_one_file_that_fetches_and_runs_nothing(tmp_path):
  html = _write(tmp_path)
  page = _Page(html)
  assert not page.fetched and 'script' not in page.names
  assert not re.search(r'url\(|@import|https?:', html)
  assert [p.name for p in tmp_path.iterdir()] == ['report.html']
  assert page.names.count('svg') == 4


def test_what_it_says(tmp_path):
  text = _Page(_write(tmp_path)).text
  for words in ('35.2→91.3 %', '[33.1, 37.4] → [89.8, 92.7]', '38.8→93.1 %',
                '71.2→99.4 %', '41→108 tokens', '1,000 held-out problems',
                'Of sampled responses.', 'nats', 'The loss is near 0.',
                '✓ correct', '✗ wrong', 'reward 2.00', 'optim.lr', '0.0001',
                'optim.rules', 'python -m r1jax.main', 'nothing'):
    assert words in text


def test_the_paper_s_curves_stand_before_the_panels(tmp_path):
  html = _write(tmp_path)
  assert html.index('class="cards"') < html.index('class="wide"') < (
      html.index('class="panel thirds"')) < html.index('<article>')


def test_tags_are_marked_and_text_kept(tmp_path):
  html = _write(tmp_path, samples=[_sample('<think>想\n  2</think><b>')])
  assert ('<span class="tag think">&lt;think&gt;</span>想\n  2'
          '<span class="tag think">&lt;/think&gt;</span>&lt;b&gt;') in html


@pytest.mark.parametrize('where', [
    'title', 'subtitle', 'command', 'notes', 'prompt', 'answer', 'text',
    'config', 'facts', 'curve', 'stage'])
def test_no_text_becomes_markup(tmp_path, where):
  changes = {
      'notes': {'notes': [EVIL]},
      'prompt': {'samples': [_sample('', prompt=EVIL)]},
      'answer': {'samples': [_sample('', answer=EVIL)]},
      'text': {'samples': [_sample(EVIL)]},
      'config': {'config': {EVIL: {EVIL: EVIL}}},
      'facts': {'facts': {EVIL: EVIL}},
      'curve': {'curves': [charts.Curve(EVIL, 'acc', EVIL, caption=EVIL)]},
      'stage': {'summary': {'stage': EVIL}},
  }.get(where, {where: EVIL})
  page = _Page(_write(tmp_path, **changes))
  assert 'script' not in page.names and 'img' not in page.names
  assert '<script>alert(1)</script>' in page.text


def test_a_stage_without_evaluation_samples_or_rows_has_a_report(tmp_path):
  page = _Page(_write(tmp_path, summary={}, samples=[], rows=[], curves=[],
                      notes=[]))
  assert 'What was learned' not in page.text
  assert 'What it writes' not in page.text
  assert page.text.count('no values were recorded') == 3


def test_a_sample_may_lack_anything_but_its_texts(tmp_path):
  text = _Page(_write(tmp_path, samples=[
      {'prompt': '问题', 'after': {'text': '只有文字'}}])).text
  assert '问题' in text and '只有文字' in text
  assert 'correct' not in text and 'answer ' not in text


def test_one_evaluation_alone_is_shown(tmp_path):
  text = _Page(_write(tmp_path, summary={'after': AFTER})).text
  assert '91.3 %[89.8, 92.7]' in text and '→91.3' not in text
