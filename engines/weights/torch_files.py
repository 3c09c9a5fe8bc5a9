"""Files of torch.save, zip archives and the older rows of pickles, checked before torch reads.

Sizes and offsets in a file are a stranger's claims until they have been held against its length.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import IO, Final

from engines.errors import ConversionError
from engines.weights.pickle_names import AGAIN, COMPRESSED, TENSORFLOW, listed, shown
from engines.weights.pickles import LARGEST_PICKLE_BYTES, Inspection, inspect_pickle

LARGEST_DIRECTORY_BYTES: Final = 16 << 20
MOST_RECORDS: Final = 50_000
CHUNK_BYTES: Final = 1 << 20


def zip_records(file: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    """Return the directory of a zip archive: name -> entry. Reads no entry.

    Raises:
        ConversionError: it is cut off, or its directory can be read in more than one way.
    """
    size = file.seek(0, 2)
    directory_bytes, start, count, end = _zip_end(file, size)
    if start + directory_bytes != end or count > MOST_RECORDS:
        raise ConversionError(f"its zip directory is damaged; {AGAIN}")
    if directory_bytes > LARGEST_DIRECTORY_BYTES:
        raise ConversionError(f"its zip directory has {directory_bytes:,} bytes: far too many")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises whatever the bytes led to
        raise ConversionError(f"its zip directory is damaged; {AGAIN}") from error
    records = {entry.orig_filename: entry for entry in entries}
    # torch finds a name whatever its case.
    if len({name.lower() for name in records}) != len(entries) or len(entries) != count:
        raise ConversionError("it has two zip entries of one name; load it and save it again")
    return records


def _zip_end(file: IO[bytes], size: int) -> tuple[int, int, int, int]:
    """Return the directory's size, its start, its number of entries, and where it must end."""
    cut_off = ConversionError(f"it is cut off, or has something after its end; {AGAIN}")
    if size < 22:
        raise cut_off
    file.seek(size - 22)
    magic, disk, first, here, count, length, start, comment = struct.unpack(
        "<4s4H2LH", file.read(22)
    )
    if magic != b"PK\x05\x06" or comment or disk or first or here != count:
        raise cut_off
    end = size - 22
    file.seek(max(end - 20, 0))
    magic, disk, at, disks = struct.unpack("<4sLQL", file.read(20))
    if magic != b"PK\x06\x07":
        return length, start, count, end
    end -= 20 + 56
    if at != end or disk or disks != 1 or end < 0:
        raise cut_off
    file.seek(end)
    magic, _, _, _, disk, first, here, *large = struct.unpack("<4sQ2H2L4Q", file.read(56))
    small = ((count, 0xFFFF), (length, 0xFFFFFFFF), (start, 0xFFFFFFFF))
    if magic != b"PK\x06\x06" or disk or first or here != large[0]:
        raise cut_off
    # A reader that looks at the old fields only must come to the same place.
    if any(old not in (new, unset) for (old, unset), new in zip(small, large)):
        raise cut_off
    return large[1], large[2], large[0], end


def is_torchscript_archive(records: dict[str, zipfile.ZipInfo]) -> bool:
    """Whether a zip archive with these names is a program of TorchScript."""
    inner = {name.partition("/")[2] for name in records}
    return ("constants.pkl" in inner or "model.json" in inner) and any(
        name.startswith("code/") for name in inner
    )


def inspect_zip(file: IO[bytes]) -> Inspection:
    """Check a zip archive of torch.save, and return what its pickle holds.

    Raises:
        ConversionError: it is another kind of archive, damaged, or claims what it has not.
    """
    records = zip_records(file)
    if is_torchscript_archive(records):
        raise ConversionError("it is a TorchScript archive: convert takes it with --range")
    top = next(iter(records), "").partition("/")[0]
    if f"{top}/data.pkl" not in records:
        if any(name.endswith(".npy") for name in records):
            raise ConversionError(
                "it holds numpy arrays (.npz): turn each into a tensor with torch.from_numpy"
                " and save a dictionary of them with torch.save"
            )
        if "config.json" in records and any(name.endswith(".h5") for name in records):
            raise ConversionError(f"it is a Keras model: {TENSORFLOW}")
        raise ConversionError(
            f"it is a zip archive, but none of torch.save; it holds {listed(records, 4)}:"
            f" {COMPRESSED}"
        )
    starts = _record_starts(file, records, top)
    program = _record(file, starts, records, f"{top}/data.pkl")
    found = inspect_pickle(program)
    for storage in found.storages.values():
        entry = records.get(f"{top}/data/{storage.key}")
        if entry is None or entry.file_size != storage.size_bytes:
            held = "nothing" if entry is None else f"{entry.file_size:,} bytes"
            raise ConversionError(
                f"storage {shown(storage.key)} claims {storage.size_bytes:,} bytes, the file has"
                f" {held}: it is damaged; {AGAIN}"
            )
    return found


def _record_starts(
    file: IO[bytes], records: dict[str, zipfile.ZipInfo], top: str
) -> dict[str, int]:
    """Return where each entry's bytes begin; none is packed, none lies over another."""
    starts, free = {}, 0
    directory = _zip_end(file, file.seek(0, 2))[1]
    for name, entry in sorted(records.items(), key=lambda item: item[1].header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ConversionError(
                "its zip entries are compressed, which torch.save does not do: another program"
                " packed it again; load it with torch and save it with torch.save"
            )
        encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
        raw_name = name.encode(encoding, "replace")
        file.seek(entry.header_offset)
        header = file.read(30)
        start = entry.header_offset + 30 + sum(struct.unpack("<2H", header[26:].ljust(4, b"\0")))
        sound = (
            header[:4] == b"PK\x03\x04"
            and header[8:10] == b"\0\0"
            and not entry.flag_bits & 0x2041  # encrypted
            and file.read(len(raw_name)) == raw_name == name.encode(encoding, "ignore")
            and len(raw_name) == struct.unpack("<H", header[26:28])[0]
            and name.startswith(f"{top}/")
            and name == entry.filename
            and entry.header_offset >= free
        )
        free = start + entry.file_size
        if not sound or free > directory:
            raise ConversionError(f"its zip entry {shown(name)} is damaged; {AGAIN}")
        _check_sum(file, entry, start)
        starts[name] = start
    return starts


def _check_sum(file: IO[bytes], entry: zipfile.ZipInfo, start: int) -> None:
    if not entry.CRC:  # torch.serialization.set_crc32_options(False)
        return
    file.seek(start)
    left, found = entry.file_size, 0
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        left -= len(chunk)
        found = zlib.crc32(chunk, found)
    if found != entry.CRC:
        raise ConversionError(
            f"the checksum of its zip entry {shown(entry.filename)} is wrong: it is damaged;"
            f" {AGAIN}"
        )


def _record(
    file: IO[bytes], starts: dict[str, int], records: dict[str, zipfile.ZipInfo], name: str
) -> bytes:
    if records[name].file_size > LARGEST_PICKLE_BYTES:
        raise ConversionError(f"its pickle has {records[name].file_size:,} bytes: far too many")
    file.seek(starts[name])
    return file.read(records[name].file_size)


def inspect_legacy(file: IO[bytes]) -> Inspection:
    """Check a file that torch.save wrote before version 1.6, and return what it holds.

    Five pickles in a row (magic number, version, machine, objects, keys of the storages), then
    the storages, each after its number of items.

    Raises:
        ConversionError: it is damaged, or claims what it has not.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(LARGEST_PICKLE_BYTES)
    end, parts = 0, []
    for _ in range(5):
        parts.append(inspect_pickle(head, end))
        end = parts[-1].end
    found, keys = parts[3], parts[4].value
    if any(part.storages for part in (*parts[:3], parts[4])) or type(keys) is not list:
        raise ConversionError(f"its pickles are damaged; {AGAIN}")
    if len(keys) != len(found.storages) or any(
        type(key) is not str or key not in found.storages for key in keys
    ):
        raise ConversionError(f"its list of storages does not fit its tensors; {AGAIN}")
    if len(set(keys)) != len(keys):
        raise ConversionError(f"its list of storages has one twice; {AGAIN}")
    for key in keys:
        storage = found.storages[key]
        file.seek(end)
        count = int.from_bytes(file.read(8), "little")
        end += 8 + storage.size_bytes
        if end > size:
            raise ConversionError(
                f"it is cut off: its storages end at byte {end:,} or later, and the file has"
                f" {size:,}; {AGAIN}"
            )
        if count != storage.count:
            raise ConversionError(
                f"storage {shown(key)} claims {storage.count:,} items, the file says {count:,}:"
                f" it is damaged; {AGAIN}"
            )
    return found
