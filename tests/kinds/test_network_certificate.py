"""The end of a certificate, read from its DER by hand."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds.network.certificate import not_after

times = st.datetimes(dt.datetime(1950, 1, 2), dt.datetime(9999, 12, 30))


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@given(ends=times, words=st.text(min_size=1, max_size=40))
def test_the_end_of_any_certificate_is_read(
    key: ec.EllipticCurvePrivateKey, ends: dt.datetime, words: str
) -> None:
    ends = ends.replace(microsecond=0, tzinfo=dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, words)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(1950, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    der = signed.public_bytes(serialization.Encoding.DER)
    assert not_after(der) == ends.timestamp()
    for cut in (1, 10, len(der) // 2, len(der) - 1):
        with pytest.raises(ValueError, match=r"cut short|ends before|no time|sequence|length"):
            not_after(der[:cut])


@given(st.binary(max_size=300))
def test_what_is_no_certificate_is_a_value_error(data: bytes) -> None:
    for der in (data, b"\x30\x82" + len(data).to_bytes(2) + data):
        with contextlib.suppress(ValueError):
            not_after(der)
