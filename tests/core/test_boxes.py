"""Lists of boxes: every line is read, and the first that is wrong is named."""

from __future__ import annotations

import pytest

from core.fleet.boxes import BadLine, proposed, read
from core.handoffs import Box
from sync.names import BadName, DeviceId, Serial, SiteId

HEAD = "serial,name,site,labels\n"


def test_a_list_becomes_boxes() -> None:
    text = "\ufeffname, serial ,site,labels\nbox-1, SN:1.a ,north,line=A1; old\nbox-2,SN2,south,\n"
    assert read(text) == (
        Box(Serial("SN:1.a"), DeviceId("box-1"), SiteId("north"), ("line=A1", "old")),
        Box(Serial("SN2"), DeviceId("box-2"), SiteId("south")),
    )
    assert read("serial,name,site\nSN1,b,n\n") == (Box(Serial("SN1"), DeviceId("b"), SiteId("n")),)
    assert read(HEAD) == ()


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", 1, "missing"),
        ("serial,name\nA,b\n", 1, "columns"),
        ("serial,name,site,colour\nA,b,c,d\n", 1, "colour"),
        ("serial,name,site,site\nA,b,c,d\n", 1, "columns"),
        (HEAD + "A,b,c,\nB,Box,c,\n", 3, "'Box' is no device name"),
        (HEAD + "A,wаtch,c,\n", 2, "no device name"),  # a Cyrillic letter
        (HEAD + "A,#,c,\n", 2, "'#'"),
        (HEAD + "A,b/+,c,\n", 2, "'b/+'"),
        (HEAD + "A,b\x00,c,\n", 2, "device name"),
        (HEAD + "A B,b,c,\n", 2, "serial number"),
        (HEAD + "A,b,c d,\n", 2, "site name"),
        (HEAD + "A,b,c,No\n", 2, "no label"),
        (HEAD + "A,b,c,=x\n", 2, "no label"),
        (HEAD + "A,b\n", 2, "fields"),
        (HEAD + "A,b,c,d,e\n", 2, "fields"),
        (HEAD + "A,b,c,\nB,b,c,\n", 3, "line 2 too"),
        (HEAD + "A,b,c,\nA,d,c,\n", 3, "line 2 too"),
        (HEAD + 'A,"b,c,\n', 2, "no CSV"),
    ],
)
def test_the_first_wrong_line_is_named_and_nothing_is_taken(text: str, line: int, word: str) -> None:
    with pytest.raises(BadLine) as found:
        read(text)
    assert found.value.line == line and word in str(found.value)


def test_a_name_follows_from_a_serial_number_or_does_not() -> None:
    assert proposed(Serial("AB_12.C:d")) == "ab-12-c-d"
    assert len(proposed(Serial("A" * 64))) == 63
    with pytest.raises(BadName):
        DeviceId("_a")
