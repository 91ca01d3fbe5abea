"""conformance/page: one page that holds everything and loads nothing."""

from __future__ import annotations

from html.parser import HTMLParser

from xent.conformance.page import html
from xent.conformance.report import Record, Report

TIER = "agrees with torch"


class Reader(HTMLParser):
    """Tags that balance, addresses, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.loaded += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_one_page() -> None:
    wrong = Record("value.mean", TIER, 1, "failed", "Why.", "hint", "<x> & y", "1", "2", "row 0")
    absent = Record("value.sum", TIER, 1, "not offered", "Why.", "hint", note="no reduction")
    fine = Record("value.rows", TIER, 1, "passed", "Why.", "hint")
    page = html(Report("a:<b>", "torch", "it runs", 7, {"xent": "1"}, (fine, wrong, absent)))
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not reader.loaded
    assert "<script" not in page
    for told in ("a:<b>", "1 of 2", "<x> & y", "row 0", "no reduction", "seed     7"):
        assert told in reader.text


def test_a_page_of_nothing() -> None:
    page = html(Report("a:b", "", "", 7, {}, (), trouble="no module named a"))
    assert "It could not be graded: no module named a" in page
