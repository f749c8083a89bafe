"""The columns of an export, and how each format writes them: mostly in the statement, the rest in Python.

CSV      also for spreadsheets. A ' is put before names that spreadsheets would treat as formulas, because they begin
         with = + - @, a full-width form of these, or '. Column names show that times are UTC: with a Z, LibreOffice
         treats them as text
JSON     one array; NDJSON: one object per line
Parquet  a row group for each page, typed; needs pyarrow
"""

import asyncio
import csv
import io
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from service.http.errors import Problem

_GZIP = 16 + zlib.MAX_WBITS
# In some languages Excel also treats the full-width forms as formulas.
_FORMULAS = "'=', '+', '-', '@', '\uff1d', '\uff0b', '\uff0d', '\uff20', ''''"
_arrows_thread = ThreadPoolExecutor(1, "arrow")


class Column(NamedTuple):
    """kind: time, name, text, bool, int, uint, double or real."""

    name: str
    kind: str


class Relation(NamedTuple):
    """A relation that can be exported; its first column is the time."""

    name: str
    columns: tuple[Column, ...]

    @property
    def time(self) -> str:
        return self.columns[0].name


def _columns(**kinds: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for kind, names in kinds.items() for name in names.split())


_SERIES = (Column("server_id", "name"), Column("interface_name", "name"))
_AMOUNTS = _columns(int="rx_bytes tx_bytes rx_packets tx_packets rx_errors tx_errors rx_dropped tx_dropped")
_SAMPLE = (
    Column("time", "time"),
    *_SERIES,
    *_AMOUNTS,
    *_columns(bool="is_up is_lowest is_folded", text="delta_kind", double="elapsed_seconds interval_seconds"),
    *_columns(int="speed_mbps", uint="rx_bytes_counter tx_bytes_counter rx_packets_counter tx_packets_counter"),
)
_LEVEL = (
    Column("bucket", "time"),
    *_SERIES,
    *_AMOUNTS,
    *_columns(int="samples expected_samples up_samples up_ms resets rejected", real="rx_bps_max tx_bps_max"),
    Column("is_lowest", "bool"),
)


def relation_of(bucket: str) -> Relation:
    """The relation of a bucket; `raw`: the samples."""
    return Relation("network_samples", _SAMPLE) if bucket == "raw" else Relation(f"network_traffic_{bucket}", _LEVEL)


def _expression(column: Column, *, is_json: bool = False, is_for_spreadsheets: bool = False) -> str:
    """The SQL expression of a column in the file."""
    if column.kind == "time":
        # Buckets start at whole seconds.
        fraction = ".US" if column.name == "time" else ""
        zone = "" if is_for_spreadsheets else '"Z"'
        return f"""to_char({column.name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS{fraction}{zone}')"""
    if column.kind == "name" and is_for_spreadsheets:
        return f"CASE WHEN left({column.name}, 1) IN ({_FORMULAS}) THEN '''' ELSE '' END || {column.name}"
    if column.kind == "bool" and not is_json:
        return f"{column.name}::text"
    if column.kind == "real" and (is_json or is_for_spreadsheets):
        # PostgreSQL writes a real above a million with an exponent. Doubles are seconds here, and stay below that.
        return f"{column.name}::text::numeric"
    return column.name


class Writer:
    """CSV, and the base of the other formats.

    page_rows     rows per page
    copy_options  options of COPY for the lines of a page
    """

    media_type = "text/csv; charset=utf-8; header=present"
    is_compressed = False
    page_rows = 10_000
    copy_options: dict[str, Any] = {"format": "csv"}  # noqa: RUF012 - nobody changes it

    def __init__(self, relation: Relation) -> None:
        self.relation = relation

    def select(self, rows: str) -> str:
        """SQL for the lines, from SQL for the rows."""
        columns = ", ".join(_expression(one, is_for_spreadsheets=True) for one in self.relation.columns)
        return f"SELECT {columns} FROM ({rows}) r"

    def head(self) -> bytes:
        names = [f"{one.name}_utc" if one.kind == "time" else one.name for one in self.relation.columns]
        return (",".join(names) + "\n").encode()

    async def page(self, lines: bytearray) -> bytes | bytearray:
        """The part of the file that these lines become."""
        return lines

    async def tail(self) -> bytes:
        return b""

    def last_key(self, lines: bytearray) -> tuple[str, str, str]:
        """Server, interface and time of the last line."""
        time, server_id, interface = next(csv.reader([_last(lines).decode()]))[:3]
        return _unguarded(server_id), _unguarded(interface), time


class NdjsonWriter(Writer):
    """One object per line. JSON contains no raw control characters, so these two prevent COPY from quoting."""

    media_type = "application/x-ndjson"
    copy_options = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}  # noqa: RUF012 - nobody changes it

    def select(self, rows: str) -> str:
        columns = ", ".join(f"{_expression(one, is_json=True)} AS {one.name}" for one in self.relation.columns)
        return f"SELECT row_to_json(j) FROM (SELECT {columns} FROM ({rows}) r) j"

    def head(self) -> bytes:
        return b""

    def last_key(self, lines: bytearray) -> tuple[str, str, str]:
        row = msgspec.json.decode(_last(lines))
        return row["server_id"], row["interface_name"], row[self.relation.time]


class JsonWriter(NdjsonWriter):
    """The same objects in an array."""

    media_type = "application/json"

    def __init__(self, relation: Relation) -> None:
        super().__init__(relation)
        self._between = b"[\n"

    async def page(self, lines: bytearray) -> bytes:
        between, self._between = self._between, b",\n"
        return between + lines.removesuffix(b"\n").replace(b"\n", b",\n")

    async def tail(self) -> bytes:
        return b"\n]\n" if self._between == b",\n" else b"[]\n"


class ParquetWriter(Writer):
    """Typed: times in UTC to the microsecond, counters with all 64 bits. Each page is a row group."""

    media_type = "application/vnd.apache.parquet"
    is_compressed = True
    page_rows = 20_000

    def __init__(self, relation: Relation, arrow: Any, arrow_csv: Any, parquet: Any) -> None:
        super().__init__(relation)
        types = {
            "time": arrow.timestamp("us", "UTC"), "name": arrow.string(), "text": arrow.string(),
            "bool": arrow.bool_(), "int": arrow.int64(), "uint": arrow.uint64(), "double": arrow.float64(),
            "real": arrow.float32(),
        }  # fmt: skip
        self._schema = arrow.schema([(column.name, types[column.kind]) for column in relation.columns])
        self._csv = arrow_csv
        self._file = io.BytesIO()
        self._parquet = parquet.ParquetWriter(_Appending(self._file), self._schema, compression="zstd")

    def select(self, rows: str) -> str:
        return f"SELECT {', '.join(map(_expression, self.relation.columns))} FROM ({rows}) r"

    def head(self) -> bytes:
        return b""

    async def page(self, lines: bytearray) -> bytes:
        await _beside(self._write, lines)
        return self._taken()

    async def tail(self) -> bytes:
        await _beside(self._parquet.close)
        return self._taken()

    def last_key(self, lines: bytearray) -> tuple[str, str, str]:
        time, server_id, interface = next(csv.reader([_last(lines).decode()]))[:3]
        return server_id, interface, time

    def _write(self, lines: bytearray) -> None:
        table = self._csv.read_csv(
            io.BytesIO(lines),
            read_options=self._csv.ReadOptions(column_names=self._schema.names, use_threads=False),
            parse_options=self._csv.ParseOptions(newlines_in_values=False),
            convert_options=self._csv.ConvertOptions(
                column_types=self._schema, strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
        self._parquet.write_table(table, row_group_size=self.page_rows)

    def _taken(self) -> bytes:
        taken = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return taken


class _Appending(io.RawIOBase):
    """A write-only file whose contents are taken away while it is written."""

    def __init__(self, to: io.BytesIO) -> None:
        super().__init__()
        self._to = to
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._to.write(data)
        self._at += written
        return written

    def tell(self) -> int:
        return self._at


async def writer_of(name: str, relation: Relation) -> Writer:
    """The writer of a format. Raises Problem (501) if a package that it needs is not installed."""
    if name != "parquet":
        return {"csv": Writer, "json": JsonWriter, "ndjson": NdjsonWriter}[name](relation)
    try:
        # Imported on demand: it takes half a second, and memory that most services never need.
        modules = await asyncio.to_thread(
            lambda: [import_module(one) for one in ("pyarrow", "pyarrow.csv", "pyarrow.parquet")]
        )
    except ImportError as raised:
        raise Problem("parquet_missing", "Parquet needs pyarrow: pip install 'linkbeat[parquet]'") from raised
    # Arrow's own allocators keep freed memory, which costs half as much again.
    modules[0].set_memory_pool(modules[0].system_memory_pool())
    return ParquetWriter(relation, *modules)


async def _beside(work: Callable[..., object], *arguments: object) -> None:
    """Runs Arrow's work in a single thread, because malloc keeps freed memory for each thread."""
    await asyncio.get_running_loop().run_in_executor(_arrows_thread, work, *arguments)


async def gzipped(parts: AsyncIterator[bytes | bytearray]) -> AsyncIterator[bytes]:
    """Compresses the parts in a thread, and yields the output as it becomes available."""
    compressor = zlib.compressobj(1, wbits=_GZIP)
    async for part in parts:
        yield await asyncio.to_thread(compressor.compress, part)
    yield compressor.flush()


def _last(lines: bytearray) -> bytearray:
    """The last line: neither names nor JSON contain a line feed."""
    return lines[lines.rfind(b"\n", 0, len(lines) - 1) + 1 : -1]


def _unguarded(name: str) -> str:
    return name.removeprefix("'")


def described() -> Sequence[str]:
    """The media types of all formats, for the OpenAPI document."""
    return [one.media_type.partition(";")[0] for one in (Writer, JsonWriter, NdjsonWriter, ParquetWriter)]
