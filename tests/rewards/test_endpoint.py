"""An OpenAI-compatible endpoint, on this machine, with every fault of one."""

from http import server
import json
import threading

import pytest

from r1jax import config as config_lib
from r1jax.rewards import endpoint

SECRET = "key-that-stays-secret"


class _Serving:
  """Answers requests with what `reply` makes of (body, number)."""

  def __init__(self, reply):
    self.requests = requests = []
    lock = threading.Lock()

    class Handler(server.BaseHTTPRequestHandler):
      def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
          requests.append((self.path, dict(self.headers), body))
          number = len(requests)
        status, text = reply(body, number)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

      def log_message(self, *args):
        pass

    self._server = server.ThreadingHTTPServer(("localhost", 0), Handler)
    self.url = f"http://localhost:{self._server.server_port}/v1"
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self._server.shutdown()
    self._server.server_close()


def _says(text):
  return json.dumps({"choices": [{"message": {"content": text}}]})


def _echo(body, number):
  del number
  return 200, _says(body["messages"][0]["content"].upper())


def test_each_text_has_its_reply_in_order(monkeypatch):
  monkeypatch.setenv("R1JAX_TEST_KEY", SECRET)
  with _Serving(_echo) as serving:
    ask = endpoint.Endpoint(serving.url + "/", "small", max_tokens=7,
                            key_variable="R1JAX_TEST_KEY", parallel=3)
    texts = [f"text {n} 我" for n in range(9)]
    assert ask(texts, 0) == [text.upper() for text in texts]
    ask(["again"], 1)
  path, headers, body = serving.requests[0]
  assert path == "/v1/chat/completions"
  assert headers["Authorization"] == f"Bearer {SECRET}"
  assert body["model"] == "small" and body["max_tokens"] == 7
  assert body["temperature"] == 0.
  assert serving.requests[-1][2]["temperature"] == .5


@pytest.mark.parametrize("reply, said", [
    (lambda body, number: (503, "busy") if number < 3 else (200, _says("so")),
     "so"),
    (lambda body, number: (503, "busy"), None),
    (lambda body, number: (200, "not JSON"), ""),
    (lambda body, number: (200, "[" * 100_000), ""),
    (lambda body, number: (200, '{"choices": []}'), ""),
    (lambda body, number: (200, _says(None)), ""),
])
def test_faults_that_may_pass_are_tried_again(reply, said):
  with _Serving(reply) as serving:
    ask = endpoint.Endpoint(serving.url, "m", wait_seconds=.01)
    assert ask(["?"], 0) == [said]


def test_one_who_is_not_there_or_hangs_gives_no_reply():
  with _Serving(_echo) as serving:
    url = serving.url
  ask = endpoint.Endpoint(url, "m", wait_seconds=.01, tries=2)
  assert ask(["?"], 0) == [None]
  ended = threading.Event()
  with _Serving(lambda body, number: (200, str(ended.wait(20)))) as serving:
    ask = endpoint.Endpoint(serving.url, "m", timeout_seconds=.2, tries=1)
    assert ask(["?"], 0) == [None]
    ended.set()


def test_a_refusal_is_one_error_without_the_key(monkeypatch):
  monkeypatch.setenv("R1JAX_TEST_KEY", SECRET)
  reply = lambda body, number: (401, f"no such key: {SECRET}")
  with _Serving(reply) as serving:
    ask = endpoint.Endpoint(serving.url, "m", key_variable="R1JAX_TEST_KEY")
    with pytest.raises(config_lib.ConfigError,
                       match="judge.url.* 401.*no such key: ") as e:
      ask(["?"], 0)
  assert SECRET not in str(e.value)


def test_a_text_that_is_refused_alone_gets_no_reply():
  """Too long or filtered; one whose settings are wrong has all refused."""
  def reply(body, number):
    bad = "bad" in body["messages"][0]["content"]
    return (400, "content filter") if bad else _echo(body, number)

  with _Serving(reply) as serving:
    ask = endpoint.Endpoint(serving.url, "m")
    with pytest.raises(config_lib.ConfigError, match="400.*content filter"):
      ask(["bad", "too bad"], 0)
    assert ask(["good", "bad"], 0) == ["GOOD", None]
    assert ask(["bad"], 1) == [None]


def test_mistakes_are_named(monkeypatch):
  monkeypatch.delenv("R1JAX_TEST_KEY", raising=False)
  with pytest.raises(config_lib.ConfigError, match="judge.url"):
    endpoint.Endpoint("localhost:8000", "m")
  with pytest.raises(config_lib.ConfigError, match="judge.key_variable"):
    endpoint.Endpoint("http://a/v1", "m", key_variable="R1JAX_TEST_KEY")
