# projects: cryptography cffi pycparser typing-extensions
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

digest = hashes.Hash(hashes.SHA256())
digest.update(b"abc")
print(digest.finalize().hex())
key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
signature = key.sign(b"message")
print(signature.hex())
try:
    key.public_key().verify(signature, b"another")
except InvalidSignature as error:
    print(type(error).__name__)
sealed = AESGCM(bytes(32)).encrypt(bytes(12), b"plain", b"more")
print(sealed.hex(), ChaCha20Poly1305(bytes(32)).encrypt(bytes(12), b"plain", None).hex())
try:
    AESGCM(bytes(32)).decrypt(bytes(12), sealed, b"less")
except InvalidTag as error:
    print(type(error).__name__)
print(Scrypt(b"salt", 32, 2**10, 8, 1).derive(b"password").hex())
private = rsa.generate_private_key(65537, 2048)
text = private.decrypt(
    private.public_key().encrypt(
        b"secret", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    ),
    padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
)
print(text, Fernet(Fernet.generate_key()).__class__.__name__)
curve = ec.derive_private_key(12345, ec.SECP256R1())
print(
    curve.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example")])
print(
    x509.CertificateSigningRequestBuilder()
    .subject_name(name)
    .sign(key, None)
    .subject.rfc4514_string()
)
