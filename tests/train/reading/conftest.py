"""A real browser to look at pages with."""

import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if not path:
        pytest.skip("chromium is not installed")
    quiet = "background-networking component-update gpu quic sync"
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet.split())]
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=flags) as browser:
        yield browser
