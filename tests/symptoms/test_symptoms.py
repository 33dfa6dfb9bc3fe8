"""Every symptom has its test, or stands as "not yet" with a reason."""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROW = re.compile(r"^\| (\d+) \| .+ \| (.+) \|$", re.MULTILINE)


def test_the_list_is_whole() -> None:
    rows = {
        int(number): told for number, told in ROW.findall((HERE / "README.md").read_text("utf-8"))
    }
    assert sorted(rows) == list(range(1, 26))
    there = {int(path.name[5:7]) for path in HERE.glob("test_[0-9][0-9]_*.py")}
    for number, told in rows.items():
        if told.startswith("not yet"):
            assert number not in there, f"symptom {number} has a test now"
            assert len(told) > len("not yet: ") + 20
        elif told.startswith("`tests/"):
            file = HERE.parents[1] / told.split("`")[1]
            assert f"def test_symptom_{number}_" in file.read_text("utf-8")
        else:
            assert number in there, f"symptom {number} has no test"
