"""The update log of a version: what was upserted and deleted since it was built.

``updates.log`` is a row of records: 8 bytes of length, 8 bytes CRC-32 of what follows, then an Arrow stream whose
metadata says ``upsert``, ``patch`` (some columns) or ``delete``. ``updates.json`` says how many bytes of the log are
acknowledged. A write appends, flushes the log to disk, then replaces ``updates.json``: a process that is killed leaves
bytes beyond that length, which nobody reads and the next write cuts off. A log that is *shorter*, or whose records do
not fit their checksums, is damaged.
Other processes see a write by ``updates.json``, which is another file then.
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
from pydantic import Field

from smar.core.errors import InputError
from smar.core.files import sync_folder
from smar.search.local.sealed import Sealed
from smar.search.local.versions import MADE_BY, Stamp, UnreadableIndex, file_stamp

LOG_FILE = "updates.log"
ACK_FILE = "updates.json"
_HEAD = struct.Struct("<QQ")  # 16 bytes: what follows stays aligned for Arrow
_REMEDY = f"Go back with `{MADE_BY} INDEX --rollback`, or build the index again."
Places = npt.NDArray[np.int64]
Op: TypeAlias = Literal["upsert", "patch", "delete"]


class Acknowledged(Sealed):
    """``updates.json``: the part of the log that counts."""

    format: Literal["smar-updates/1", "smar-updates/2"] = "smar-updates/2"
    """From 2 on there are patches, which a program of before would take for deletions."""
    length: int = Field(ge=0, description="bytes")
    records: int = Field(ge=0)


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

    def records(self, start: int, ack: Acknowledged) -> Iterator[Record]:
        """Records from byte `start` to the acknowledged end; all are checked before the first one is given.

        Raises:
            InputError: a record does not fit its checksum, or the file is too short.
        """
        if ack.length == start:
            return
        aligned = start - start % mmap.ALLOCATIONGRANULARITY
        if not start < ack.length <= os.fstat(self._handle).st_size:
            raise InputError(f"{self.path} was read up to byte {start:,}, {ack.length:,} were acknowledged. {_REMEDY}")
        content = pa.py_buffer(mmap.mmap(self._handle, ack.length - aligned, offset=aligned, access=mmap.ACCESS_READ))
        payloads, at, last = [], start - aligned, 0
        while at < len(content):
            payloads.append(self._payload(content, at, aligned))
            last, at = at, at + _HEAD.size + len(payloads[-1])
        self._last = aligned + last, content.slice(last, _HEAD.size).to_pybytes()
        for payload in payloads:
            stream = pa.ipc.open_stream(payload)
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
        self.ack_path = version / ACK_FILE

    def create(self) -> None:
        """Write an empty log."""
        self.path.touch()
        Acknowledged(length=0, records=0).write_file(self.ack_path)

    def acknowledged(self) -> Acknowledged:
        """How much of the log counts; raises InputError naming the file that is missing, damaged or too short."""
        ack = Acknowledged.read_file(self.ack_path, MADE_BY)
        if not self.path.is_file():
            raise InputError(f"{self.path} is missing. {_REMEDY}")
        if (size := self.path.stat().st_size) < ack.length:
            raise InputError(f"{self.path} has {size:,} bytes, {ack.length:,} were acknowledged. {_REMEDY}")
        return ack

    def stamp(self) -> Stamp | None:
        """Changes with every acknowledged write."""
        return file_stamp(self.ack_path)

    def append(self, op: Op, *tables: pa.Table) -> None:
        """Write changes, all or none; when this returns, they survive the death of the process and a loss of power."""
        records = []
        for table in tables:
            sink = pa.BufferOutputStream()
            table = table.replace_schema_metadata({"op": op})
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            records.append(_framed(memoryview(sink.getvalue())))
        self.append_bytes(b"".join(records), len(records))

    def rehearse(self, size: int = 1 << 16) -> None:
        """Write `size` bytes as a record would be, and take them back; raises OSError where a record could not be."""
        ack = self.acknowledged()
        with self.path.open("rb+") as log:
            try:
                log.seek(ack.length)
                log.write(bytes(size))
                log.flush()
                os.fsync(log.fileno())
            finally:
                log.truncate(ack.length)
        ack.write_file(self.ack_path)

    def append_bytes(self, framed: bytes, records: int) -> None:
        """Write whole records as they lie in another log."""
        ack = self.acknowledged()
        with self.path.open("rb+") as log:
            log.truncate(ack.length)
            log.seek(ack.length)
            log.write(framed)
            log.flush()
            os.fsync(log.fileno())
        Acknowledged(length=ack.length + len(framed), records=ack.records + records).write_file(self.ack_path)
        sync_folder(self.path.parent)

    def raw(self, start: int, stop: int) -> bytes:
        """Bytes of the log, for another log."""
        with self.path.open("rb") as log:
            log.seek(start)
            return log.read(stop - start)


def _checksum(length: int, payload: "memoryview | pa.Buffer") -> int:
    return zlib.crc32(memoryview(payload), length & 0xFFFFFFFF)


def _framed(payload: memoryview) -> bytes:
    return _HEAD.pack(len(payload), _checksum(len(payload), payload)) + bytes(payload)
