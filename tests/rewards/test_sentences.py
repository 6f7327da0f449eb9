"""Tests of counting sentences."""

import time

import pytest

from r1jax.rewards import sentences


@pytest.mark.parametrize('text, expected', [
    ('', []), ('   \n\n ', []), ('...', []), ('***', []),
    ('One', ['One']), ('One.', ['One.']), ('One. Two.', ['One.', 'Two.']),
    ('One! Two? Three', ['One!', 'Two?', 'Three']),
    ('One?! Two', ['One?!', 'Two']),
    ('One.Two.', ['One.Two.']),
    ('one. two.', ['one.', 'two.']),
    ('One\ntwo.\nThree.', ['One two.', 'Three.']),
    ('It costs $3.50. Really.', ['It costs $3.50.', 'Really.']),
    ('See example.com. Now.', ['See example.com.', 'Now.']),
    ('Dr. Who met Mrs. Smith. Then', ['Dr. Who met Mrs. Smith.', 'Then']),
    ('J. R. R. Tolkien wrote. Much.', ['J. R. R. Tolkien wrote.', 'Much.']),
    ('So do I. You too.', ['So do I.', 'You too.']),
    ('Fruits, e.g. Apples. Yes.', ['Fruits, e.g. Apples.', 'Yes.']),
    ('At 5 p.m. we left. At 5 p.m. We left.',
     ['At 5 p.m. we left.', 'At 5 p.m.', 'We left.']),
    ('The U.S. law holds.', ['The U.S. law holds.']),
    ('He moved to the U.S. She stayed.', ['He moved to the U.S.',
                                          'She stayed.']),
    ('Apples, pears, etc. are fruits.', ['Apples, pears, etc. are fruits.']),
    ('Apples, etc. Pears, too.', ['Apples, etc.', 'Pears, too.']),
    ('Wait ... no. Yes... Go.', ['Wait ... no.', 'Yes...', 'Go.']),
    ('"Why?" Nobody knew.', ['"Why?"', 'Nobody knew.']),
    ('He said "no." Then (he left.) Then', ['He said "no."',
                                            'Then (he left.)', 'Then']),
    ('**Bold.** Next.', ['**Bold.**', 'Next.']),
    ('\u6211\u5728\u3002\u4f60\u5462\uff1f', ['\u6211\u5728\u3002',
                                              '\u4f60\u5462\uff1f']),
    ('# Title\nText here.', ['# Title', 'Text here.']),
    ('Title\n\nText here.', ['Title', 'Text here.']),
    ('1. Wash them.\n2. Dry them', ['Wash them.', 'Dry them']),
    ('* one\n* two\n  of two\nThen three.', ['* one', '* two   of two',
                                             'Then three.']),
    ('- one\n***\n- two', ['- one', '- two']),
    ('In No. 5 it is. So', ['In No. 5 it is.', 'So']),
])
def test_the_sentences_of_a_text(text, expected):
  assert sentences.split(text) == expected
  assert sentences.count(text) == len(expected)


@pytest.mark.parametrize('text', [
    '.', '. ', 'a. ', '"', '\n', '1. ', '- \n', '!"', '(', 'U.S. '], ids=repr)
def test_hostile_texts_take_no_time(text):
  begun = time.process_time()
  sentences.count(text * (100_000 // len(text)))
  assert time.process_time() - begun < 3
