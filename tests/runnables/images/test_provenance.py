"""Images signed with a chain made here are read back by the C2PA library."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from runnables.errors import ConfigurationError
from runnables.images import codec, provenance
from runnables.settings import Settings

NOW = datetime.now(UTC)
Key = ec.EllipticCurvePrivateKey


def certificate(name: str, key: Key, issuer: str, issuer_key: Key, authority: bool) -> bytes:
    """Return a certificate as C2PA requires it (specification 2.1, section 14.5)."""
    usage = dict.fromkeys(
        [
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if not authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(name: str) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, "Tests"), (NameOID.COMMON_NAME, name)]
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def signing(folder: Path) -> Settings:
    """Settings that sign, with a chain of certificates made in this folder."""
    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("signer", key, "root", root, False)
    chain += certificate("root", root, "root", root, True)
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Settings(c2pa_cert=str(folder / "chain.pem"), c2pa_key=str(folder / "key.pem"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return signing(tmp_path_factory.mktemp("chain"))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_manifest_is_read_back(settings: Settings, kind: codec.Format) -> None:
    generated = Image.effect_noise((64, 64), 50).convert("RGB")
    plain = codec.encode(generated, kind, {"seed": 1})
    signed = provenance.sign(plain, kind, settings)
    reported = json.loads(c2pa.Reader(f"image/{kind}", io.BytesIO(signed)).json())
    manifest = reported["manifests"][reported["active_manifest"]]
    assert manifest["signature_info"]["issuer"] == "Tests"
    assert provenance.GENERATED in json.dumps(manifest["assertions"])
    wrong = {status["code"] for status in reported.get("validation_status", [])}
    assert wrong <= {"signingCredential.untrusted"}  # nobody knows this root; all else holds
    both = [Image.open(io.BytesIO(data)) for data in (plain, signed)]
    assert both[0].tobytes() == both[1].tobytes()


def test_a_changed_image_is_found_out(settings: Settings) -> None:
    plain = codec.encode(Image.new("RGB", (64, 64)), "jpeg")
    signed = bytearray(provenance.sign(plain, "jpeg", settings))
    signed[-10] ^= 1
    reported = json.loads(c2pa.Reader("image/jpeg", io.BytesIO(bytes(signed))).json())
    codes = {status["code"] for status in reported["validation_status"]}
    assert "assertion.dataHash.mismatch" in codes


def test_without_a_certificate_nothing_is_signed() -> None:
    provenance.check(Settings())
    assert provenance.sign(b"as it was", "png", Settings()) == b"as it was"


def test_a_wrong_configuration_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    provenance.check(settings)
    (tmp_path / "no.pem").write_text("no certificate")
    for cert, key in ((settings.c2pa_cert, None), (str(tmp_path / "no.pem"), settings.c2pa_key)):
        with pytest.raises(ConfigurationError, match="SD_C2PA_CERT"):
            provenance.check(Settings(c2pa_cert=cert, c2pa_key=key))
