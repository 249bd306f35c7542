"""The hash functions by which Keras puts words into bins, on bytes, and so the same on all machines.

They give TensorFlow's numbers: `fingerprint` those of `tf.strings.to_hash_bucket_fast`, `siphash` those of
`to_hash_bucket_strong`, `joined_fingerprints` those of `tf.sparse.cross_hashed`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

WORD = (1 << 64) - 1
K0, K1, K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F  # FarmHash's primes


def rotated(x: int, right: int) -> int:
    """x of 64 bits, turned to the right."""
    x &= WORD
    return (x >> right | x << (64 - right)) & WORD


def shifted(x: int) -> int:
    """x mixed with its upper bits."""
    x &= WORD
    return x ^ x >> 47


def mixed(u: int, v: int, factor: int) -> int:
    """Two words as one."""
    a = shifted((u ^ v) * factor)
    return shifted((v ^ a) * factor) * factor & WORD


def word(data: bytes, at: int) -> int:
    """The 8 bytes at a place, the lowest first; from the end if `at` is negative."""
    return int.from_bytes(data[at : at + 8 or None], "little")


def fingerprint(data: bytes) -> int:
    """FarmHash's Fingerprint64, which will not change (Pike, Alakuijala 2014, FarmHash, `farmhashna::Hash64`)."""
    n = len(data)
    if n > 64:
        return _of_many(data)
    factor = K2 + 2 * n
    if n <= 16:
        return _of_few(data, n, factor)
    a = word(data, 0) * (K1 if n <= 32 else K2)
    b, c, d = word(data, 8), word(data, n - 8) * factor, word(data, n - 16) * K2
    y = rotated(a + b, 43) + rotated(c, 30) + d & WORD
    z = mixed(y, a + rotated(b + K2, 18) + c & WORD, factor)
    if n <= 32:
        return z
    e, f = word(data, 16) * factor, word(data, 24)
    g, h = (y + word(data, n - 32)) * factor, (z + word(data, n - 24)) * factor
    return mixed(rotated(e + f, 43) + rotated(g, 30) + h & WORD, e + rotated(f + a, 18) + g & WORD, factor)


def _of_few(data: bytes, n: int, factor: int) -> int:
    if n >= 8:
        a, b = word(data, 0) + K2, word(data, n - 8)
        return mixed(rotated(b, 37) * factor + a & WORD, (rotated(a, 25) + b) * factor & WORD, factor)
    if n >= 4:
        first, last = struct.unpack("<I", data[:4])[0], struct.unpack("<I", data[-4:])[0]
        return mixed(n + (first << 3), last, factor)
    if n:
        low, high = data[0] + (data[n >> 1] << 8), n + (data[-1] << 2)
        return shifted((low * K2 ^ high * K0) & WORD) * K2 & WORD
    return K2


def _of_many(data: bytes) -> int:
    n = len(data)
    x, y = 81, (81 * K1 + 113) & WORD
    z = shifted(y * K2 + 113) * K2 & WORD
    x = x * K2 + word(data, 0) & WORD
    v, w = (0, 0), (0, 0)
    last = (n - 1) // 64 * 64
    for at in range(0, last, 64):
        x, y, z, v, w = _round(data, at, x, y, z, v, w, K1, 1)
    factor = K1 + ((z & 0xFF) << 1)
    rest = (n - 1) & 63
    first = w[0] + rest
    v = v[0] + first & WORD, v[1]
    w = first + v[0] & WORD, w[1]
    x, y, z, v, w = _round(data, last + rest - 63, x, y, z, v, w, factor, 9)
    one = mixed(v[0], w[0], factor) + shifted(y) * K0 + z & WORD
    return mixed(one, mixed(v[1], w[1], factor) + x & WORD, factor)


def _round(
    data: bytes, at: int, x: int, y: int, z: int, v: tuple[int, int], w: tuple[int, int], factor: int, weight: int
) -> tuple[int, int, int, tuple[int, int], tuple[int, int]]:
    """Mix 64 bytes into the state."""
    x = rotated(x + y + v[0] + word(data, at + 8), 37) * factor & WORD
    y = rotated(y + v[1] + word(data, at + 48), 42) * factor & WORD
    x ^= w[1] * weight & WORD
    y = y + v[0] * weight + word(data, at + 40) & WORD
    z = rotated(z + w[0], 33) * factor & WORD
    v = _of_half(data, at, v[1] * factor, x + w[0])
    w = _of_half(data, at + 32, z + w[1], y + word(data, at + 16))
    return z, y, x, v, w


def _of_half(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    """32 bytes and two words as two words."""
    first, second, third, fourth = (word(data, at + k) for k in (0, 8, 16, 24))
    a += first
    b = rotated(b + a + fourth, 21)
    total = a + second + third
    return total + fourth & WORD, b + rotated(total, 44) + a & WORD


def siphash(data: bytes, key: tuple[int, int]) -> int:
    """SipHash-2-4: a hash that cannot be foreseen without the key.

    Aumasson, Bernstein 2012, "SipHash: a fast short-input PRF", section 2.
    """
    a, b = (k & WORD for k in key)
    state = [a ^ 0x736F6D6570736575, b ^ 0x646F72616E646F6D, a ^ 0x6C7967656E657261, b ^ 0x7465646279746573]
    whole = len(data) // 8 * 8
    tail = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    for m in (*(word(data, at) for at in range(0, whole, 8)), tail):
        state[3] ^= m
        _sip_rounds(state, 2)
        state[0] ^= m
    state[2] ^= 0xFF
    _sip_rounds(state, 4)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _sip_rounds(state: list[int], count: int) -> None:
    a, b, c, d = state
    for _ in range(count):
        a, c = a + b & WORD, c + d & WORD
        b, d = rotated(b, 51) ^ a, rotated(d, 48) ^ c
        a = rotated(a, 32)
        c, a = c + b & WORD, a + d & WORD
        b, d = rotated(b, 47) ^ c, rotated(d, 43) ^ a
        c = rotated(c, 32)
    state[:] = a, b, c, d


def joined_fingerprints(values: Iterable[int]) -> int:
    """Several words as one, beginning with TensorFlow's key for crossings.

    Each step is that of MurmurHash64A (Appleby 2008), whose multiplier it has.
    """
    total, factor = 0xDECAFCAFFE, 0xC6A4A7935BD1E995
    for value in values:
        total = (total ^ factor ^ shifted((value & WORD) * factor) * factor & WORD) * factor & WORD
        total = shifted(shifted(total) * factor)
    return total
