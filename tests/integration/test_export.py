"""/api/v1/export/traffic: every row once and in order, in every format, whatever the size of a page."""

import asyncio
import csv
import io
import itertools
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import asyncpg
import httpx
import pandas as pd  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from service.http.errors import Problem
from service.traffic import export, export_formats
from tests.helpers.history import write_rows
from tests.helpers.support import Client, heartbeat, hours_ago, interface

T0 = hours_ago(3)
PATH = "/api/v1/export/traffic"
SERVERS = ("a", "b", "nas", "pi", "z")
RELATIONS = {"raw": "network_samples"} | {level: f"network_traffic_{level}" for level in ("1m", "15m", "1h", "1d")}
ORDER = {"raw": "time"}
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven rows, so that a small history takes many of them."""
    for writer in (export_formats.Writer, export_formats.ParquetWriter):
        monkeypatch.setattr(writer, "page_rows", 7)


@pytest.fixture
async def history(service: Client, database: asyncpg.Connection, small_pages: None) -> Client:
    for server_id in (*SERVERS, "silent"):
        await service.post(
            heartbeat(server_id, at=T0) if server_id == "silent" else heartbeat(server_id, at=T0, lo9=(1, 2))
        )
    await write_rows(database, T0 - timedelta(hours=2), T0, timedelta(minutes=5), ("nas", "b"))
    await write_rows(database, T0 - timedelta(minutes=50), T0, timedelta(minutes=25), ("a", "z"))
    return service


async def exported(service: Client, **query: Any) -> httpx.Response:
    answer = await service.http.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return answer


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


async def keys(database: asyncpg.Connection, bucket: str, where: str = "true") -> list[tuple[str, str, str]]:
    time = ORDER.get(bucket, "bucket")
    rows = await database.fetch(
        f"SELECT server_id, interface_name, {time} AS time FROM {RELATIONS[bucket]} WHERE {where} ORDER BY 1, 2, 3"
    )
    fraction = "%Y-%m-%dT%H:%M:%S.%fZ" if bucket == "raw" else "%Y-%m-%dT%H:%M:%SZ"
    return [(row["server_id"], row["interface_name"], row["time"].strftime(fraction)) for row in rows]


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["server_id"], row["interface_name"], next(iter(row.values()))


class TestRows:
    @pytest.mark.parametrize("bucket", RELATIONS)
    async def test_every_row_is_there_once_and_in_order(
        self, history: Client, database: asyncpg.Connection, bucket: str
    ) -> None:
        found = lines(await exported(history, format="ndjson", bucket=bucket))

        assert [key_of(row) for row in found] == await keys(database, bucket)
        assert len(found) > 7

    async def test_formats_say_the_same(self, history: Client, database: asyncpg.Connection) -> None:
        for bucket in RELATIONS:
            rows = lines(await exported(history, format="ndjson", bucket=bucket))
            assert (await exported(history, format="json", bucket=bucket)).json() == rows
            table = list(csv.DictReader(io.StringIO((await exported(history, bucket=bucket)).text)))
            assert [{name: plain(name, value) for name, value in row.items()} for row in rows] == [
                {name.removesuffix("_utc"): number(name, value) for name, value in row.items()} for row in table
            ]

    async def test_values_are_the_relations_own(self, history: Client, database: asyncpg.Connection) -> None:
        rows = lines(await exported(history, format="ndjson", bucket="raw", server="nas"))

        stored = await database.fetch(
            "SELECT * FROM network_samples WHERE server_id = 'nas' ORDER BY interface_name, time"
        )
        for row, record in zip(rows, stored, strict=True):
            assert row.pop("time") == record["time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            assert row == {name: record[name] for name in row}

    async def test_filters_and_the_half_open_range(self, history: Client, database: asyncpg.Connection) -> None:
        since, until = T0 - timedelta(hours=1), T0 - timedelta(minutes=10)

        found = lines(
            await exported(
                history, format="ndjson", bucket="raw", server=["nas", "a", "nas"], interface=["eth0", "none"],
                since=since.isoformat(), until=f"{until:%Y-%m-%dT%H:%M:%SZ}",
            )
        )  # fmt: skip

        assert [key_of(row) for row in found] == await keys(
            database,
            "raw",
            f"server_id IN ('a', 'nas') AND interface_name = 'eth0' AND time >= '{since}' AND time < '{until}'",
        )
        assert {row["server_id"] for row in found} == {"a", "nas"}

    @pytest.mark.parametrize("file_format", ["csv", "json", "ndjson"])
    async def test_nothing_is_a_file_too(self, service: Client, file_format: str) -> None:
        answer = await exported(service, format=file_format)

        assert answer.text.count("\n") == (0 if file_format == "ndjson" else 1)
        assert file_format != "json" or answer.json() == []

    async def test_counters_keep_their_64_bits(self, service: Client) -> None:
        for n, at in enumerate((T0, T0 + timedelta(minutes=1))):
            await service.post(heartbeat(at=at) | {"network_interfaces": [interface("eth0", 2**64 - 2 + n, 2**63)]})

        rows = lines(await exported(service, format="ndjson", bucket="raw"))

        assert [(row["rx_bytes_counter"], row["tx_bytes_counter"], row["rx_bytes"]) for row in rows] == [
            (2**64 - 2, 2**63, 0), (2**64 - 1, 2**63, 1),
        ]  # fmt: skip


def plain(name: str, value: Any) -> str | float:
    """A JSON value as CSV has it."""
    return number(name, "" if value is None else json.dumps(value).strip('"'))


def number(name: str, text: str) -> str | float:
    """Of a column whose numbers have fractions, the number, however it is written; of a time, it without its zone."""
    if name.removesuffix("_utc") in ("time", "bucket"):
        return text.removesuffix("Z")
    return float(text) if text and name.endswith(("_bps_max", "_seconds")) else text


class TestContinuing:
    @pytest.mark.parametrize("file_format", ["csv", "ndjson"])
    @pytest.mark.parametrize("servers", [[], ["nas", "b", "z"]])
    async def test_parts_of_any_size_are_the_whole(self, history: Client, file_format: str, servers: list[str]) -> None:
        def rows(answer: httpx.Response) -> list[dict[str, Any]]:
            return lines(answer) if file_format == "ndjson" else list(csv.DictReader(io.StringIO(answer.text)))

        whole = rows(await exported(history, format=file_format, bucket="raw", server=servers))

        for limit in (1, 7, 10, 10_000):
            parts: list[dict[str, Any]] = []
            after: dict[str, str] = {}
            while part := rows(
                await exported(history, format=file_format, bucket="raw", server=servers, limit=limit, **after)
            ):
                assert len(part) <= limit
                parts += part
                server_id, name, time = key_of(part[-1])
                after = {"after": f"{server_id},{time},{name}"}
                if limit == 1 and len(parts) > 30:
                    break
            assert parts == whole[: len(parts)]
            assert limit == 1 or len(parts) == len(whole)

    @pytest.mark.parametrize(
        "query",
        [
            {"after": "nas"}, {"after": "nas,now,eth0"},
            {"after": "nas,0001-01-01T00:00:00+14:00,eth0"}, {"since": "2026-01-01T00:00:00"}, {"until": "soon"},
            {"format": "xlsx"}, {"bucket": "5m"}, {"limit": "0"},
        ],
    )  # fmt: skip
    async def test_what_is_not_as_specified_is_422_and_named(self, service: Client, query: dict[str, str]) -> None:
        answer = await service.http.get(PATH, params=query)

        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, next(iter(query)))

    async def test_a_server_that_never_was_is_404(self, history: Client) -> None:
        answer = await history.http.get(PATH, params={"server": ["nas", "nobody\0"]})

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_server")


FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"  # = + - @


class TestSpreadsheets:
    async def test_no_name_is_a_formula(self, service: Client, small_pages: None) -> None:
        names = ["=1+1", "+1", "-1", "@x", "'q", *(f"{one}1" for one in FULL_WIDTH), 'a"b', "a,b", "eth0", "ä=1"]
        for minute in range(3):
            await service.post(
                heartbeat("-cmd", at=T0 + timedelta(minutes=minute))
                | {"network_interfaces": [interface(name, minute) for name in names]}
            )

        table = list(csv.reader(io.StringIO((await exported(service, bucket="raw")).text)))
        rows = lines(await exported(service, format="ndjson", bucket="raw"))

        assert len(table) == 1 + len(rows) == 1 + 3 * len(names)
        assert {row[1] for row in table[1:]} == {"'-cmd"}
        assert {row[2] for row in table[1:]} == {
            f"'{name}" if name[0] in "=+-@'" + FULL_WIDTH else name for name in names
        }
        assert {(row["server_id"], row["interface_name"]) for row in rows} == {("-cmd", name) for name in names}


class TestAnswers:
    async def test_it_says_what_it_is(self, history: Client) -> None:
        answer = await exported(history, bucket="1h")

        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.headers["content-disposition"] == 'attachment; filename="linkbeat-traffic-1h.csv"'
        assert "content-length" not in answer.headers

    async def test_it_is_compressed_for_who_takes_that(self, history: Client) -> None:
        plain_answer = await history.http.get(PATH, headers={"Accept-Encoding": "identity, gzip;q=0"})
        answer = await history.http.get(PATH, headers={"Accept-Encoding": "br, gzip;q=0.5"})

        assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "accept-encoding")
        assert "content-encoding" not in plain_answer.headers
        assert answer.text == plain_answer.text

    async def test_too_many_at_once_are_429(self, history: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(export, "EXPORTS_AT_ONCE", 0)

        answer = await history.http.get(PATH)

        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_exports")
        assert int(answer.headers["Retry-After"]) > 0

    async def test_one_token_leaves_room_for_the_others(self, history: Client) -> None:
        exports = export.Exports()

        with exports.one_more("a"), exports.one_more("a"):
            with pytest.raises(Problem, match="with this token"), exports.one_more("a"):
                pass
            with exports.one_more("b"), pytest.raises(Problem, match="in this process"), exports.one_more("c"):
                pass
        with exports.one_more("a"), exports.one_more(""), exports.one_more(""):
            pass
        assert (await history.http.get(PATH)).status_code == 200

    async def test_without_a_key_there_is_none(self, history: Client) -> None:
        assert (await history.http.get(PATH, headers={"Authorization": ""})).status_code == 401


class TestParquet:
    async def test_without_pyarrow_it_says_what_to_install(
        self, service: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(name: str) -> None:
            raise ImportError(name)

        monkeypatch.setattr(export_formats, "import_module", missing)

        answer = await service.http.get(PATH, params={"format": "parquet"})

        assert (answer.status_code, answer.json()["code"]) == (501, "parquet_missing")
        assert "pip install 'linkbeat[parquet]'" in answer.json()["detail"]

    @pytest.mark.parametrize("bucket", RELATIONS)
    async def test_it_is_typed_and_says_the_same(self, history: Client, bucket: str) -> None:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is missing: pip install pyarrow")
        rows = lines(await exported(history, format="ndjson", bucket=bucket))

        file = parquet.ParquetFile(io.BytesIO((await exported(history, format="parquet", bucket=bucket)).content))

        table = file.read()
        types = {field.name: str(field.type) for field in table.schema}
        assert types["time" if bucket == "raw" else "bucket"] == "timestamp[us, tz=UTC]"
        assert types["rx_bytes"] == "int64"
        assert types["is_lowest"] == "bool"
        assert bucket != "raw" or types["rx_bytes_counter"] == "uint64"
        assert [{name: as_json(name, value) for name, value in row.items()} for row in table.to_pylist()] == [
            {name: as_json(name, value) for name, value in row.items()} for row in rows
        ]
        assert file.num_row_groups > 1 or len(rows) <= 7

    async def test_nothing_is_a_file_too(self, service: Client) -> None:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is missing: pip install pyarrow")

        answer = await exported(service, format="parquet")

        assert parquet.read_table(io.BytesIO(answer.content)).num_rows == 0


def as_json(name: str, value: Any) -> Any:
    if isinstance(value, str) and name in ("time", "bucket"):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if name.endswith("_bps_max") and value is not None:
        return pytest.approx(value, rel=1e-6)
    return value


async def test_pandas_reads_types_and_utc_times(history: Client) -> None:
    text = (await exported(history, bucket="raw")).text
    frame = pd.read_csv(io.StringIO(text), parse_dates=["time_utc"])

    assert str(frame.dtypes["time_utc"]).startswith("datetime64")
    assert frame["time_utc"].max().tz_localize("UTC") == T0
    assert str(frame.dtypes["rx_bytes"]) == "int64"
    assert str(frame.dtypes["is_up"]) == "bool"


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is missing: apt-get install libreoffice-calc")
async def test_libreoffice_reads_numbers_truths_and_times(history: Client, tmp_path: Path) -> None:
    (tmp_path / "traffic.csv").write_text((await exported(history, bucket="raw", server="nas")).text)
    # Comma, quotes, UTF-8, from the first line on, English (USA), and numbers of every kind recognised.
    convert = [
        "soffice", f"-env:UserInstallation=file://{tmp_path}/profile", "--headless",
        "--infilter=CSV:44,34,76,1,,1033,false,true", "--convert-to", "fods", "--outdir", ".", "traffic.csv",
    ]  # fmt: skip
    converting = await asyncio.create_subprocess_exec(*convert, cwd=tmp_path)
    assert await asyncio.wait_for(converting.wait(), 60) == 0

    table = ET.parse(tmp_path / "traffic.fods")  # noqa: S314 - LibreOffice wrote it
    head, first = [
        [(cell.get(f"{OFFICE}value-type"), cell.get(f"{OFFICE}date-value"), "".join(cell.itertext()).strip())
         for cell in row.iter(f"{TABLE}table-cell") for _ in range(int(cell.get(f"{TABLE}number-columns-repeated", 1)))]
        for row in itertools.islice(table.iter(f"{TABLE}table-row"), 2)
    ]  # fmt: skip
    columns = {name: cell for (_, _, name), cell in zip(head, first, strict=False)}

    assert columns["server_id"] == ("string", None, "nas")
    assert columns["time_utc"][0] == "date"
    assert columns["time_utc"][1] == (T0 - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    assert columns["rx_bytes"][0] == "float"
    assert columns["is_up"][0] == "boolean"
