"""The update log of a version: what was upserted and deleted since it was built.

``updates.log`` is a header, which says how many bytes are acknowledged, and a row of records: 8 bytes of length, 8
bytes CRC-32 of what follows, then one Arrow stream a table, whose metadata says ``upsert``, ``patch`` (some columns) or
``delete``. A write appends one record, flushes it to disk, then changes the header, which the next write's flush takes
along. So there is one flush a write, and no two blocks of which one must not reach the disk before the other:

- a log that is shorter than its header says, or a record before that end that does not fit its checksum, is damage;
- after it there is at most what a killed writer or a loss of power left: whole records count, since they may have been
  acknowledged, and the rest was not: nobody reads it, and the next write cuts it off.

Other processes see a write by the header.
"""

import mmap
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError
from smar.search.local.versions import MADE_BY, Stamp, UnreadableIndex, file_stamp

LOG_FILE = "updates.log"
_FORMAT = b"smar-updates/3"
_HEADER = struct.Struct("<16sQQ")
"""Format, end of what is acknowledged, CRC-32 of both."""
FIRST = _HEADER.size
"""Where the first record begins."""
_HEAD = struct.Struct("<QQ")  # 16 bytes: what follows stays aligned for Arrow
_REMEDY = f"Go back with `{MADE_BY} INDEX --rollback`, or build the index again."
Places = npt.NDArray[np.int64]
Op: TypeAlias = Literal["upsert", "patch", "delete"]


@dataclass(frozen=True, slots=True)
class Record:
    """Items (upsert), some of their columns (patch) or only their ids (delete) of one acknowledged change.

    `batch` is mapped from the log, with a descriptor of its own: what is to stay is copied out. `shift` leads from an
    address in it to a place in the file.
    """

    op: Op
    batch: pa.RecordBatch
    shift: int = 0

    def places(self, column: str) -> Places:
        """Where each value of a binary column lies in the log's file and how long it is, int64 [n, 2]; 0 for none."""
        values = self.batch.column(column)
        _, bounds, content = values.buffers()
        ends = np.frombuffer(bounds, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
        start = self.shift if content is None else self.shift + content.address
        return np.stack([ends[:-1] + start, np.diff(ends)], axis=1)


class OpenLog:
    """The file of a log, held open by everything that reads pictures from it, and closed with the last of that.

    One descriptor, however much is written, which goes on reading when the version's folder was removed.
    """

    def __init__(self, path: Path) -> None:
        """Open it; raises InputError when it is missing or cannot be opened."""
        self.path = path
        self._last = 0, b""
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise InputError(f"{path} is missing. {_REMEDY}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error}.") from None
        weakref.finalize(self, os.close, self._handle)

    @property
    def goes_on(self) -> bool:
        """Whether the file at `path` is this one, and begins with what was read of it: no copy took its place."""
        try:
            same = self.path.stat().st_ino == os.fstat(self._handle).st_ino
        except FileNotFoundError:
            return False
        at, head = self._last
        return same and os.pread(self._handle, len(head), at) == head

    def bytes_at(self, start: int, length: int) -> bytes:
        """What was acknowledged there; raises UnreadableIndex when the file does not hold it any more."""
        found = os.pread(self._handle, length, start)
        if len(found) < length:
            raise UnreadableIndex(f"{self.path} ends within the {length:,} bytes at {start:,}. {_REMEDY}")
        return found

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Records from byte `start` to the end of one; all are checked before the first one is given.

        Raises:
            InputError: a record does not fit its checksum, or the file is too short.
        """
        if stop == start:
            return
        aligned = start - start % mmap.ALLOCATIONGRANULARITY
        if not start < stop <= os.fstat(self._handle).st_size:
            raise InputError(f"{self.path} was read up to byte {start:,}, {stop:,} were acknowledged. {_REMEDY}")
        content = pa.py_buffer(mmap.mmap(self._handle, stop - aligned, offset=aligned, access=mmap.ACCESS_READ))
        payloads, at, last = [], start - aligned, 0
        while at < len(content):
            payloads.append(self._payload(content, at, aligned))
            last, at = at, at + _HEAD.size + len(payloads[-1])
        self._last = aligned + last, content.slice(last, _HEAD.size).to_pybytes()
        for tables in map(pa.BufferReader, payloads):
            while tables.tell() < tables.size():
                stream = pa.ipc.open_stream(tables)
                op: Any = (stream.schema.metadata or {}).get(b"op", b"").decode()
                for batch in stream:
                    yield Record(op, batch, aligned - content.address)

    def _payload(self, content: pa.Buffer, at: int, offset: int) -> pa.Buffer:
        head = content.slice(at, min(_HEAD.size, len(content) - at)).to_pybytes()
        if len(head) == _HEAD.size:
            length, expected = _HEAD.unpack(head)
            payload = content.slice(at + _HEAD.size, min(length, len(content) - at - _HEAD.size))
            if len(payload) == length > 0 and _checksum(length, payload) == expected:  # zeros would fit
                return payload
        raise InputError(
            f"{self.path} is damaged: the record at byte {offset + at:,} is not what was written. {_REMEDY}"
        )


class UpdateLog:
    """The log of one version folder. Appending needs the index's lock; reading does not."""

    def __init__(self, version: Path) -> None:
        self.path = version / LOG_FILE

    def create(self) -> None:
        """Write an empty log."""
        with self.path.open("xb", buffering=0) as log:
            log.write(_header(FIRST))
            os.fsync(log.fileno())

    def acknowledged(self) -> int:
        """Where what counts ends, by the header; raises InputError when the file is missing, damaged or too short."""
        try:
            with self.path.open("rb", buffering=0) as log:
                head = log.read(FIRST)
                if not _fits(head):  # read while it was being written?
                    head = os.pread(log.fileno(), FIRST, 0)
                size = os.fstat(log.fileno()).st_size
        except FileNotFoundError:
            raise InputError(f"{self.path} is missing. {_REMEDY}") from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error}.") from None
        if not _fits(head):
            older = self.path.with_name("updates.json").exists()
            seen = (
                "of an older format, as updates.json beside it tells" if older else "damaged: its header does not fit"
            )
            raise InputError(f"{self.path} is {seen}; this smar reads {_FORMAT.decode()}. {_REMEDY}")
        end: int = _HEADER.unpack(head)[1]
        if size < end:
            raise InputError(f"{self.path} has {size:,} bytes, {end:,} were acknowledged. {_REMEDY}")
        return end

    def recovered(self) -> int:
        """Where what counts ends, with the whole records behind it that nobody came to acknowledge in the header.

        Behind a write that is under way there is one, too: who reads so much sees it before its writer returns.
        """
        end = self.acknowledged()
        with self.path.open("rb") as log:
            log.seek(end)
            while len(head := log.read(_HEAD.size)) == _HEAD.size:
                length, expected = _HEAD.unpack(head)
                if not 0 < length <= os.fstat(log.fileno()).st_size - log.tell():
                    break
                if _checksum(length, memoryview(log.read(length))) != expected:
                    break
                end = log.tell()
        return end

    def stamp(self) -> Stamp | None:
        """Changes with every acknowledged write."""
        return file_stamp(self.path, FIRST)

    def append(self, op: Op, *tables: pa.Table) -> None:
        """Write changes, all or none; when this returns, they survive the death of the process and a loss of power."""
        sink = pa.BufferOutputStream()
        for table in tables:
            table = table.replace_schema_metadata({"op": op})
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
        payload = memoryview(sink.getvalue())
        self._write(_HEAD.pack(len(payload), _checksum(len(payload), payload)), payload)

    def rehearse(self, size: int = 1 << 16) -> None:
        """Write `size` bytes as a record would be, and take them back; raises OSError where a record could not be."""
        self._write(bytes(size), keep=False)

    def copy(self, other: "UpdateLog", start: int) -> None:
        """Append the records of another log from byte `start` on."""
        with other.path.open("rb") as log:
            log.seek(start)
            self._write(log.read(max(other.recovered() - start, 0)))

    def _write(self, *parts: bytes | memoryview, keep: bool = True) -> None:
        """Append and flush once; what fails is taken back, so that nobody counts it for a write."""
        end = start = self.recovered()
        with self.path.open("rb+", buffering=0) as log:
            try:
                log.truncate(start)
                for part in parts:
                    rest = memoryview(part)
                    while rest:
                        wrote = os.pwrite(log.fileno(), rest, end)
                        rest, end = rest[wrote:], end + wrote
                os.fsync(log.fileno())
            except BaseException:
                log.truncate(start)
                raise
            if not keep:
                log.truncate(end := start)
            os.pwrite(log.fileno(), _header(end), 0)


def _header(end: int) -> bytes:
    head = _HEADER.pack(_FORMAT, end, 0)[:-8]
    return head + struct.pack("<Q", zlib.crc32(head))


def _fits(head: bytes) -> bool:
    return len(head) == FIRST and head == _header(_HEADER.unpack(head)[1])


def _checksum(length: int, payload: "memoryview | pa.Buffer") -> int:
    return zlib.crc32(memoryview(payload), length & 0xFFFFFFFF)
