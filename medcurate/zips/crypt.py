"""Passwords: traditional encryption (APPNOTE 6.1) and WinZip AES (AE-1, AE-2)."""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Callable
from typing import Protocol

from medcurate.zips.volumes import BadMember, NeedsLibrary

HEADER_BYTES = 12  # of traditional encryption
_AUTHENTICATION_BYTES = 10
_VERIFIER_BYTES = 2
_ROUNDS = 1000  # of PBKDF2, AE specification


class Source(Protocol):
    """What is read from: at most ``size`` bytes, none at the end."""

    def read(self, size: int, /) -> bytes: ...


_CRC = [zlib.crc32(bytes([value]), 0xFFFFFFFF) ^ 0xFFFFFFFF for value in range(256)]


class Traditional:
    """Bytes of ``source`` deciphered; ``check`` is the byte that the 12th must be."""

    def __init__(self, source: Source, password: bytes, check: int) -> None:
        self._source = source
        self._keys = (0x12345678, 0x23456789, 0x34567890)
        for byte in password:
            self._update(byte)
        if self._decipher(source.read(HEADER_BYTES))[-1:] != bytes([check]):
            raise BadMember("the password does not fit")

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        return self._decipher(self._source.read(size))

    def _update(self, byte: int) -> None:
        one, two, three = self._keys
        one = one >> 8 ^ _CRC[(one ^ byte) & 0xFF]
        two = ((two + (one & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        three = three >> 8 ^ _CRC[(three ^ two >> 24) & 0xFF]
        self._keys = (one, two, three)

    def _decipher(self, data: bytes) -> bytes:
        one, two, three = self._keys
        output = bytearray(data)
        for index, byte in enumerate(data):
            word = three & 0xFFFF | 2
            byte ^= word * (word ^ 1) >> 8 & 0xFF
            output[index] = byte
            one = one >> 8 ^ _CRC[(one ^ byte) & 0xFF]
            two = ((two + (one & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
            three = three >> 8 ^ _CRC[(three ^ two >> 24) & 0xFF]
        self._keys = (one, two, three)
        return bytes(output)


class Aes:
    """Bytes of ``source`` deciphered by AES in counter mode; the authentication code is checked at the end."""

    def __init__(self, source: Source, password: bytes, strength: int, stored_bytes: int) -> None:
        key_bytes = 8 + 8 * strength
        salt = source.read(key_bytes // 2)
        verifier = source.read(_VERIFIER_BYTES)
        derived = hashlib.pbkdf2_hmac("sha1", password, salt, _ROUNDS, 2 * key_bytes + _VERIFIER_BYTES)
        if verifier != derived[-_VERIFIER_BYTES:]:
            raise BadMember("the password does not fit")
        self._source = source
        self._left = stored_bytes - len(salt) - _VERIFIER_BYTES - _AUTHENTICATION_BYTES
        self._code = hmac.new(derived[key_bytes : 2 * key_bytes], digestmod="sha1")
        self._decrypt = _counter_mode(derived[:key_bytes])
        if self._left < 0:
            raise BadMember("the encrypted data are cut")

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        data = self._source.read(min(size, self._left))
        self._left -= len(data)
        self._code.update(data)
        if data and not self._left:
            stated = self._source.read(_AUTHENTICATION_BYTES)
            if not hmac.compare_digest(stated, self._code.digest()[:_AUTHENTICATION_BYTES]):
                raise BadMember("the authentication code is wrong")
        return self._decrypt(data) if data else b""


def _counter_mode(key: bytes) -> Callable[[bytes], bytes]:
    try:
        from Cryptodome.Cipher import AES
        from Cryptodome.Util import Counter
    except ImportError as error:
        raise NeedsLibrary(
            'AES needs a library: install it with "pip install medcurate[archives]" and run again'
        ) from error
    counter = Counter.new(128, little_endian=True, initial_value=1)
    decrypt: Callable[[bytes], bytes] = AES.new(key, AES.MODE_CTR, counter=counter).decrypt
    return decrypt
