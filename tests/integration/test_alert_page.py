"""docs/alerts.md: every example of a rule, a channel, a mute and a file is set as it stands there."""

import json
import re
from pathlib import Path

import asyncpg
import pytest

from service.alerts import file
from service.alerts.channels import kinds
from service.alerts.rules import KINDS
from tests.helpers.support import Client

pytestmark = pytest.mark.background

PAGE = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
JSON = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


async def test_every_rule_channel_and_mute_of_the_page_is_set_and_each_kind_has_one(service: Client) -> None:
    for heading, path, expected in (
        ("Rules", "alert-rules", set(KINDS)),
        ("Channels", "alert-channels", set(kinds.KINDS)),
        ("Mutes", "alert-mutes", {None}),
    ):
        examples = [json.loads(found) for found in JSON.findall(section(heading))]
        assert {example.get("kind") for example in examples} == expected
        for place, example in enumerate(examples):
            answer = await service.http.put(f"/api/v1/{path}/example-{place}", json=example)
            assert answer.status_code == 200, answer.text
            if heading == "Rules":
                tried = await service.http.post("/api/v1/alert-rules/test", json=example)
                assert tried.status_code == 200, tried.text


async def test_the_file_of_the_page_is_applied(database: asyncpg.Connection, tmp_path: Path) -> None:
    (text,) = TOML.findall(section("A file"))
    path = tmp_path / "alerts.toml"
    path.write_text(text)

    made = await file.apply(database, file.read(path, allows_private=False))

    assert [str(one) for one in made] == ["add channel ops", "add rule busy", "add rule web-silent"]
