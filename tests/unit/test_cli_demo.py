"""What the demo says when something did not come out right."""

from pathlib import Path

import pytest

from banyan.cli.demo_show import Story
from banyan.client import Client


def test_what_did_not_come_out_right_is_named_with_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(Client("http://banyan.test", ""), tmp_path)
    story.expect("the sum is right", True, "")
    story.expect("its log is there", False, "it is 'nothing [yet]'")
    story.close()
    assert story.problems == ["its log is there: it is 'nothing [yet]'"]
    shown = capsys.readouterr().out
    assert "✓ the sum is right" in shown
    assert "✗ its log is there (it is 'nothing [yet]')" in shown
    assert "1 of 2 did not come out right" in shown
