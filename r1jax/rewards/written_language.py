"""The language that a whole text is written in, of 32.

By its script, where just one of them is written so. Where several share a
script (Latin, Cyrillic, Arabic, Devanagari), by their most frequent words: a
text is in the language of which it has the most. A text that has none of any,
such as a name, may be in each language of its script. Code, mathematics and
single letters do not count.
"""

import collections

from r1jax.rewards import language

_ALONE = {
    'BENGALI': 'bn', 'GREEK': 'el', 'GUJARATI': 'gu', 'GURMUKHI': 'pa',
    'HANGUL': 'ko', 'HEBREW': 'he', 'KANNADA': 'kn', 'MALAYALAM': 'ml',
    'TAMIL': 'ta', 'TELUGU': 'te', 'THAI': 'th'}
_KANA = ('HIRAGANA', 'KATAKANA')
_LEAST_KANA = 0.1  # of a Japanese text's letters

# The most frequent words of each, without those of one letter.
_FREQUENT = {
    'LATIN': {
        'de': 'der die und den von zu das mit sich des auf für ist im dem '
              'nicht ein eine als auch es werden aus er hat dass sie nach '
              'wird bei einer um am sind noch wie einem über ich wir oder',
        'en': 'the of and to in is that it was for on are with as his they be '
              'this have from or had by but not what all were we when your '
              'can there use an each which do how their if will you',
        'es': 'de la que el en los se del las un por con no una su para es al '
              'lo como más pero sus le ya este sí porque esta entre cuando '
              'muy sin sobre también hasta hay donde',
        'fi': 'ja on ei että se oli hän mutta ovat kun niin myös tai ole joka '
              'kuin sen jos hänen mitä voi minä sitä olla kanssa jotka',
        'fr': 'de la le et les des en un du une que est pour qui dans par '
              'plus pas au sur ne se ce il sont avec son aux cette mais ou '
              'nous vous être',
        'it': 'di il la che in per un del non sono una con le si da dei nel '
              'al più come ma della alla gli lo anche se questo delle ed '
              'essere',
        'pl': 'na się do nie to że jest po co jak ale za przez tym dla przy '
              'tak są był oraz czy jego jej od ze może lub aby',
        'pt': 'de que do da em um para com não uma os no se na por mais as '
              'dos como mas foi ao ele das tem seu sua ou ser quando muito '
              'nos já está eu também só pelo pela até isso são',
        'sw': 'na ya wa kwa ni katika za la kuwa cha ili pia yake hii hiyo au '
              'kama si wao watu lakini yangu huo moja kila vya',
        'vi': 'và của là có không các được cho một trong với những này người '
              'đã để khi cũng đến từ như về nhiều rất',
    },
    'CYRILLIC': {
        'bg': 'не на че той как това по но те ние всички тя така него от за '
              'беше би или още който може се са да към през със при както',
        'ru': 'не на что он как это по но они мы все она так его из за от был '
              'бы для же вы или ещё этот который может только при чтобы также',
        'uk': 'не на що він як це та але вони ми все вона так його із за від '
              'був би для ви або ще цей який може якщо через також про до',
    },
    'ARABIC': {
        'ar': 'في من على أن إلى هذا هذه التي الذي عن مع كان لا ما هو هي كما '
              'أو ذلك بين بعد قد لم كل يكون ثم',
        'fa': 'در به از که این را با است آن برای یک می خود تا بر هم نیز شده '
              'باید شود کرد های اما یا',
        'ur': 'کے میں کی ہے اور سے کا کو اس پر نے ہیں کہ یہ ایک بھی تھا نہیں '
              'کر ان جو ہو تو لیے',
    },
    'DEVANAGARI': {
        'hi': 'के में की है और से का को पर ने हैं यह कि एक भी नहीं लिए था इस '
              'जो या हो तो ये कर',
        'mr': 'आहे आणि च्या या मध्ये ते हे ही नाही आहेत की होते तर जे साठी '
              'करून त्या होता असे हा तो ती',
        'ne': 'को मा हो लाई पनि छन् यो गर्न भएको तथा गरेको छैन हुन्छ बाट थियो '
              'हुन गर्ने लागि वा त्यो गरी रूपमा',
    },
}
_WORDS = {script: {code: frozenset(words.split())
                   for code, words in languages.items()}
          for script, languages in _FREQUENT.items()}

CODES = frozenset(_ALONE.values()) | {'ja', 'zh'} | {
    code for languages in _WORDS.values() for code in languages}


def possible(text: str) -> frozenset[str]:
  """The ISO 639-1 codes of the languages that a text may be in.

  More than one where its words do not tell; all of them for a text without
  words, none for one in another script.
  """
  letters = collections.Counter()
  words = collections.defaultdict(list)
  for word, script in language.words_of(text).pairs():
    letters['CJK' if script in _KANA else script] += len(word)
    words[script].append(word)
  if not letters:
    return CODES
  script = max(letters, key=letters.get)
  if script == 'CJK':
    kana = sum(map(len, [*words[_KANA[0]], *words[_KANA[1]]]))
    return frozenset(
        {'ja' if kana >= _LEAST_KANA * letters['CJK'] else 'zh'})
  if script in _ALONE:
    return frozenset({_ALONE[script]})
  counts = {code: sum(word in known for word in words[script])
            for code, known in _WORDS.get(script, {}).items()}
  most = max(counts.values(), default=0)
  return frozenset(code for code, n in counts.items() if n == most)
