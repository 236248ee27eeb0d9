"""Runs the tests that need a GPU, in one process, and prints a line for each as it begins and ends."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

MARK = "pytest.mark.gpu"
ROOT = Path(__file__).parents[1]


class _Lines:
    """A plugin of pytest that prints how each test ended, to where stdout went before pytest captured it."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        self.failed: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        print(json.dumps({"bench": "gpu_tests", "began": nodeid}), file=self._out, flush=True)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or (report.when == "setup" and not report.passed) or report.failed:
            line = {"bench": "gpu_tests", "test": report.nodeid, "outcome": report.outcome}
            line |= {"seconds": round(report.duration, 1)}
            if report.failed:
                line["error"] = report.longreprtext[-1500:]
                self.failed.append(report.nodeid)
            print("\n" + json.dumps(line), file=self._out, flush=True)  # pytest's dots stand in the line before


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them. Exits with pytest's code and the names of failed tests, if any."""
    parser = argparse.ArgumentParser("bench.gpu_tests")
    parser.add_argument("--collect", action="store_true", help="only see whether they can be collected")
    asked = parser.parse_args(arguments)
    files = [str(p) for p in sorted(ROOT.glob("tests/**/test_*.py")) if MARK in p.read_text("utf-8")]
    files.sort(key=lambda path: path.endswith("test_gpu.py"))  # the longest ones last
    # a warning of this torch or that driver is no failure here
    options = ["-m", "gpu", "-W", "default", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    options += ["-o", "faulthandler_timeout=20"]  # says where a test hangs before its part is ended
    if asked.collect:
        options.append("--collect-only")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # whatever else is installed there
    lines = _Lines()
    code = int(pytest.main([*options, "-q", "--capture=fd", *files], plugins=[lines]))
    if asked.collect:
        print(json.dumps({"bench": "gpu_tests", "files": len(files)}), flush=True)
    if code:
        print(f"pytest ended with {code}; failed: {', '.join(lines.failed) or 'none'}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
