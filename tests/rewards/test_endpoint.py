"""An OpenAI-compatible endpoint, on this machine, with every fault of one."""

from http import server
import json
import threading
import time

import pytest

from r1jax import errors
from r1jax import interrupts
from r1jax.rewards import endpoint

SECRET = 'key-that-stays-secret'


class _Serving:
  """Answers requests with what `reply` makes of (body, number)."""

  def __init__(self, reply):
    self.requests = requests = []
    lock = threading.Lock()

    class Handler(server.BaseHTTPRequestHandler):
      def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        with lock:
          requests.append((self.path, dict(self.headers), body))
          number = len(requests)
        status, text = reply(body, number)
        self.send_response(status)
        self.end_headers()
        for piece in [text.encode()] if isinstance(text, str) else text:
          try:
            self.wfile.write(piece)
          except OSError:  # who asked is gone
            return

      def log_message(self, *args):
        pass

    self._server = server.ThreadingHTTPServer(('localhost', 0), Handler)
    self.url = f'http://localhost:{self._server.server_port}/v1'
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self._server.shutdown()
    self._server.server_close()


def _says(text, **choice):
  return json.dumps({'choices': [{'message': {'content': text}} | choice]})


def _echo(body, number):
  del number
  return 200, _says(body['messages'][0]['content'].upper())


def test_each_text_has_its_reply_in_order(monkeypatch):
  monkeypatch.setenv('R1JAX_TEST_KEY', SECRET)
  with _Serving(_echo) as serving:
    ask = endpoint.Endpoint(serving.url + '/', 'small', max_tokens=7,
                            key_variable='R1JAX_TEST_KEY', parallel=3)
    texts = [f'text {n} 我' for n in range(9)]
    assert ask(texts, 0) == [text.upper() for text in texts]
    ask(['again'], 1)
  path, headers, body = serving.requests[0]
  assert path == '/v1/chat/completions'
  assert headers['Authorization'] == f'Bearer {SECRET}'
  assert body['model'] == 'small' and body['max_tokens'] == 7
  assert body['temperature'] == 0.
  assert serving.requests[-1][2]['temperature'] == .5


@pytest.mark.parametrize('reply, said', [
    (lambda body, number: (503, 'busy') if number < 3 else (200, _says('so')),
     'so'),
    (lambda body, number: (503, 'busy'), None),
    (lambda body, number: (200, 'not JSON'), ''),
    (lambda body, number: (200, '[' * 100_000), ''),
    (lambda body, number: (200, '{"choices": []}'), ''),
    (lambda body, number: (200, _says(None)), ''),
    (lambda body, number: (200, '{"choices": [[]]}'), ''),
    (lambda body, number: (200, _says('cut', finish_reason='length')), ''),
    (lambda body, number: (200, _says('so', finish_reason='stop')), 'so'),
])
def test_faults_that_may_pass_are_tried_again(reply, said):
  with _Serving(reply) as serving:
    ask = endpoint.Endpoint(serving.url, 'm', wait_seconds=.01)
    assert ask(['?'], 0) == [said]


@pytest.mark.parametrize('url, said', [
    (None, 'refused'), ('http://nobody.invalid/v1', '')])
def test_one_who_was_never_there_is_a_mistake(url, said):
  with _Serving(_echo) as serving:
    url = url or serving.url
  ask = endpoint.Endpoint(url, 'm', wait_seconds=.01, tries=2)
  with pytest.raises(errors.ConfigError,
                     match=f'^config.judge.url: {url}.*reached: .*{said}'):
    ask(['?'], 0)


def test_a_signal_does_not_wait_for_a_reply(monkeypatch):
  ended = threading.Event()
  monkeypatch.setattr(interrupts._Signals, 'asked', True)
  with _Serving(lambda body, number: ended.wait(20) and (200, '')) as serving:
    ask, began = endpoint.Endpoint(serving.url, 'm'), time.monotonic()
    with pytest.raises(interrupts.Stopped):
      ask(['?'] * 40, 0)
    assert time.monotonic() - began < 3
    ended.set()


def test_one_who_goes_away_gives_no_reply():
  with _Serving(_echo) as serving:
    ask = endpoint.Endpoint(serving.url, 'm', wait_seconds=.01, tries=2)
    assert ask(['so'], 0) == ['SO']
  assert ask(['so', 'no'], 0) == [None] * 2


def test_one_who_hangs_gives_no_reply_and_never_was_an_answer():
  ended = threading.Event()
  with _Serving(lambda body, number: (200, str(ended.wait(20)))) as serving:
    ask = endpoint.Endpoint(serving.url, 'm', timeout_seconds=.2, tries=1)
    assert ask(['?'], 0) == [None]
    ended.set()
  with pytest.raises(errors.ConfigError, match='cannot be reached'):
    ask(['?'], 0)


@pytest.mark.parametrize('status', [200, 400, 503])
def test_a_reply_that_trickles_in_ends_at_the_deadline(status):
  """No read of it takes long; the whole would take 20 seconds."""
  def trickle():
    for _ in range(1000):
      time.sleep(.02)
      yield b' '

  with _Serving(lambda body, number: (status, trickle())) as serving:
    ask = endpoint.Endpoint(
        serving.url, 'm', timeout_seconds=.3, tries=2, wait_seconds=0.)
    begin = time.monotonic()
    if status == 400:  # a refusal, however long its words
      with pytest.raises(errors.ConfigError, match='answers 400'):
        ask(['?'], 0)
    else:
      assert ask(['?'], 0) == [None]
    assert time.monotonic() - begin < 5.


def test_a_reply_larger_than_any_is_none(monkeypatch):
  monkeypatch.setattr(endpoint, '_LARGEST', 200)
  with _Serving(_echo) as serving:
    ask = endpoint.Endpoint(serving.url, 'm', tries=1)
    assert ask(['a' * 300, 'a' * 100], 0) == [None, 'A' * 100]


def test_a_refusal_is_one_error_without_the_key(monkeypatch):
  monkeypatch.setenv('R1JAX_TEST_KEY', SECRET)
  reply = lambda body, number: (401, f'no such key: {SECRET}')
  with _Serving(reply) as serving:
    ask = endpoint.Endpoint(serving.url, 'm', key_variable='R1JAX_TEST_KEY')
    with pytest.raises(errors.ConfigError,
                       match='judge.url.* 401.*no such key: ') as e:
      ask(['?'], 0)
  assert SECRET not in str(e.value)


def test_a_text_that_is_refused_alone_gets_no_reply():
  """Too long or filtered; one whose settings are wrong has all refused."""
  def reply(body, number):
    bad = 'bad' in body['messages'][0]['content']
    return (400, 'content filter') if bad else _echo(body, number)

  with _Serving(reply) as serving:
    ask = endpoint.Endpoint(serving.url, 'm')
    with pytest.raises(errors.ConfigError, match='400.*content filter'):
      ask(['bad', 'too bad'], 0)
    assert ask(['good', 'bad'], 0) == ['GOOD', None]
    assert ask(['bad'], 1) == [None]


def test_mistakes_are_named(monkeypatch):
  monkeypatch.delenv('R1JAX_TEST_KEY', raising=False)
  for url in ('localhost:8000', 'http://', 'http:///v1', 'http://a:b/v1',
              'http://a:99999/v1', 'http://[::1/v1', 'http://a b/v1',
              'http://a/v1\n', 'http://a/\u8def', 'http://key@a/v1',
              'http://a..b/v1', f"http://{'a' * 64}.org/v1",
              'http://\u8def.org/v1'):
    with pytest.raises(errors.ConfigError, match='judge.url'):
      endpoint.Endpoint(url, 'm')
  for url in ('http://a/v1', 'https://[::1]:8000', f"http://{'a' * 63}.b:1/v"):
    endpoint.Endpoint(url, 'm')
  with pytest.raises(errors.ConfigError, match='judge.key_variable'):
    endpoint.Endpoint('http://a/v1', 'm', key_variable='R1JAX_TEST_KEY')
  for end in ('\n', '\r', '\u8def'):  # no header holds it
    monkeypatch.setenv('R1JAX_TEST_KEY', SECRET + end)
    with pytest.raises(errors.ConfigError, match='judge.key_var.*') as e:
      endpoint.Endpoint('http://a/v1', 'm', key_variable='R1JAX_TEST_KEY')
    assert SECRET not in str(e.value)
