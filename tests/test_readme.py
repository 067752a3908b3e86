"""The examples of the pages run and print what they say, their links lead somewhere, and the commands are two."""

import re
from pathlib import Path

import pytest

import cnnjax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "docs/applications.md", "docs/benchmarks.md")}
EXAMPLES = [example for page in PAGES.values() for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=["ops", "modules", "accelerate", "text"])
def test_the_examples_print_what_they_say(example, capsys):
    try:
        exec(compile(example, "example", "exec"), {"__name__": "example"})
    finally:
        cnnjax.accelerate(False)
    promised = re.findall(r"^print\(.*\)\s+# (.*)$", example, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


def test_the_error_message_is_real():
    from jax import numpy as jnp

    from cnnjax import ops

    message = next(line for line in README.splitlines() if line.startswith("conv2d: x (32, 3"))
    with pytest.raises(ValueError, match="channels-first") as raised:
        ops.conv2d(jnp.zeros((32, 3, 28, 28)), jnp.zeros((3, 3, 3, 8)))
    assert str(raised.value) == message


def test_there_are_two_commands_that_install_and_run():
    commands = re.findall(r"```bash\n(python3 -m venv .*)\n```", README)
    assert [command.rsplit(" -m ", 1)[1] for command in commands] == ["experiments.mnist", "pytest"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page]):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), target
