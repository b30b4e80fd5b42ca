"""Makes the files beside it, with programs that share no code with cas: cryptography (OpenSSL), PyNaCl (libsodium), hashlib.

    pip install cryptography pynacl && python3 make.py
"""

import base64
import hashlib
import json
import pathlib

import nacl.bindings
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

HERE = pathlib.Path(__file__).parent
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# RFC 8032, 7.1, test 1, and RFC 6979, A.2.5.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
SCALAR = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
MANIFEST = "ab" * 32
PASSWORD = b"correct horse"


def b64(data):
    return base64.b64encode(data).decode()


def write(name, data):
    (HERE / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def pae(kind, body):
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def p256_signature(key, message, low):
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(key.sign(message, algorithm))
    s = min(s, ORDER - s) if low else max(s, ORDER - s)
    return encode_dss_signature(r, s)


def encrypted(pkcs8, label, cost):
    salt, nonce = bytes(range(32)), bytes(range(32, 56))
    key = hashlib.scrypt(PASSWORD, salt=salt, n=cost, r=8, p=1, maxmem=1 << 28, dklen=32)
    document = {
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": 8, "p": 1}, "salt": b64(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": b64(nonce)},
        "ciphertext": b64(nacl.bindings.crypto_secretbox(pkcs8, nonce, key)),
    }
    text = b64(compact(document).encode())
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


ed = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
p256 = ec.derive_private_key(SCALAR, ec.SECP256R1())
KEYS = {
    "ed25519": (ed, ed.sign),
    "p256": (p256, lambda message: p256_signature(p256, message, True)),
}
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, SPKI = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
CLEAR = serialization.NoEncryption()

statement = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"digest": {"sha256": MANIFEST}}],
    "predicateType": "https://sigstore.dev/cosign/sign/v1",
    "predicate": {},
}
payload = {
    "critical": {
        "identity": {"docker-reference": "registry.example/app"},
        "image": {"docker-manifest-digest": f"sha256:{MANIFEST}"},
        "type": "cosign container image signature",
    },
    "optional": {"commit": "0123"},
}
TYPE = b"application/vnd.in-toto+json"
body = compact(statement).encode()
write("statement.json", body)
write("simple.json", compact(payload))
for name, (key, sign) in KEYS.items():
    spki = key.public_key().public_bytes(DER, SPKI)
    pkcs8 = key.private_bytes(DER, PKCS8, CLEAR)
    write(f"{name}.pem", key.private_bytes(PEM, PKCS8, CLEAR))
    write(f"{name}.pub", key.public_key().public_bytes(PEM, SPKI))
    write(f"{name}.sigstore.pem", encrypted(pkcs8, "ENCRYPTED SIGSTORE PRIVATE KEY", 65536))
    write(f"{name}.cosign.pem", encrypted(pkcs8, "ENCRYPTED COSIGN PRIVATE KEY", 32768))
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": b64(hashlib.sha256(spki).digest())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": b64(body),
            "payloadType": TYPE.decode(),
            "signatures": [{"sig": b64(sign(pae(TYPE, body)))}],
        },
    }
    write(f"{name}.bundle.json", compact(bundle))
    write(f"{name}.simple.sig", b64(sign(compact(payload).encode())))
bundle["dsseEnvelope"]["signatures"][0]["sig"] = b64(p256_signature(p256, pae(TYPE, body), False))
write("p256.high.bundle.json", compact(bundle))
