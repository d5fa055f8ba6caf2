"""How rows lie in a page file: the tree's number before the key, and the value sealed.

A sealed value is the number of the commit that wrote it (8 bytes, little-endian), the value, and a CRC32C over the whole
key, the number and the value. The checksum is appended little-endian, so the CRC over key and sealed value is always the
same residue: verifying needs no slicing.
"""

from __future__ import annotations

from crc32c import crc32c

from jetwire_protocol.errors import Err, JetError

RESIDUE = 0x48674BC7
NUMBER_BYTES = 8
CRC_BYTES = 4
_LONG = 0xF0  # a first byte from here on says how many bytes of tree number follow


def tree_prefix(number: int) -> bytes:
    """A prefix that is never the beginning of another one, in the order of the numbers."""
    if number < _LONG:
        return bytes((number,))
    size = (number.bit_length() + 7) // 8
    return bytes((_LONG + size,)) + number.to_bytes(size, "big")


def split_key(full: bytes) -> tuple[int, bytes]:
    """The tree's number and the key; a `ValueError` if this is no key of ours."""
    if not full:
        raise ValueError("an empty key")
    first = full[0]
    if first < _LONG:
        return first, full[1:]
    end = 1 + first - _LONG
    number = int.from_bytes(full[1:end], "big")
    if tree_prefix(number) != full[:end]:
        raise ValueError("no tree has this prefix")
    return number, full[end:]


def after_prefix(prefix: bytes) -> bytes:
    """The smallest key above all keys of the tree."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def seal(full: bytes, number: int, value: bytes) -> bytes:
    body = number.to_bytes(NUMBER_BYTES, "little") + value
    return body + crc32c(body, crc32c(full)).to_bytes(CRC_BYTES, "little")


def intact(full: bytes, sealed: bytes) -> bool:
    return len(sealed) >= NUMBER_BYTES + CRC_BYTES and crc32c(sealed, crc32c(full)) == RESIDUE


def number_of(sealed: bytes) -> int:
    return int.from_bytes(sealed[:NUMBER_BYTES], "little")


def checksum_of(sealed: bytes) -> int:
    return int.from_bytes(sealed[-CRC_BYTES:], "little")


def value_of(sealed: bytes) -> bytes:
    end = len(sealed) - CRC_BYTES
    return sealed[NUMBER_BYTES : end if end > NUMBER_BYTES else NUMBER_BYTES]  # one that ends before it begins is an error when compiled


def damaged(path: str, full: bytes) -> JetError:
    """What a read answers instead of data whose checksum does not match."""
    try:
        tree, key = split_key(full)
    except ValueError:
        tree, key = -1, full
    return JetError(
        Err.ReadVerifyFailure,
        f"{path}, tree {tree}, key {key[:64].hex()}: the checksum does not match; run `jetwired check` and restore a backup",
        path=path,
        tree=tree,
        key=key,
    )


def disordered(path: str, full: bytes) -> JetError:
    """The page structure itself is damaged: a scan met keys out of order."""
    error = damaged(path, full)
    return JetError(Err.DatabaseCorrupted, error.detail.replace("the checksum does not match", "keys are out of order"), **error.data)
