"""Tests of the language of a text: the first article of human rights, mostly.
"""

import pytest

from r1jax.rewards import written_language

TEXTS = {
    'ar': 'يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً '
          'وضميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء.',
    'bg': 'Всички хора се раждат свободни и равни по достойнство и права. Те са '
          'надарени с разум и съвест и следва да се отнасят помежду си в дух на '
          'братство.',
    'bn': 'সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।',
    'de': 'Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie '
          'sind mit Vernunft und Gewissen begabt.',
    'el': 'Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.',
    'en': 'All human beings are born free and equal in dignity and rights.',
    'es': 'Todos los seres humanos nacen libres e iguales en dignidad y derechos '
          'y, dotados como están de razón y conciencia, deben comportarse '
          'fraternalmente los unos con los otros.',
    'fa': 'تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم '
          'برابرند. همه دارای عقل هستند و باید با یکدیگر با روح برادری رفتار کنند.',
    'fi': 'Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja '
          'oikeuksiltaan. Heille on annettu järki ja omatunto.',
    'fr': 'Tous les êtres humains naissent libres et égaux en dignité et en '
          'droits. Ils sont doués de raison et de conscience.',
    'gu': 'પ્રતિષ્ઠા અને અધિકારોની દૃષ્ટિએ સર્વ માનવો જન્મથી સ્વતંત્ર અને સમાન હોય છે.',
    'he': 'כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.',
    'hi': 'सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और '
          'समानता प्राप्त है।',
    'it': 'Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. '
          'Essi sono dotati di ragione e di coscienza.',
    'ja': 'すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。',
    'kn': 'ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಜನಿಸಿದ್ಧಾರೆ.',
    'ko': '모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.',
    'ml': 'മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടും അന്തസ്സോടും ജനിച്ചവരാണ്.',
    'mr': 'सर्व मानवी व्यक्ती जन्मतःच स्वतंत्र आहेत व त्यांना समान प्रतिष्ठा व समान '
          'अधिकार आहेत. त्यांना विचारशक्ती आणि सदसद्विवेकबुद्धी लाभलेली आहे.',
    'ne': 'सबै व्यक्तिहरू जन्मजात स्वतन्त्र हुन् ती सबैको समान अधिकार र महत्व छ। '
          'निजहरूमा विचार शक्ति रहेको छ र यो पनि लागि हुन्छ।',
    'pa': 'ਸਾਰਾ ਮਨੁੱਖੀ ਪਰਿਵਾਰ ਆਪਣੀ ਮਹਿਮਾ ਅਤੇ ਹੱਕਾਂ ਦੇ ਪੱਖੋਂ ਜਨਮ ਤੋਂ ਹੀ ਆਜ਼ਾਦ ਹੈ।',
    'pl': 'Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i '
          'swych praw. Są oni obdarzeni rozumem i sumieniem oraz powinni '
          'postępować wobec innych w duchu braterstwa.',
    'pt': 'Todos os seres humanos nascem livres e iguais em dignidade e em '
          'direitos. Dotados de razão e de consciência, devem agir uns para com '
          'os outros em espírito de fraternidade.',
    'ru': 'Все люди рождаются свободными и равными в своем достоинстве и правах. '
          'Они наделены разумом и совестью и должны поступать в отношении друг '
          'друга в духе братства, что для них не ново.',
    'sw': 'Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa '
          'akili na dhamiri, hivyo yapasa watendeane kindugu.',
    'ta': 'மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.',
    'te': 'ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును జన్మతః స్వతంత్రులును.',
    'th': 'มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ',
    'uk': 'Всі люди народжуються вільними і рівними у своїй гідності та правах. '
          'Вони наділені розумом і совістю і повинні діяти у відношенні один до '
          'одного в дусі братерства.',
    'ur': 'تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔ انہیں '
          'ضمیر اور عقل ودیعت ہوئی ہے۔',
    'vi': 'Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và '
          'quyền. Mọi con người đều được tạo hóa ban cho lý trí và lương tâm.',
    'zh': '人人生而自由,在尊严和权利上一律平等。',
}


@pytest.mark.parametrize('code', sorted(TEXTS))
def test_a_text_is_in_its_language_alone(code):
  assert written_language.possible(TEXTS[code]) == {code}


def test_every_language_that_is_told_is_tested():
  assert set(TEXTS) == written_language.CODES


def test_what_words_do_not_tell():
  assert written_language.possible('12 + 3') == written_language.CODES
  assert written_language.possible('Übermut Zappelphilipp') >= {'de', 'en'}
  assert 'ru' not in written_language.possible('Zappelphilipp')
  assert written_language.possible('Հայաստան') == frozenset()


def test_most_of_the_text_decides():
  assert written_language.possible(
      f'{TEXTS["ja"]} {TEXTS["zh"]}') == {'ja'}
  assert written_language.possible(
      f'{TEXTS["en"]} Bonjour, monsieur, et merci!') == {'en'}
  assert written_language.possible(f'{TEXTS["hi"]} OK, fine') == {'hi'}
  code = '```\nthe end of the world and all of it\n```'
  assert written_language.possible(f'{TEXTS["de"]}\n{code}') == {'de'}
