"""Units: which words are one, and how two of them compare.

A unit is one of physics (cm^2, m/s), a currency, or a noun of what is counted:
one of the common nouns below, or one that the question counts. A number word
multiplies (42 dozen is 504); any other word makes another statement: not 42, 42
or so. Source of the factors: the SI brochure, 9th edition, and NIST SP 811.
"""

from collections.abc import Collection
from fractions import Fraction
import re
from typing import NamedTuple


class Unit(NamedTuple):
  """A product of base units: km/h is 1000/3600 of m s^-1."""
  factor: Fraction
  powers: frozenset[tuple[str, int]]  # of (base unit, exponent)

  def times(self, other: 'Unit', exponent: int) -> 'Unit':
    powers = dict(self.powers)
    for name, power in other.powers:
      powers[name] = powers.get(name, 0) + power * exponent
    return Unit(self.factor * other.factor ** exponent, frozenset(
        (name, power) for name, power in powers.items() if power))


def of(factor: Fraction | int | str = 1, **powers: int) -> Unit:
  """of('0.01', m=1): a hundredth of a meter."""
  return Unit(Fraction(factor), frozenset(powers.items()))


def _table() -> dict[str, Unit]:
  """{symbol: its unit}."""
  found = {
      'in': of('0.0254', m=1), 'ft': of('0.3048', m=1),
      'yd': of('0.9144', m=1), 'mi': of('1609.344', m=1), 't': of(10**6, g=1),
      'lb': of('453.59237', g=1), 'oz': of('28.349523125', g=1),
      'min': of(60, s=1), 'h': of(3600, s=1), 'day': of(86_400, s=1),
      'week': of(604_800, s=1), 'month': of(1, month=1), 'yr': of(12, month=1),
      'mph': of('0.44704', m=1, s=-1), 'mL': of('0.000001', m=3),
      'L': of('0.001', m=3), '$': of(1, dollar=1), 'cent': of('0.01', dollar=1)}
  symbols = {
      'm': of(m=1), 'g': of(g=1), 's': of(s=1), 'Hz': of(s=-1),
      'N': of(1000, g=1, m=1, s=-2), 'J': of(1000, g=1, m=2, s=-2),
      'W': of(1000, g=1, m=2, s=-3), 'Pa': of(1000, g=1, m=-1, s=-2),
      **{name: of(**{name: 1}) for name in (
          'V', 'A', 'eV', 'mol', 'cal', 'pc', 'ohm', 'C', 'F', 'T', 'H', 'Wb',
          'Wh', 'Torr')}}
  prefixes = {'': 0, 'k': 3, 'd': -1, 'c': -2, 'm': -3, 'u': -6, 'n': -9,
              'p': -12, 'f': -15, 'M': 6, 'G': 9, 'T': 12}
  for prefix, power in prefixes.items():
    for name, unit in symbols.items():
      if prefix not in ('c', 'd') or name == 'm':
        found.setdefault(
            prefix + name, of(Fraction(10) ** power).times(unit, 1))
  for name in ('K', 'rad', 'sr', 'AU', 'bit', 'byte', 'erg', 'dyn', 'atm',
               'mmHg', 'hp', 'rpm', 'amu', 'dB', 'deg', 'angstrom', '%', '€',
               '£', '¥', 'arcsec', 'arcmin'):
    found[name] = of(**{name: 1})
  return found


PERCENT, DEGREE = of(**{'%': 1}), of(deg=1)
PRIMES = (of(arcsec=1), of(arcmin=1))
_TABLE = _table()
_SAME = {
    'meter': 'm', 'metre': 'm', 'kilometer': 'km', 'kilometre': 'km',
    'centimeter': 'cm', 'centimetre': 'cm', 'millimeter': 'mm',
    'millimetre': 'mm', 'micrometer': 'um', 'nanometer': 'nm', 'inch': 'in',
    'foot': 'ft', 'feet': 'ft', 'yard': 'yd', 'mile': 'mi', 'gram': 'g',
    'kilogram': 'kg', 'milligram': 'mg', 'ton': 't', 'tonne': 't',
    'pound': 'lb', 'ounce': 'oz', 'second': 's', 'sec': 's', 'minute': 'min',
    'hour': 'h', 'hr': 'h', 'liter': 'L', 'litre': 'L', 'l': 'L', 'ml': 'mL',
    'milliliter': 'mL', 'millilitre': 'mL', 'dollar': '$', 'buck': '$',
    'usd': '$', r'\$': '$', 'year': 'yr', 'degree': 'deg',
    r'\circ': 'deg', 'euro': '€', 'percent': '%', 'newton': 'N', 'joule': 'J',
    'watt': 'W', 'volt': 'V', 'kelvin': 'K', 'hertz': 'Hz', 'radian': 'rad',
    'electronvolt': 'eV', "''": 'arcsec', 'arcsecond': 'arcsec', "'": 'arcmin',
    'arcminute': 'arcmin', 'celsius': 'C', 'fahrenheit': 'F'}
_CHINESE = {
    '元': '¥', '米': 'm', '厘米': 'cm', '毫米': 'mm', '千米': 'km', '公里': 'km',
    '克': 'g', '千克': 'kg', '公斤': 'kg', '吨': 't', '秒': 's', '分钟': 'min',
    '小时': 'h', '天': 'day', '年': 'yr', '升': 'L', '度': 'deg'}
_CHINESE_COUNTS = frozenset('个只本人岁件块张条颗名辆种次页支')  # 42个
_NUMBERS = {'hundred': 100, 'thousand': 1000, 'million': 10**6,
            'billion': 10**9, 'trillion': 10**12, 'dozen': 12}
# What is counted: 42 apples.
_NOUNS = frozenset(
    'acre adult animal apple baby bag ball balloon banana basket bead bee '
    'bike bill bird black block blue boat book bottle box boy brown bus cake '
    'calorie can candy car card case cat chair chicken child city class coin '
    'color combination cookie cow crayon cube cup cupcake customer daisy '
    'digit dime dog doll donut duck edge egg employee face family fish '
    'flight floor flower friend fruit gallon game gift girl glass goal goat '
    'green group guest hat hole horse house integer item jar kid kitten leaf '
    'leg letter line man mango marble meal member message mole move muffin '
    'nail necklace nickel night notebook number orange pack package page '
    'paint painting paper part path peach pen pencil penny permutation '
    'person photo pie piece pill pink pint pizza plant plate player point '
    'potato puppy purple quart question rectangle red ribbon room rose row '
    'ruler seat set shape share sheep sheet shell shirt shoe side slice song '
    'space step stick sticker stone story strawberry student subset table '
    'tablespoon teacher team teaspoon tennis ticket tile tire total toy '
    'train tree triangle trip truck unit vertex vote wall way week wheel '
    'white woman worker yellow'.split())
# What a value may be called: Area = 42.
_QUANTITIES = frozenset(
    'age amount angle answer area average chance cost count diagonal '
    'diameter difference distance divisor factor final fraction height '
    'length mass match max maximum mean median min minimum mode overall pair '
    'percentage perimeter price prime probability product profit quarter '
    'radius range rate ratio remainder result slope speed sum surface term '
    'time value volume weight width word'.split())
# Even where a question says them.
_REFUSED = frozenset(
    'not no nor never neither either wrong incorrect false true right correct '
    'except without other than then more less fewer greater larger smaller '
    'above below over under least most about approximately approx around '
    'roughly nearly almost maybe perhaps possibly probably likely or and but '
    'to through between from up down plus minus times divided added multiplied '
    'squared cubed root half third twice double triple if unless instead any '
    'some all every none nothing anything is are was were be as so which what '
    'that this these those the a an answer i we you it he she they must may '
    'would could should will do does did only just one two three four five '
    'six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen '
    'seventeen eighteen nineteen twenty thirty forty fifty sixty seventy '
    'eighty ninety fourth fifth sixth seventh eighth ninth tenth twelfth '
    'hundredth thousandth millionth halve odd even negative positive inverse '
    'reciprocal opposite undefined infinite modulo mod in of by off for with '
    'each per at on left remaining increased decreased how many much when '
    'where who why did there have has had been if find let given such'.split())
_MAX_WORDS = 3
_NO_NOUN = re.compile(
    '(?:ed|ly|est|[ai]ble|ing|less|ful|ous|ths?|teens?|ty|ties|fold)$')
_PART = re.compile(
    r"([A-Za-z]+|[\u4e00-\u9fff]+|\\\$|[$€£¥%]|''?|\\circ)"
    r'(?:\^?(-?\d)(?!\d))?')


def number_word(text: str) -> tuple[int, str]:
  """'million dollars' -> (1_000_000, 'dollars'); else (1, text)."""
  number = 1
  while (first := text.strip().partition(' '))[0].lower() in _NUMBERS:
    number *= _NUMBERS[first[0].lower()]
    text = first[2]
  return number, text.strip()


def question_words(question: str) -> frozenset[str]:
  """The nouns that a question counts: plurals, and what 'how many' asks for."""
  text = question.lower()
  asked = re.findall(
      r'\b(?:how (?:many|much)|number of)\s+([a-z]+)(?:\s+([a-z]+))?', text)
  found = {*re.findall(r'[a-z]{2,}s\b', text), *(
      word for words in asked for word in words if len(word) > 2)}
  return frozenset(_singular(word) for word in found
                   if not _NO_NOUN.search(word))


def parse(text: str, nouns: Collection[str] = ()) -> Unit | None:
  """The unit that a text is; None if it is none.

  'cm^2' is of('0.0001', m=2), 'red apples' of(red=1, apple=1).

  Args:
    text: without the value.
    nouns: further words that are nouns, from `question_words`.
  """
  text = re.sub(r'[{}()]|\\cdot(?![a-z])|\\(?= )', ' ', text)
  text = re.sub(r'(^|\s)per\s', ' / ', text)
  text = re.sub(r'\.(?![A-Za-z])', '', text)  # in.
  text = re.sub(r'\s*\^\s*', '^', text).strip()
  unit, sign, power, count, place = of(), 1, 1, 0, 0
  while place < len(text):
    if text[place] in ' *.·-':
      place += 1
      continue
    if text[place] == '/':
      sign, place = -1, place + 1
      continue
    match = _PART.match(text, place)
    word, exponent = match.groups() if match else ('', None)
    if word.lower() in ('square', 'sq', 'cubic') and not exponent and (
        text[match.end():].strip()):
      power, place = 3 if word.lower() == 'cubic' else 2, match.end()
      continue
    part = _unit(word, nouns)
    count += 1
    if part is None or count > _MAX_WORDS:
      return None
    unit = unit.times(part, sign * int(exponent or power))
    place, power = match.end(), 1
  is_power = any(name == '%' for name, _ in unit.powers) and unit != PERCENT
  return None if is_power or not count else unit


def is_name(text: str) -> bool:
  """Whether words are what a value is called, such as 'Total area'."""
  names = [_singular(word) for word in text.lower().split()]
  return len(names) <= _MAX_WORDS and all(
      name not in _REFUSED and (
          name in _NOUNS or name in _QUANTITIES)
      for name in names)


def is_chinese(text: str) -> bool:
  return bool(text) and all('\u4e00' <= char <= '\u9fff' for char in text)


def is_symbol(word: str) -> bool:
  """Whether it is a unit of the tables, spelled as there: 'm', 'Hz', 'inch'."""
  return word in _TABLE or word in _SAME


def _unit(word: str, nouns: Collection[str]) -> Unit | None:
  """The unit of one word; None for a word that is none."""
  if word in _CHINESE_COUNTS:
    return of(**{word: 1})
  if is_chinese(word):
    return _TABLE.get(_CHINESE.get(word))
  if is_symbol(word):
    return _TABLE[_SAME.get(word, word)]
  lower = word.lower()
  singular = _singular(lower)
  name = _SAME.get(lower) or _SAME.get(singular)
  if name is not None and len(word) > 2:
    return _TABLE[name]
  if singular in _TABLE and len(word) > 2:
    return _TABLE[singular]
  if lower != singular and singular in _QUANTITIES:  # 5 factors
    return of(**{singular: 1})
  if {lower, singular} & (_REFUSED | _NUMBERS.keys()) or not (
      singular in _NOUNS or singular in nouns):
    return None
  return of(**{singular: 1})


_IRREGULAR = {
    'vertices': 'vertex', 'leaves': 'leaf', 'buses': 'bus', 'bus': 'bus',
    'radius': 'radius', 'radii': 'radius', 'tennis': 'tennis', 'men': 'man',
    'children': 'child', 'women': 'woman', 'people': 'person',
    'calories': 'calorie', 'cookies': 'cookie', 'movies': 'movie',
    'pies': 'pie', 'ties': 'tie'}


def _singular(word: str) -> str:
  """'boxes' -> 'box', 'pennies' -> 'penny'; a rule of thumb."""
  if word in _IRREGULAR:
    return _IRREGULAR[word]
  if word.endswith('ies') and len(word) > 4:
    return word[:-3] + 'y'
  if word.endswith(('ches', 'shes', 'xes', 'sses', 'zes', 'toes')):
    return word[:-2]
  return word[:-1] if word.endswith('s') and not word.endswith('ss') else word
