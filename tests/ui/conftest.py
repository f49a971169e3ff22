"""One browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.service.browser import chromium, resize
from tests.service.server import Server
from tests.ui.browsing import Page


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), width=1200, height=1000) as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, server: Server) -> Page:
    """The page as a new visitor finds it, on a desktop."""
    shown = Page(browser, server.url)
    resize(browser, 1200, 1000)
    shown.forget()
    shown.open()
    shown.complaints()
    return shown
