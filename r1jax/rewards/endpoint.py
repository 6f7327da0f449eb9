"""A client of OpenAI-compatible endpoints, for a judge.

POST <url>/chat/completions, as vLLM, SGLang, llama.cpp and hosted services
have it. No connection is opened unless a config names an endpoint; the key is
read from the environment, and is in no config, log or error.
"""

from collections.abc import Sequence
from concurrent import futures
import http.client
import json
import os
import time
from typing import Any
import urllib.error
import urllib.parse
import urllib.request

from absl import logging

from r1jax import errors
from r1jax import interrupts
from r1jax.rewards import judge

_PATIENCE = 1.  # seconds until it is looked whether the run is to stop
_LATER = (408, 409, 425, 429, 500, 502, 503, 504)  # may succeed when retried
_OF_A_TEXT = (400, 413, 422)  # too long, or filtered; or all are refused
_LARGEST = 4 << 20  # most bytes of a reply
_SAID = 2_000  # most bytes of a refusal that are read


class Endpoint:
  """Asks a served model; called as a rewards.judge.Ask."""

  def __init__(self, url: str, model: str, *, key_variable: str | None = None,
               max_tokens: int = 1024, temperature: float = 0.,
               timeout_seconds: float = 120., parallel: int = 16,
               tries: int = 3, wait_seconds: float = 1.,
               field: str = 'judge'):
    """Checks the settings; opens no connection yet.

    Args:
      url: up to the version, 'http://localhost:8000/v1'.
      model: the name it is served under.
      key_variable: the environment variable that holds the key, if one is
        needed.
      max_tokens: of a reply.
      temperature: of the first attempt; see judge.attempt_temperature.
      timeout_seconds: of one request, and of a silence while it is answered.
      parallel: requests at once.
      tries: of one request, where the fault may be transient.
      wait_seconds: before the second try, twice as long before the third.
      field: of the config, for errors.

    Raises:
      ConfigError: the URL is invalid, or the variable does not hold a key.
    """
    if not _is_url(url):
      raise errors.expected(f'{field}.url', 'http(s)://HOST/v1', url)
    self._headers = {'Content-Type': 'application/json'}
    if key_variable:
      key = os.environ.get(key_variable, '')
      if not (key and key.isascii() and key.isprintable()):
        raise errors.expected(
            f'{field}.key_variable', 'the name of an environment variable '
            'that holds the key', key_variable)
      self._headers['Authorization'] = f'Bearer {key}'
    self._url = url.rstrip('/') + '/chat/completions'
    self._body = dict(model=model, max_tokens=max_tokens)
    self._temperature, self._timeout = temperature, timeout_seconds
    self._parallel, self._tries, self._wait = parallel, tries, wait_seconds
    self._field = field
    self._answered = False  # whether any request has got a reply

  def __call__(self, texts: Sequence[str], attempt: int) -> list[str | None]:
    """A reply to each text, None where none came in time or it was refused.

    Raises:
      ConfigError: the endpoint refuses every request; or it has never replied,
        and cannot be reached or refuses one of these.
    """
    temperature = judge.attempt_temperature(self._temperature, attempt)
    pool, replies = futures.ThreadPoolExecutor(self._parallel), []
    try:
      waiting = [pool.submit(self._one, text, temperature) for text in texts]
      for request in waiting:
        while not futures.wait([request], _PATIENCE).done:
          interrupts.check()
        replies.append(request.result())
    finally:
      pool.shutdown(wait=False, cancel_futures=True)
    refusals = [x for x in replies if isinstance(x, errors.ConfigError)]
    self._answered |= any(isinstance(x, str) for x in replies)
    if refusals and not self._answered:
      raise refusals[0]
    for refusal in refusals:
      logging.warning('%s', refusal)
    return [None if isinstance(x, errors.ConfigError) else x for x in replies]

  def _one(self, text: str, temperature: float
          ) -> str | errors.ConfigError | None:
    """A reply, None if none came in time, or the error of a refusal."""
    request = urllib.request.Request(
        self._url, headers=self._headers, data=json.dumps(self._body | dict(
            temperature=temperature,
            messages=[dict(role='user', content=text)])).encode())
    for number in range(self._tries):
      if number:
        time.sleep(self._wait * 2 ** (number - 1))
      deadline, away = time.monotonic() + self._timeout, None
      try:
        with urllib.request.urlopen(request, timeout=self._timeout) as reply:
          return _content(_read(reply, deadline))
      except urllib.error.HTTPError as problem:
        if problem.code in _OF_A_TEXT:
          return self._refusal(problem, deadline)
        if problem.code not in _LATER:
          raise self._refusal(problem, deadline) from problem
        logging.warning('%s answers %d', self._url, problem.code)
      except (OSError, http.client.HTTPException) as problem:
        logging.warning('%s: %s', self._url, problem)
        # A URLError is raised before any reply.
        away = problem.reason if isinstance(
            problem, urllib.error.URLError) else None
    if away is None or isinstance(away, TimeoutError):
      return None
    return errors.ConfigError(
        f'{self._field}.url', f'{self._url} cannot be reached: {away}')

  def _refusal(self, problem: urllib.error.HTTPError, deadline: float
               ) -> errors.ConfigError:
    """The error of a refused request, without the key, should it repeat it."""
    try:
      text = _read(problem, deadline, _SAID).decode('utf-8', 'replace')
    except (OSError, http.client.HTTPException):
      text = ''
    key = self._headers.get('Authorization', '').removeprefix('Bearer ')
    text = ' '.join((text.replace(key, '***') if key else text).split())
    return errors.ConfigError(
        f'{self._field}.url', f'{self._url} answers {problem.code} '
        f'{problem.reason}: {text}')


def _is_url(url: str) -> bool:
  """Whether a URL has a host, and no query, fragment or user."""
  try:
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or '').encode('idna') and parts.port != 0
  except ValueError:  # a UnicodeError, too: a part of more than 63 characters
    return False
  odd = parts.query or parts.fragment or '@' in parts.netloc or ' ' in url
  return (url.startswith(('http://', 'https://')) and bool(host) and not odd
          and url.isascii() and url.isprintable())


def _read(reply: Any, deadline: float, cut: int | None = None) -> bytes:
  """The body of a reply, or its first `cut` bytes, if read by the deadline.

  A socket's time-out is that of a single read: bytes that trickle in would
  never exceed it.

  Raises:
    TimeoutError: the deadline has passed.
    HTTPException: the body is larger than any reply should be.
  """
  content, size = bytearray(), _LARGEST + 1 if cut is None else cut
  while piece := reply.read1(size - len(content)):
    content += piece
    if time.monotonic() > deadline:
      raise TimeoutError('the reply takes too long')
  if len(content) > _LARGEST:
    raise http.client.HTTPException(f'a reply of more than {_LARGEST} bytes')
  return bytes(content)


def _content(reply: bytes) -> str:
  """The text of a chat completion; '', which is malformed, for anything else.

  So is a completion that was cut at its token limit.
  """
  try:
    completion: Any = json.loads(reply)
    choice = completion['choices'][0]
    content = choice['message']['content']
    whole = choice.get('finish_reason') != 'length'
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
    return ''
  return content if whole and isinstance(content, str) else ''
