"""Pages are HTML that shows what it is given as text, whatever that text is."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from infra.multidomain.page import Cell, figure, page, paragraph, section, table


class Texts(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


# An HTML parser reads these as other characters, or as none.
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))


@given(PLAIN)
def test_any_text_is_shown_as_it_is_and_makes_no_element(text: str) -> None:
    parts = [paragraph(text), figure(text, ""), table("t", text, [text], [(text, [Cell(text, text)])])]
    whole = page(text, text, [text], [section("s", text, parts)])
    plain = page(
        "",
        "",
        [""],
        [section("s", "", [paragraph(""), figure("", ""), table("t", "", [""], [("", [Cell("", " ")])])])],
    )
    assert Texts(whole).tags == Texts(plain).tags or not text
    assert Texts(whole).text.count(text) >= 11
