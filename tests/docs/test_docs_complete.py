"""What the code lists, the documentation knows; and what the documentation points to is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support import cli_reference

from zapd.audit.event import Tag
from zapd.auth.catalog import Catalog
from zapd.cli.root import root
from zapd.net.limits import NetCounters

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "bench/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
METRIC = re.compile(r'"(zapd_[a-z_]+)"')
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def commands(command: click.Command, path: str) -> Iterator[str]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from commands(inner, f"{path} {name}")


def test_every_setting_is_in_the_page_of_the_configuration() -> None:
    """Each by its name at the beginning of a row."""
    text = page("configuration.md")
    missing = [
        f"{header} {name}"
        for header, model in cli_reference.TABLES
        for name in model.model_fields
        if f"| `{name}` " not in text
    ]
    assert missing == []


def test_every_command_is_in_the_page_of_the_commands() -> None:
    """Each under a heading of its own."""
    text = page("cli.md")
    assert [path for path in commands(root, "zapd") if f"\n### `{path}`\n" not in text] == []


def test_every_backend_has_a_page() -> None:
    """Each built-in type, and the list of pages names it."""
    names = re.findall(r'^(\w+) = "zapd_backends\.', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(names) >= 2
    for name in names:
        assert (ROOT / f"docs/backends/{name}.md").is_file(), name
        assert f"({name}.md)" in page("backends/README.md"), name
    assert set(names) <= set(Catalog().names())


def test_every_metric_is_in_its_page() -> None:
    """Each name that the code makes, as Prometheus sees it, and each kind of event of the network."""
    code = "".join(
        (ROOT / path).read_text()
        for path in ("zapd/app/gauges.py", "zapd/app/enrolment.py", "zapd/server/metrics.py")
    )
    names = {name.removesuffix("_total") for name in METRIC.findall(code)}
    assert len(names) > 15
    text = page("metrics.md")
    assert sorted(name for name in names if not re.search(rf"`{name}(_total)?[`{{]", text)) == []
    assert sorted(name for name in NetCounters.__slots__ if f"`{name}`" not in text) == []
    told = set(re.findall(r"`(zapd_[a-z_]+?)(?:_total)?[`{]", text))
    assert told <= names


def test_every_audit_tag_is_in_the_page_of_the_journal() -> None:
    """Each in the table of tags, and no other."""
    table = page("journal.md").partition("## Tags")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert sorted(tag for row in rows for tag in re.findall(r"`([a-z.]+)`", row)) == sorted(Tag)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link of a page names a file that exists, and a heading that the file has."""
    for target in LINK.findall(CODE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings]


def test_every_page_is_in_the_index() -> None:
    """Who reads docs/README.md finds all of docs/."""
    index = page("README.md")
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES if path.is_relative_to(ROOT / "docs")}
    assert sorted(name for name in pages - {"README.md"} if f"({name})" not in index) == []
