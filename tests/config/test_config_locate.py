"""Where settings stand in a TOML text."""

import tomllib
from textwrap import dedent

from hypothesis import given, settings
from hypothesis import strategies as st

from zapd.config.locate import Locator


def test_keys_and_headers_have_their_lines() -> None:
    """Plain keys, dotted keys, quoted names and table headers are found where they stand."""
    text = dedent("""\
        # a comment = 1
        top = 1
        [server]
        data_dir = "x # no comment = 1"   # a comment

        [domain."metrics.*"]
        "a b".c = 1
        [ domain . 'x"y' ]
        backends = []
    """)
    lines = Locator(text)
    assert lines.line(("top",)) == 2
    assert lines.line(("server",)) == 3
    assert lines.line(("server", "data_dir")) == 4
    assert lines.line(("domain", "metrics.*")) == 6
    assert lines.line(("domain", "metrics.*", "a b", "c")) == 7
    assert lines.line(("domain", 'x"y', "backends")) == 9


def test_each_element_of_an_array_of_tables_is_told_apart() -> None:
    """The n-th [[zap]] and its settings, sub-tables included, have their own lines."""
    text = '[[zap]]\nlisten = "a"\n[[zap]]\nlisten = "b"\n[zap.more]\nx = 1\n'
    lines = Locator(text)
    assert lines.line(("zap", 0)) == 1
    assert lines.line(("zap", 0, "listen")) == 2
    assert lines.line(("zap", 1)) == 3
    assert lines.line(("zap", 1, "listen")) == 4
    assert lines.line(("zap", 1, "more", "x")) == 6


def test_values_over_several_lines_are_passed_over() -> None:
    """Arrays, inline tables and long strings that look like settings confuse nothing."""
    text = dedent('''\
        a = [
          "x = 1", # ] = 2
          { b = "]" },
        ]
        c = """
        [no.header]
        d = 1 \\""" still
        """
        e = \'\'\'
        f = 1
        \'\'\'
        [g]
        h = 1
    ''')
    tomllib.loads(text)
    lines = Locator(text)
    assert [lines.line((name,)) for name in "aceg"] == [1, 5, 9, 12]
    assert lines.line(("g", "h")) == 13
    assert lines.line(("f",)) == 1  # nowhere


def test_what_is_not_written_has_the_line_of_its_table() -> None:
    """A missing setting is looked for at the nearest table above it."""
    lines = Locator("\n[server]\nworkers = 1\n")
    assert lines.line(("server", "drain")) == 2
    assert lines.line(("admin", "listen")) == 1
    assert lines.line(("server", "workers", 0, "x")) == 3


@given(st.text(alphabet="ab.=[]{}\"'\n# \\,1", max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_it_raise(text: str) -> None:
    """Whatever the text is, walking over it ends and raises nothing."""
    Locator(text).line(("a", "b"))
