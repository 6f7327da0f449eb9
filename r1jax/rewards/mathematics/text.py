"""The text of an answer in one form: Unicode, markup and frames removed.

'**The answer is $½$.**' becomes '\\frac{1}{2}'. Nothing that could change a
value is dropped: what stands beside the value stays, and the parser refuses it.
"""

import functools
import itertools
import re
import unicodedata

_SYMBOLS = {
    '\u2212': '-', '\u2010': '-', '\u2044': '/', '\u2215': '/',
    '×': r'\times ', '·': r'\cdot ', '⋅': r'\cdot ', '∙': r'\cdot ',
    '•': r'\cdot ', '÷': r'\div ', '±': r'\pm ', '∓': r'\mp ',
    '√': r'\sqrt ', '∛': r'\sqrt[3] ', '∜': r'\sqrt[4] ', '∞': r'\infty ',
    '≤': r'\le ', '⩽': r'\le ', '≥': r'\ge ', '⩾': r'\ge ', '≠': r'\ne ',
    '\u2061': '', '\u2062': '*', '\u2063': ',', '\u2064': '+',  # invisible
    '∆': r'\Delta ', 'ϵ': r'\epsilon ', 'º': r'^\circ ', 'Å': 'angstrom ',
    'Ω': r'\Omega ',
    '¢': ' cents',
    '≈': r'\approx ', '∪': r'\cup ', '∩': r'\cap ', '∖': r'\setminus ',
    '∈': r'\in ', '∅': r'\emptyset ', '⌀': r'\emptyset ', '°': r'^\circ ',
    '⟨': r'\langle ', '⟩': r'\rangle ', '〈': r'\langle ', '〉': r'\rangle ',
    '⌊': r'\lfloor ', '⌋': r'\rfloor ', '⌈': r'\lceil ', '⌉': r'\rceil ',
    '…': r'\dots ', '⋯': r'\dots ', '′': "'", '″': "''", '’': "'",
    'ℝ': r'\mathbb{R} ', 'ℤ': r'\mathbb{Z} ', 'ℕ': r'\mathbb{N} ',
    'ℚ': r'\mathbb{Q} ', 'ℂ': r'\mathbb{C} ', 'ϕ': r'\phi ', 'ℏ': r'\hbar ',
    '∂': r'\partial ', '。': '.', '，': ',', '：': ':',
}
_GREEK = {
    unicodedata.lookup(f'GREEK {case} LETTER {name.upper()}'): rf'\{command} '
    for name, command in [
        ('alpha', 'alpha'), ('beta', 'beta'), ('gamma', 'gamma'),
        ('delta', 'delta'), ('epsilon', 'epsilon'), ('zeta', 'zeta'),
        ('eta', 'eta'), ('theta', 'theta'), ('iota', 'iota'),
        ('kappa', 'kappa'), ('lamda', 'lambda'), ('mu', 'mu'), ('nu', 'nu'),
        ('xi', 'xi'), ('pi', 'pi'), ('rho', 'rho'), ('sigma', 'sigma'),
        ('tau', 'tau'), ('phi', 'phi'), ('chi', 'chi'), ('psi', 'psi'),
        ('omega', 'omega')]
    for case, command in [('SMALL', command), ('CAPITAL', command.title())]}
_ROOT = re.compile(r'([√∛∜])\s*(\d+|[A-Za-z])')  # of all digits that follow
_OVERLINED = re.compile('(?:[0-9]\u0305)+')
_RAISED = {'<super>': '^', '<sub>': '_'}

# An answer in math mode, whole or in parts: the marks say nothing.
_MARKS = re.compile('|'.join([
    r'\$', r'(?<!\\)\\[()\[\]]', r'\\(?:text|mbox|mathrm)\s*\{\s*\}',
    r'\\(?:displaystyle|textstyle|limits|small|[lL]arge)(?![A-Za-z])',
    r'\\(?:text)?color\{[a-z]*\}(?=\{)', r'\\(?:left|right|middle)\s*\.',
    r'\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])']))
_SPACES = re.compile('|'.join([
    r'(?<!\\)\\[,;: >]', r'\\(?:thin|med|thick)space\b', r'\\q?quad\b',
    r'(?<=[\w{})\]])~(?=\s*[A-Za-z\\{=])',  # 5~cm, but ~42 is about 42
    r'\\hspace\*?\{[^{}]*\}']))
_ROW = re.compile(r'\\\\\[[^\[\]]*(?:pt|em|ex|mm|cm)\]')
_TEXT = r'\{\s*\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}\s*\}'
_UNIT_QUOTIENT = re.compile(rf'\\frac\s*{_TEXT}\s*{_TEXT}')
_BOX = re.compile(r'\\(?:boxed|fbox)\s*(?=\{)')
_BOLD = re.compile(r'(?<![\w)])(\*\*|__)(?=\S)([^*_]+?)\1(?![\w(])')
_PYTHON = re.compile(r'\b(?:math|np|numpy|sympy|sp)\.([a-z]+)(?![a-z])')
_QUOTES = (('``', '``'), ('`', '`'), ('*', '*'), ('"', '"'), ('“', '”'))
_FRAME = re.compile(
    r'(?:(?:so|thus|hence|therefore|then|and so|we get|we have|we find)\b'
    r'[\s,:]*)?(?:(?:(?:the|my|our)\s+)?(?:(?:final|correct|right|exact)\s+)?'
    r'(?:answers?|results?|solutions?|values?)(?:\s+(?:is|are)'
    r'(?:\s*equal\s+to|\s*:)?|\s*[:=])|####|答案?(?:是|为|:)|'
    r"(?:it|that|this)(?:\s+is|'s)|(?:is|are)\b|=)\s*", re.IGNORECASE)
_FRAMED_TEXT = re.compile(r'\\(?:text|mbox|textrm|mathrm|textbf)\s*'
                          r'\{([^{}]*)\}')
_AFTER = re.compile(r'\s+is the (?:final |correct )?answer$', re.IGNORECASE)
_JOINED = re.compile(  # 1{,}234, but not x^2\,345
    r'(?<![\d^_])\d{1,3}(?:(?:\{,\}|,?\\!|\\,)\s*\d{3})+(?!\d)')
_LETTERS = re.compile(r'[^\W\d_]+')
_TEXT_WITH_DIGITS = re.compile(  # \text{12 cm}, but not \text{5-6}
    r'\\(?:text|mbox)\s*\{((?:[a-z]\s*=)?\s*[\d.,]*\d\s*[A-Za-z ]*)\}')
_BASED = re.compile(r'\((\d+)\)(?=\s*_)', re.ASCII)
_ROMAN = re.compile(r'\{\s*\\rm\s+([^{}]*)\}')
_STYLE = re.compile(r'\\(?:text|mbox|textrm|textbf|textit|mathrm|mathbf|'
                    r'operatorname)(?![A-Za-z])')
_IDLE_SPACE = re.compile(
    r'(?<![A-Za-z0-9.,])\s+|(?<!,)\s+(?![A-Za-z0-9.])|(?<=,)\s+(?![0-9])')
_IN_TEXT = re.compile(r'\\(?:text|mbox|textrm|mathrm)\s*\{([A-Za-z]+)\}')
_FRACTIONS = re.compile(r'\\[dtc]frac(?![A-Za-z])')


@functools.lru_cache(maxsize=4096)
def clean(text: str) -> str:
  """The answer without the marks, spaces and frame that mean nothing.

  Raises no error: what is not understood stays as it is.
  """
  text = _ascii(text).strip()
  before = None
  while before != text:  # a frame may stand in a mark, and a mark in a frame
    before = text
    text = _unwrapped(text)
  return text


def compact(text: str) -> str:
  """`clean` text as it is compared where it is not mathematics.

  Spaces count between letters and digits alone: '1 1/2' is not '11/2'.
  """
  text = _STYLE.sub('', _IN_TEXT.sub(r'\1', text))
  return _IDLE_SPACE.sub('', ' '.join(text.split()))


def is_choice(text: str) -> bool:
  """Whether it is the letter of a choice: A to J."""
  return bool(re.fullmatch('[A-J]', text))


def words(text: str) -> str | None:
  """Words as they are compared with a reference of words; None: a formula.

  A letter, such as that of a choice, and words such as CoO keep their case.
  """
  text = re.sub(r'[{}]', '', _STYLE.sub('', text))
  text = ' '.join(text.split()).strip(' .,;')
  inner = re.fullmatch(r'\(([^()]*)\)|([A-Za-z])\)', text)
  text = (inner[1] or inner[2] or '' if inner else text).strip()
  if len(text) > 1:
    text = _LETTERS.sub(
        lambda run: run[0].casefold() if run[0] in (
            run[0].lower(), run[0].upper(), run[0].capitalize()) else run[0],
        text)
  if re.search(r"[^\w\s.,;:'()&/-]|_", text):
    return None
  return re.sub(r'^(?:an?|the) (?=\w)', '', text)


def _ascii(text: str) -> str:
  """`text` with its mathematical characters as LaTeX commands."""
  text = unicodedata.normalize('NFC', text).replace('\\degree', '^\\circ ')
  if text.isascii():
    return text
  text = _ROOT.sub(r'\1{\2}', text)
  text = _OVERLINED.sub(lambda run: '\\overline{' + run[0][::2] + '}', text)
  text = re.sub(r'(?:(?<=^)|(?<=[(,=\[{:]))(\s*)\u2013', r'\1-', text)
  made = []
  for level, run in itertools.groupby(text, _level):
    plain = ''.join(map(_plain, run))
    made.append(f'{level}{{{plain}}}' if level else plain)
  return ''.join(made)


def _level(char: str) -> str:
  """'^' of a superscript, '_' of a subscript, '' of another character."""
  if char in _SYMBOLS:
    return ''
  return _RAISED.get(unicodedata.decomposition(char).partition(' ')[0], '')


def _plain(char: str) -> str:
  plain = unicodedata.normalize('NFKC', char)
  if char in _SYMBOLS:
    return _SYMBOLS[char]
  if '\u2044' in plain:  # ½
    over, _, under = plain.partition('\u2044')
    return rf'\frac{{{over}}}{{{under}}}'
  if char in 'ϖϑϰϱ':  # letters of their own, which NFKC makes others
    return char
  if unicodedata.category(char) == 'Cf':  # zero-width marks
    return ''
  return ''.join(_GREEK.get(c) or _SYMBOLS.get(c, c) for c in plain)


def _unwrapped(text: str) -> str:
  """`text` with one layer of marks, or a frame, removed."""
  text = _PYTHON.sub(r'\1', _BOLD.sub(r'\2', text))
  text = re.sub(r'\blog(2|10)(?=\()', r'\\log_{\1}', text)
  text = re.sub(r'(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))', r'\\times ', text)
  if _BOX.match(text) and _is_group(_BOX.sub('', text, 1)):
    text = _BOX.sub('', text, 1)[1:-1]
  text = _BOX.sub('', text)
  text = _JOINED.sub(lambda run: re.sub(r'\D', '', run[0]), text)
  text = _ROMAN.sub(r'\\text{\1}', _BASED.sub(r'\1', text))
  text = _FRACTIONS.sub(r'\\frac', text)
  text = _ROW.sub(r'\\\\', _SPACES.sub(' ', text.replace('\\!', ' ')))
  if whole := _TEXT_WITH_DIGITS.fullmatch(text):
    text = whole[1]
  text = _UNIT_QUOTIENT.sub(r' \\text{\1/\2}', text)
  text = text.replace('\\$', '\ue000').replace('\\%', '%')
  if re.fullmatch(r'-?\s*\$\s*-?[\d.,]*\d[^$]*', text):  # a sum of money
    text = text.replace('$', '\ue000')
  text = _MARKS.sub('  ', text).replace('\ue000', '\\$').strip()
  for begin, end in _QUOTES:
    if (text.startswith(begin) and text.endswith(end)
        and len(text) > len(begin) + len(end)):
      text = text[len(begin):-len(end)].strip()
  text = _without_end(text)
  if _is_group(text) and ',' not in text:  # {1, 2} is a list
    text = text[1:-1]
  return _unframed(text).strip()


def _without_end(text: str) -> str:
  """`text` without its last full stop, comma or line break."""
  text = text.strip()
  while text.endswith('\\\\'):
    text = text[:-2].rstrip()
  shorter = text[:-1].rstrip()
  is_end = text.endswith((',', ';', '.')) and not shorter.endswith(
      (',', ';', '.', '\\'))
  return shorter if is_end else text


def _is_group(text: str) -> bool:
  """Whether a pair of braces holds all of it: {42}, but not {1}{2}."""
  depth = 0
  for place, char in enumerate(text):
    depth += (char == '{') - (char == '}')
    if not depth:
      return place == len(text) - 1 and char == '}'
  return False


def _unframed(text: str) -> str:
  """'The answer is 42' -> '42'."""
  begin = _FRAMED_TEXT.match(text)
  if begin and _FRAME.fullmatch(begin[1].strip() + ' '):
    return text[begin.end():]
  match = _FRAME.match(text)
  rest = text[match.end():] if match else text
  return _AFTER.sub('', rest or text)
