"""Answers made to hang a checker, to crash it, or to be run as code."""

import time

import pytest

from r1jax.rewards import mathematics

_HOSTILE = [
    '9^{9^{9^{9}}}', '1000000!!!!', '(' * 300 + '7' + ')' * 300,
    r'\frac{1}' * 101 + '8', '{' * 400 + '7', '2^{10^{9}}', '(x+1)^{100000}',
    '(x+y+z+w)^{100}', r'\binom{10^{9}}{10^{8}}', '1' * 1000,
    r'\sqrt{' * 120 + '7' + '}' * 120, r'\sin(10^{10^{10}})', '10^{10^{10}}+1',
    r'(\sqrt{2}+\sqrt[3]{3}+\sqrt[5]{5}+\sqrt[7]{7})^{50}', 'a' * 999,
    r'\{' + ','.join(map(str, range(200))) + r'\}',
    '+'.join(r'\frac{1}{%d}' % n for n in range(2, 80)),
    r'\sum_{n=1}^{10^{9}} \frac{1}{n^{2}}', r'\int_0^{1} e^{x^{2}} dx',
    "__import__('os').system('touch /tmp/x')", r'\pm1' * 200,
    r'7 \times 10^{-10^{6}}', '1e9999' * 100, '1e9999+' * 140 + '1',
    '!' * 500, '7' + '!' * 500, '-' * 900 + '7', '2^' * 400 + '2',
    '1/' * 400 + '3', '|' * 600, r'\left(' * 150, ' ' * 990 + '7',
    '7' + ' ' * 980 + '!', "x'" * 300, '\u00bd' * 300, '\u221a' * 400 + '7',
    r'\text{' * 100, '\\' * 999, '$' * 999, '**' * 400, r'\boxed{' * 140,
    r'\gamma(' * 100, '(10^{3000})!', r'e^{e^{e^{e^{e}}}}', r'\log\log\log 2',
    r'\lfloor 10^{4000} \pi \rfloor', '(2^{60000})^{60000}', '0^{0^{0}}',
    r'\tan(\frac{\pi}{2})', r'\frac{1}{0}', r'\ln 0', r'\infty-\infty',
    r'\cup' * 200, '7' + r'\cup 8' * 150, 'x<' * 300 + '1', '\x00' * 500,
    'x' + '+x^x-x^x' * 120, '8' + '+e^\u03c0-e^\u03c0' * 110,
    '8' + '+sin1-sin1' * 90,
    '+'.join('abcdefghklmn') + '+a!-a!' * 120, '8' + '+8000!-8000!' * 60,
    '\ud800', '\ufffd' * 900, 'i^i^i^i', r'\begin{pmatrix}' * 60,
]


@pytest.mark.parametrize('reference', ['7', r'\sqrt{2}', '1,3,5', 'x^2+y'])
def test_they_are_wrong_within_moments(reference):
  """Ten seconds each at most; they take about one on an idle machine."""
  for answer in _HOSTILE:
    start = time.monotonic()
    if not (reference == '7' and answer.strip() == '7'):
      assert not mathematics.equal(answer, reference), answer[:60]
    assert time.monotonic() - start < 10, answer[:60]


def test_what_cannot_be_computed_is_equal_if_it_is_written_the_same():
  assert mathematics.equal('10^{10^{10}}', '10^{10000000000}')
  assert not mathematics.equal('10^{10^{10}}+1', '10^{10^{10}}')
