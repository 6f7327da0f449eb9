"""Pages of reports: Jinja templates in, one self-contained HTML file out.

The file has no script and fetches nothing. Templates and style sheet are in
assets/; every text of a model, a task or a config is escaped.
"""

from collections.abc import Mapping
import os
import re
import shlex
import sys
from typing import Any

from r1jax import config as config_lib
from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.training import files

_TAG = re.compile('(</?(?:think|answer)>)')


def render_page(path: str | os.PathLike, template: str, *, title: str,
                kicker: str, config: Mapping[str, Any],
                facts: Mapping[str, Any] | None = None, **context: Any) -> None:
  """Writes a page to `path`, whole or not at all.

  Args:
    path: the .html file.
    template: a name in assets/.
    title: of the page.
    kicker: the line above it.
    config: nested plain data, shown collapsed.
    facts: name -> value, e.g. seed, versions, machine.
    **context: what else the template shows.
  """
  import jinja2  # pylint: disable=g-import-not-at-top
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('r1jax.reports', 'assets'), autoescape=True,
      undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  environment.globals['draw'] = charts.draw
  environment.filters |= {'percent': intervals.percent, 'by_tags': _TAG.split}
  content = environment.get_template(template).render(
      context, title=title, kicker=kicker,
      config=config_lib.flatten(config, empty=True), facts=facts or {},
      command=command_line())
  with files.write_whole(path) as part:
    part.write_text(content, encoding='utf-8', errors='replace')


def command_line(flags: Mapping[str, Any] | None = None) -> str:
  """How this process was started, or how to start it with other `flags`."""
  flags, kept, rest = flags or {}, [], iter(sys.argv[1:])
  for arg in rest:
    name, equals, _ = arg.lstrip('-').partition('=')
    if name not in flags:
      kept.append(arg)
    elif not equals:
      next(rest)  # its value
  new = [f'--{name}={value}' for name, value in flags.items()]
  return shlex.join(['python', '-m', 'r1jax.main', *kept, *new])
