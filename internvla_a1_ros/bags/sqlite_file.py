"""A rosbag2 SQLite file, by the standard library: in order of time by its index, else row by row around what is damaged."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import zstandard

from internvla_a1_ros.bags.parts import BadPart, Channel, InOrder, Raw, Tell, size_text, steps_back

_HEAD = b"SQLite format 3\0"
_ZSTD = b"\x28\xb5\x2f\xfd"
# After a row that cannot be read the next ones are tried at growing distance, up to this one.
_FURTHEST_ROW = 1 << 20
# Without an index, rows are in the order of their receipt but for what a recorder's threads swap.
_ROWS_HELD = 64


class SqliteFile:
    """One .db3 that is open. Raises BadPart where it is none, or its topics cannot be read."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.path = path
        self.notes: dict[str, dict[str, str]] = {}
        self._tell = tell
        self._damaged = self._torn = False
        with path.open("rb") as file:
            head = file.read(100)
            size = file.seek(0, 2)
        if not head:
            raise BadPart("it is empty")
        if not head.startswith(_HEAD):
            raise BadPart("it is no SQLite file")
        page = int.from_bytes(head[16:18], "big")
        promised = (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
        self._base = self._connect()
        try:
            if promised > size:
                self._note_damage(f"ends after {size_text(size)} of {size_text(promised)}")
            self.channels = self._read_topics()
            self._in_order = self._has_index() and not self._damaged
        except (sqlite3.Error, BadPart) as problem:
            self._base.close()
            raise BadPart(f"its topics cannot be read ({said(problem)})") from None

    @cached_property
    def counts(self) -> Counter[str]:
        """Messages by topic, counted when asked for: it takes a pass over the file, but for the messages' bytes."""
        return self._count()

    @property
    def start_ns(self) -> int | None:
        """Of the first message."""
        return self._span[0]

    @property
    def end_ns(self) -> int | None:
        """Of the last message."""
        return self._span[1]

    def close(self) -> None:
        self._base.close()

    def leaps(self) -> list[tuple[int, int]]:
        """Return where the recorder's clock was set back. Reads the file once, but for the messages' bytes."""
        try:
            return steps_back(row[0] for row in self._base.execute("SELECT timestamp FROM messages ORDER BY id"))
        except sqlite3.DatabaseError:
            return []

    def messages(self, topics: Collection[str] | None, start_ns: int | None, end_ns: int | None) -> Iterator[Raw]:
        """Yield what was received from `start_ns` to before `end_ns`, in that order."""
        wanted = [number for number, channel in self.channels.items() if topics is None or channel.topic in topics]
        first_ns, last_ns = -(1 << 63) if start_ns is None else start_ns, (1 << 63) - 1 if end_ns is None else end_ns
        after = (first_ns - 1 if first_ns > -(1 << 63) else first_ns, 1 << 62)
        if self._in_order:
            which = f"topic_id IN ({','.join(map(str, wanted))}) AND timestamp > ? AND timestamp < ?"
            query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE {which} ORDER BY timestamp, id"
            try:
                for row, number, received_ns, data in self._base.execute(query, (after[0], last_ns)):
                    if isinstance(data, bytes):
                        after = (received_ns, row)
                        yield Raw(received_ns, self.channels[number], data)
                return
            except sqlite3.DatabaseError as problem:
                self._note_damage(said(problem))
        in_order, expected, before_ns = InOrder(), None, self.start_ns
        for row, number, received_ns, data in self._rows("id, topic_id, timestamp, data"):
            if expected is not None and row > expected and self._damaged:
                span = f"between {self._since(before_ns)} and {self._since(received_ns)}"
                self._tell(f"{self.path.name}: {row - expected} messages {span} cannot be read")
            expected, before_ns = row + 1, received_ns
            if number in wanted and isinstance(data, bytes) and (received_ns, row) > after and first_ns <= received_ns < last_ns:
                in_order.add(Raw(received_ns, self.channels[number], data))
                yield from in_order.beyond(_ROWS_HELD)
        if self._torn:
            self._tell(f"{self.path.name}: nothing after {self._since(before_ns)} can be read")
        yield from in_order.until(None)

    def _since(self, at_ns: int | None) -> str:
        return f"{((at_ns or 0) - (self.start_ns or 0)) * 1e-9:.2f} s"

    def _connect(self) -> sqlite3.Connection:
        """Open read-only; what a killed recorder left in its write-ahead log is read too, where the folder lets us."""
        log = self.path.with_name(f"{self.path.name}-wal")
        place = self.path.resolve().as_uri()
        waiting = log.exists() and log.stat().st_size > 0
        for mode in ("?mode=ro", "?immutable=1") if waiting else ("?immutable=1",):
            try:
                base = sqlite3.connect(f"{place}{mode}", uri=True, check_same_thread=False)
                base.execute("PRAGMA schema_version").fetchone()
            except sqlite3.OperationalError:
                continue
            except sqlite3.DatabaseError:  # damaged: said and worked around later
                pass
            if waiting and mode != "?mode=ro":
                self._tell(f"{self.path.name}: its write-ahead log ({size_text(log.stat().st_size)}) cannot be read and is lost")
            return base
        raise BadPart("it cannot be opened")

    def _note_damage(self, why: str) -> None:
        if not self._damaged:
            self._damaged, self._in_order = True, False
            # Lets SQLite open a file that is shorter than it says.
            self._base.execute("PRAGMA writable_schema=ON")
            self._tell(f"{self.path.name}: is damaged ({why}): it is read row by row, and messages in what is missing are lost")

    def _read_topics(self) -> dict[int, Channel]:
        columns = {row[1] for row in self._base.execute("PRAGMA table_info(topics)")}
        if not columns:
            raise BadPart("it holds no table of topics")
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        definitions: dict[str, tuple[str, str]] = {}
        try:
            columns_of = "topic_type, encoding, encoded_message_definition"
            for kind, encoding, text in self._base.execute(f"SELECT {columns_of} FROM message_definitions"):
                definitions[str(kind)] = (str(encoding), str(text))
        except sqlite3.DatabaseError:  # Humble writes none
            pass
        found = {}
        rows = self._base.execute(f"SELECT id, name, type, serialization_format, {qos} FROM topics")
        for number, name, kind, serialization, told in rows:
            found[number] = Channel(str(name), str(kind), *definitions.get(kind, ("", "")), str(told or ""), str(serialization))
        return found

    def _has_index(self) -> bool:
        names = [row[1] for row in self._base.execute("PRAGMA index_list(messages)")]
        return any([row[2] for row in self._base.execute(f'PRAGMA index_info("{name}")')][:1] == ["timestamp"] for name in names)

    def _count(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        if not self._damaged:
            try:
                for number, count in self._base.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"):
                    if number in self.channels:
                        counts[self.channels[number].topic] += count
                return counts
            except sqlite3.DatabaseError as problem:
                self._note_damage(said(problem))
                counts.clear()
        for _, number in self._rows("id, topic_id"):
            if number in self.channels:
                counts[self.channels[number].topic] += 1
        return counts

    @cached_property
    def _span(self) -> tuple[int | None, int | None]:
        if not self._damaged:
            try:  # one query each, so that each is one look into the index
                first, last = (self._base.execute(f"SELECT {end}(timestamp) FROM messages").fetchone()[0] for end in ("min", "max"))
                return first, last
            except sqlite3.DatabaseError as problem:
                self._note_damage(said(problem))
        first = last = None
        for _, at_ns in self._rows("id, timestamp"):
            first, last = (at_ns, at_ns) if first is None or last is None else (min(first, at_ns), max(last, at_ns))
        return first, last

    def _rows(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield row by row in the order of the file, around what cannot be read; the row's number is the first column."""
        at, step, self._torn = 0, 1, False
        while step <= _FURTHEST_ROW:
            try:
                for found in self._base.execute(f"SELECT {columns} FROM messages WHERE id >= ? ORDER BY id", (at,)):
                    if found[0] >= at:  # a damaged tree may lead back
                        if all(isinstance(each, int) for each in found[:3]):  # and a damaged row hold anything
                            yield found
                        at, step = found[0] + 1, 1
                return
            except sqlite3.DatabaseError:
                at, step = at + step, step * 2
        self._torn = True


def unpacked(data: bytes) -> bytes:
    """Return a message, which may be compressed on its own: serialised ones begin with 00 00 or 00 01. Raises ValueError."""
    if not data.startswith(_ZSTD):
        return data
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as problem:
        raise ValueError(f"a compressed message cannot be read: {problem}") from None


def said(problem: Exception) -> str:
    """What SQLite says, on one line: it may quote a whole column, lines and all."""
    return shorten(" ".join(str(problem).split()), 120, placeholder=" ...")
