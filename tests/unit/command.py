"""The command line, in this process."""

import pytest

from rltrainer import cli


class Command:
    """Runs commands of `rltrainer`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.said = ""
        """What the last command wrote to standard error."""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Runs one that ends with `code`; what it printed, or of one that failed, what it complained of."""
        with pytest.raises(SystemExit) as ended:
            cli.main([str(each) for each in arguments])
        printed = self.capsys.readouterr()
        self.said = printed.err
        assert ended.value.code == code, printed.err
        assert "Traceback" not in printed.err, printed.err
        return printed.err if code else printed.out
