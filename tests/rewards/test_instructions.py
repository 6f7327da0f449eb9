"""Tests of IFEval's rules: of each kind what follows it, and what does not."""

import time

import pytest

from r1jax import errors
from r1jax.rewards import accuracy
from r1jax.rewards import instructions

LEAST, LESS = 'at least', 'less than'

# kind, arguments, responses that follow it, responses that do not
CASES = [
    ('keywords:existence', dict(keywords=['c++', 'Mom']),
     ['My mom likes C++.', 'c++ moment'], ['My mom likes C.', 'C++', 'ccc mom']),
    ('keywords:frequency', dict(keyword='war', frequency=2, relation=LEAST),
     ['War and war', 'warwar'], ['war', 'peace']),
    ('keywords:frequency', dict(keyword='a.b', frequency=1, relation=LESS),
     ['axb', 'none'], ['a.b', 'A.B']),
    ('keywords:forbidden_words', dict(forbidden_words=['rock', 'c++']),
     ['rocks are fine', 'bedrock', 'C'], ['Rock!', 'I like c++.', 'a rock']),
    ('keywords:letter_frequency',
     dict(letter='#', let_frequency=2, let_relation=LEAST),
     ['#a #b', '##'], ['#a', 'none']),
    ('keywords:letter_frequency',
     dict(letter='T', let_frequency=2, let_relation=LESS),
     ['a t', 'none'], ['tt', 'T and t']),
    ('language:response_language', dict(language='kn'),
     ['ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿ', '123'], ['All human beings', 'सभी मनुष्यों को']),
    ('length_constraints:number_sentences',
     dict(num_sentences=2, relation=LEAST),
     ['One. Two.', 'One! Two? Three'], ['One', 'Dr. Who came at 3.50.']),
    ('length_constraints:number_sentences',
     dict(num_sentences=2, relation=LESS),
     ['One', 'Dr. Who came.'], ['One. Two.']),
    ('length_constraints:number_paragraphs', dict(num_paragraphs=2),
     ['a\n***\nb', '***\na\n***\nb\n***', 'a *** b'],
     ['a', 'a\n***\nb\n***\nc', 'a\n***\n***\nb', 'a\n\nb']),
    ('length_constraints:number_words', dict(num_words=3, relation=LEAST),
     ['a b c', "it's so"], ['a b', '- - -']),
    ('length_constraints:number_words', dict(num_words=3, relation=LESS),
     ['a b', 'one - two'], ['a b c']),
    ('length_constraints:nth_paragraph_first_word',
     dict(num_paragraphs=2, nth_paragraph=2, first_word='Weekend'),
     ['a\n\nweekend it is', 'a\n\n\n"Weekend," she said', 'a\n \nWEEKEND.'],
     ['weekend\n\na', 'a\n\nweekends', 'a\nweekend', 'a\n\nb\n\nweekend',
      'a\n\nweekend\n\nb']),
    ('detectable_content:number_placeholders', dict(num_placeholders=2),
     ['[name] and [a b]', '[x](y) [z]'], ['[name]', '[] []', '[a\nb] [c]']),
    ('detectable_content:postscript', dict(postscript_marker='P.S.'),
     ['Bye.\nP.S. Call me', 'bye p.s. yes', 'Bye\n**P. S.** more'],
     ['Bye', 'Bye\nP.P.S. more', 'ps. a', 'chips.s.']),
    ('detectable_content:postscript', dict(postscript_marker='P.P.S'),
     ['Bye\nP.P.S more', 'p. p. s. more'], ['P.S. more']),
    ('detectable_format:number_bullet_lists', dict(num_bullets=2),
     ['* a\n* b', 'Text:\n  - a\n  * b', '- a\ntext\n- b', '---\n*a* b'],
     ['* a', '* a\n* b\n* c', '**a**\n* b', 'a - b\n* c']),
    ('detectable_format:constrained_response', {},
     ['My answer is yes.', 'Well.\nMy answer is maybe.'],
     ['my answer is yes', 'Yes.', 'My answer is not yes.']),
    ('detectable_format:number_highlighted_sections', dict(num_highlights=2),
     ['*a* and *b c*', '**a** and *b*', '**a**\n**b**', '**a**b**c**'],
     ['*a*', '**', '* a\n* b\n* c', '**a** b', '*\na*b', '** ** *a*']),
    ('detectable_format:multiple_sections',
     dict(section_spliter='SECTION', num_sections=2),
     ['SECTION 1\na\nSECTION 2\nb', 'SECTION 1 a SECTION 2 b SECTION 3'],
     ['SECTION 1', 'Section 1\nSection 2', 'SECTION a\nSECTION b']),
    ('detectable_format:json_format', {},
     ['{"a": 1}', '```json\n[1, 2]\n```', '```\n{}\n```', '```JSON\n{}```'],
     ['Here: {"a": 1}', '{a: 1}', '{"a": 1', '[' * 100_000]),
    ('detectable_format:title', {},
     ['<<poem of joy>>\nRoses', 'a <<b>>'], ['<<>>', '<< >>', '<joy>',
                                             '<<a\nb>>']),
    ('combination:two_responses', {},
     ['a\n******\nb', '******a******b', 'a ****** b ******'],
     ['a', 'a ****** a', 'a ****** b ****** c', 'a ************ b',
      '****** a', '************ a', 'a ******\n******']),
    ('combination:repeat_prompt', dict(prompt_to_repeat='Write a poem. '),
     ['Write a poem.\n\nRoses', 'write a poem. Roses'],
     ['Sure! Write a poem. Roses', 'Write poem.']),
    ('startend:end_checker', dict(end_phrase='Any other questions?'),
     ['Yes. Any other questions?', '"So. any other questions?"\n'],
     ['Any other questions? No.', 'Any other question?']),
    ('startend:quotation', {},
     ['"a"', ' "a b" \n'], ['a', '"', '"a', '\u201ca\u201d', 'He: "a"']),
    ('change_case:capital_word_frequency',
     dict(capital_frequency=2, capital_relation=LEAST),
     ['I AM', 'WELL-KNOWN NASA is', "DON'T GO."], ['I am', 'Nasa Is', 'none']),
    ('change_case:capital_word_frequency',
     dict(capital_frequency=2, capital_relation=LESS),
     ['NASA is', 'none'], ['NASA USA']),
    ('change_case:english_capital', {},
     ['THIS IS THE END.', 'ALL 12 OF THEM!'],
     ['This is the end.', 'DAS IST NICHT DAS ENDE UND', '12']),
    ('change_case:english_lowercase', {},
     ['this is the end.', 'all 12 of them!'],
     ['This is the end.', 'das ist nicht das ende und', '12']),
    ('punctuation:no_comma', {}, ['a b; c', 'a\uff0cb'], ['a, b', '1,000']),
]


@pytest.mark.parametrize('kind, arguments, follow, fail', CASES)
def test_a_kind(kind, arguments, follow, fail):
  asked = [instructions.instruction(kind, arguments)]
  for response in follow:
    assert instructions.strict(response, asked) == [True], response
  for response in (*fail, '', ' \n'):
    assert instructions.strict(response, asked) == [False], response


def test_there_are_the_25_kinds_of_the_paper_and_each_is_tested():
  assert len(instructions.KINDS) == 25
  assert {case[0] for case in CASES} == set(instructions.KINDS)


@pytest.mark.parametrize('response, strictly, loosely', [
    ('Sure:\n{"a": 1}', False, True), ('{"a": 1}\nBye', False, True),
    ('Sure:\n{"a": 1}\nBye', False, True), ('*{"a": 1}*', False, True),
    ('Sure:\n**{"a": 1}**\nBye', False, True), ('{"a": 1}', True, True),
    ('So:\nSure:\n{"a": 1}', False, False), ('{"a"}', False, False),
    ('', False, False)])
def test_loosely_a_line_at_each_end_and_asterisks_do_not_count(
    response, strictly, loosely):
  asked = [instructions.instruction('detectable_format:json_format', {})]
  assert instructions.strict(response, asked) == [strictly]
  assert instructions.loose(response, asked) == [loosely]


def test_the_four_figures_and_the_accuracy_that_is_rewarded():
  asked = [instructions.instruction('punctuation:no_comma', {}),
           instructions.instruction('startend:quotation', {})]
  record = dict(task='ifeval', verifier='instructions', instructions=asked)
  value, columns = instructions.reward(
      '<think>well, no</think>\nHere:\n"so it is"', record)
  assert value == 0. and columns == dict(
      loose=1, instructions=2, followed=1, followed_loose=2)
  cut = record | dict(finished=False)
  assert instructions.reward('"a"', cut)[0] == 0.
  assert instructions.reward('"a"', cut)[1]['followed_loose'] == 0
  value, columns = instructions.reward('"a"', record)
  assert value == 1. and columns == dict(
      loose=1, instructions=2, followed=2, followed_loose=2)
  checked = accuracy.check_answers(
      [record] * 3, ['"a"', '"a, b"', None], pool=_NoPool())
  assert checked.right.tolist() == [1, 0, 0]


class _NoPool:

  def run(self, jobs):
    assert not jobs
    return []


@pytest.mark.parametrize('name, arguments, said', [
    ('keywords:existance', {}, 'did you mean keywords:existence'),
    ('keywords:existence', {}, "arguments .'keywords'. of keywords:existence"),
    ('keywords:existence', dict(keywords=[]), 'a list of texts as keywords'),
    ('keywords:existence', dict(keywords='mom'), 'a list of texts'),
    ('punctuation:no_comma', dict(keywords=['a']), 'arguments .. of'),
    ('length_constraints:number_words', dict(num_words=3), 'relation'),
    ('length_constraints:number_words',
     dict(num_words=3, relation='at most'), "'less than' or 'at least'"),
    ('length_constraints:number_words',
     dict(num_words='3', relation=LESS), 'a count as num_words'),
    ('length_constraints:number_words',
     dict(num_words=True, relation=LESS), 'a count as num_words'),
    ('keywords:letter_frequency', dict(
        letter='ab', let_frequency=1, let_relation=LESS), 'one letter'),
    ('language:response_language', dict(language='nl'),
     'a language that its words tell.* of language:response_language'),
])
def test_what_cannot_be_checked_is_refused(name, arguments, said):
  with pytest.raises(errors.ConfigError, match=said):
    instructions.instruction(name, arguments)


def test_null_is_no_argument():
  assert instructions.instruction(
      'punctuation:no_comma', dict(keywords=None, num_words=None)
      ) == ('punctuation:no_comma', {})


@pytest.mark.parametrize('text', [
    '<<', '[', '*', '**a', '***', '******', '\n', 'a\n\n', '- ', '"', 'P.',
    'SECTION ', '```', 'a. ', 'The ', '#'], ids=repr)
def test_hostile_responses_take_no_time(text):
  asked = [instructions.instruction(kind, arguments)
           for kind, arguments, *_ in CASES]
  begun = time.process_time()
  instructions.strict(text * (60_000 // len(text)), asked)
  assert time.process_time() - begun < 3
