"""What a careful mathematician calls the same answer, and what not."""

import json
import pathlib

import pytest

from r1jax.rewards import mathematics

_PAIRS = [json.loads(line) for line in (
    pathlib.Path(__file__).parent / 'pairs.jsonl').read_text().splitlines()]
_KINDS = sorted({pair['kind'] for pair in _PAIRS})


@pytest.mark.parametrize('kind', _KINDS)
def test_pairs_labelled_by_hand_and_by_sympy(kind):
  """What mathematicians disagree on is not among them."""
  wrong = [pair for pair in _PAIRS if pair['kind'] == kind
           and mathematics.equal(pair['answer'], pair['reference'])
           is not pair['right']]
  assert not wrong


@pytest.mark.parametrize('reference, right, wrong', [
    # Exact values are compared exactly.
    (r'1.6\times 10^{-19}', ['1.6e-19', r'16 \times 10^{-20}'],
     [r'1.7\times 10^{-19}', '0', r'1.6000001 \times 10^{-19}']),
    ('2^{-1000}', [r'\frac{1}{2^{1000}}', '4^{-500}'], ['2^{-1001}', '0']),
    (r'\frac{1}{2004!}', [r'\frac{2005}{2005!}'], [r'\frac{1}{2006!}', '0']),
    (r'\sqrt{2}', ['2^{1/2}', r'\frac{2}{\sqrt 2}', '√2'],
     ['1.41421356237309504880168872420969807856967', r'\sqrt{2}+10^{-500}']),
    (r'\frac13', ['0.333...'], ['0.3...', '0.33', '0.3334...']),
    (r'\pi', ['π'], ['3.14', r'\frac{22}{7}', r'\frac{355}{113}']),
    # What the grammar does not know is not dropped.
    (r'1+\frac{1}{\mathrm{e}}', ['1+e^{-1}'], [r'1-\frac{1}{\mathrm{e}}', '1']),
    ('4', ['4.0', '2^2'], [r'4\sqrt(2)', r'4\foo', r'4 \oplus 1', '4 4', '4x']),
    (r'0.\overline{3}', [r'\frac13', '0.333...', r'0.\overline{33}', '0.(3)'],
     [r'0.\overline{6}', '0.3', '0.33']),
    (r'2+\mathrm{i}', ['2+i', 'i + 2'], ['2', '2-i']),
    (r'\varnothing', [r'\emptyset', r'\{\}', '∅'], ['0', r'\{0\}', r'\{∅\}']),
    (r'\langle 1, -2 \rangle', ['(1,-2)', '⟨1, −2⟩'], ['(1,2)', '(-2,1)']),
    ('-5', ['\u22125', '\u20135', '-5.0'], ['5']),
    # Lists, and numbers with commas.
    ('1,3,5', ['5,3,1', '1, 3, 5', '1, 3 and 5', 'x = 1, 3, 5',
               r'\{1,3,5\}'], ['1,3', '135', '1,3,5,7', '(1,3,5)', '1,3,3']),
    ('1,234', ['1234', r'1{,}234', r'1,\!234'], ['1, 234', '1.234', '234']),
    ('(312,123,231)', ['(312, 123, 231)'], ['312123231', '(123,312,231)']),
    (r'1 \pm \sqrt{19}', [r'1-\sqrt{19}, 1+\sqrt{19}'], [r'1+\sqrt{19}']),
    # Bases.
    ('21_4', ['21_{4}'], ['21_5', '21', '22_4']),
    # Words, frames and units.
    ('42', ['The answer is 42.', 'x = 42', '42 dollars', '$42$', '**42**',
            '`42`', r'\boxed{42}', '= 42', '42.', 'Answer: 42', '6*7',
            '42 apples', r'42\text{ cm}', '40 + 2 = 42', '#### 42'],
     ['not 42', '42 or 43', '41, 42', '42 is wrong', '42?', 'about 42',
      '42 dozen', '42 = 43', '4 2', '42 thousand', 'a 42', '42!', '']),
    ('0', ['0.0', '1-1'], ['a 0', 'not 0', 'x 0', '0 or 1', 'x - x', 'e 0',
                           'i 0', r'0\pi']),
    (r'\lfloor\log_{10}(10^{9}-1)\rfloor', ['8'], ['9']),
    ('9999999999', [r'\lfloor\sqrt{10^{20}-1}\rfloor'],
     [r'\lceil\sqrt{10^{20}-1}\rceil']),
    ('2', [r'\lfloor\sqrt2^2\rfloor', r'\max(\sqrt2, 2)', '2 vertices',
           'radius = 2', '2 cans'], [r'\ln(9,3)', r'\min(\sqrt2, 2)']),
    ('y=2, x=1', ['(1,2)', 'x=1, y=2'], ['(2,1)', 'x=2, y=1']),
    (r'\pm 2', ['2 or -2', 'x=2 or x=-2', '2, -2'], ['2']),
    ('-25%', ['-25', r'-\frac14'], ['25']),
    ('42.0', [r'41.98 \approx 42.0', '42'], [r'41.9 \approx 42.0']),
    ('42 ', [r'x = 42', r'\frac{126}{3} \approx 42.0'],
     [r'41.98 \approx 42.0', r'x \approx 42.0']),
    (r'x \ne 1, 2', [r'x\neq1, 2'], [r'x\ne1, x=2']),
    (r'\ln|x|', [r'\frac12\ln(x^2)'], [r'\ln x']),
    (r'\sqrt{ab}', [r'\sqrt{a}\sqrt{b}'], [r'ab']),
    (r'\frac{n!}{(n-k)!}', [r'k!\binom{n}{k}'], [r'\binom{n}{k}']),
    ('\\frac{t}{RC}', ['t/RC', 't/(RC)'], ['tC/R']),
    (r'\vec{a}\times\vec{b}', [r'\vec a \times \vec b'],
     [r'\vec{b}\times\vec{a}', r'\vec{a}\cdot\vec{b}']),
    ('mg(1-\\cos\\theta)', ['mg - mg\\cos\\theta'], ['mg(1-\\sin\\theta)']),
    ('g(x+1)', ['g(1+x)'], ['gx+g', 'g(x)+1']),
    ('5', ['5 m/s', '5 cm', '5%'], ['5 dozen', '5 or 6', '5x']),
    ('0.5', ['1/2 cup', '50%', '.5', '1/2'], ['0.5%', '50', '1/3 cup']),
    ('1024', ['2**10', '2^{10}', '2^10'], ['2*10', '210']),
    (r'15\mbox{ cm}^2', ['15', '15 cm^2', '15 square centimeters'],
     ['15 cm', '15 m^2', '16 cm^2']),
    ('42', ['42元', '42个', '答案是42。', '答：42', '42 厘米'],
     ['42或43', '不是42', '42万', '答案不是42']),
    ('1 km', ['1000 m', '100000 cm', '1'], ['1000 km', '100 m', '1 kg']),
    ('6 m', ['6m'], ['6', '6 n']),  # a lone letter is a variable
    (r'90^\circ', ['90', '90 degrees', r'\frac{\pi}{2}'], ['91', r'\pi']),
    (r'1\frac{4}{5}', ['1.8', '9/5', '1 4/5'], [r'\frac{4}{5}', '14/5']),
    (r'\text{Evelyn}', ['Evelyn', 'evelyn.', 'It is Evelyn'],
     ['Eve', 'not Evelyn', 'Evelyn or Carla']),
    (r'\text{(C)}', ['C', '(C)', r'\textbf{(C)}'], ['D', 'C or D', '(CD)']),
    # Equations, functions, sets.
    ('y = 2x + 3', ['2x+3', '2x - y + 3 = 0', 'y=3+2x'],
     ['2x - y = 3', 'z = 2x + 3', 'y = 2x']),
    ('f(x)=x+1', ['x+1', 'f(n) = n+1'], ['g(x)=x+1', 'f(x)=x']),
    ('x^2+1', ['f(x) = 1+x^2'], ['x = x^2+1', 'X^2+1', 'y^2+1']),
    (r'x \in [-2,7]', [r'-2 \le x \le 7', '[-2,7]', r'7\geq x\geq-2'],
     ['(-2,7)', r'-2 < x \le 7', '[-2,7)']),
    (r'(0,9) \cup (9,36)', [r'(0,36)\setminus\{9\}', r'(9,36)\cup(0,9)'],
     ['(0,36)', '(0,9)', r'(0,9] \cup (9,36)']),
    (r'x<2 \text{ or } x>3', [r'(-\infty,2)\cup(3,\infty)'],
     [r'x<2 \text{ and } x>3', 'x<2', r'x\le2 \text{ or } x>3']),
    (r'\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}',
     [r'\frac13\begin{bmatrix} -1 \\ 2 \end{bmatrix}'],
     [r'\begin{pmatrix} -1/3 & 2/3 \end{pmatrix}']),
    # Functions that no one has defined, and derivatives, are no products.
    (r'I(0)e^{-\frac{t}{RC}}', [r'I(0)\exp(-t/(RC))'],
     ['0', r'Q(0)e^{-\frac{t}{RC}}', r'I(1)e^{-\frac{t}{RC}}']),
    (r'\frac{dx}{dt} = kx - a', ['dx/dt = kx-a'], [r'\frac{x}{t} = kx - a']),
    (r'\lceil n/2 \rceil', [r'\lfloor (n+1)/2 \rfloor'],
     [r'\lfloor n/2 \rfloor', 'n/2']),
    (r'\lfloor x \rfloor', [r'-\lceil -x \rceil'], ['x']),
    (r'\sqrt{x^2}', ['|x|'], ['x']),
    (r'\binom{2n}{n}', [r'\frac{(2n)!}{(n!)^2}'], [r'\binom{2n}{2}']),
])
def test_each_kind(reference, right, wrong):
  for answer in right:
    assert mathematics.equal(answer, reference), answer
  for answer in [*wrong, '', 'unknown', reference + ' 7', reference + '+1']:
    assert not mathematics.equal(answer, reference), answer


def test_decimals_may_differ_by_the_tolerance_alone():
  assert not mathematics.equal('0.333', '1/3')
  assert mathematics.equal('0.333', '1/3', tolerance=0.01)
  assert mathematics.equal(r'9.52 \times 10^{-3}', '9.5e-3', tolerance=0.01)
  assert not mathematics.equal('9.8e-3', '9.5e-3', tolerance=0.01)
  assert not mathematics.equal('43', '42', tolerance=0.1)  # no decimals
  assert not mathematics.equal(r'\frac{334}{1000}', '1/3', tolerance=0.01)


def test_a_word_that_the_question_counts_is_a_unit():
  equal = lambda answer: mathematics.equal(answer, '42', question=(
      'Natalia doubled her clips. How many blue widgets has John now?'))
  assert equal('42 clips') and equal('42 widgets') and equal('42 blue widgets')
  for answer in ('42 doubled', '42 now', 'doubled: 42', 'john = 42', '42 how'):
    assert not equal(answer), answer
  assert not mathematics.equal('42 widgets', '42')


def test_a_reference_that_is_blank_is_an_error():
  for reference in ('', ' ', '$$', r'\boxed{}'):
    with pytest.raises(ValueError, match='not mathematics'):
      mathematics.equal('1', reference)
