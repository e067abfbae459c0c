"""`--open` on a machine without a browser."""

from __future__ import annotations

import webbrowser

import pytest

from sparsedial.verbs.browser import open_page


@pytest.mark.parametrize("found", [True, False])
def test_it_is_said_where_no_browser_is_found(found, monkeypatch, capsys):
    monkeypatch.setattr(webbrowser, "open", lambda address: found)
    open_page("http://127.0.0.1:8000/")
    said = "" if found else "no browser was found here; open http://127.0.0.1:8000/ in one\n"
    assert capsys.readouterr().err == said
