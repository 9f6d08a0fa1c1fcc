"""The server's log."""

import json
import subprocess
import sys

SAID = r"""
import logging, warnings
from workbench.serving.log import say, write_lines
write_lines()
say("request", path="/\nfalse")
warnings.warn("one\ntwo")
logging.getLogger("panel").error("three\nfour")
"""


def test_events_warnings_and_others_words_are_one_line_of_json_each() -> None:
    done = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("info", "workbench"),
        ("warning", "py.warnings"),
        ("error", "panel"),
    ]
    assert lines[0]["path"] == "/\nfalse"
    assert "one\ntwo" in lines[1]["event"]
