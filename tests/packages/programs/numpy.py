# projects: numpy
# one: numpy.libs/libscipy_openblas64_
import numpy as np

rng = np.random.default_rng(7)
a = rng.standard_normal((60, 60))
b = a @ np.linalg.inv(a)
print(np.allclose(b, np.eye(60)), round(float(np.linalg.det(a / 5)), 6))
print(
    np.round(np.linalg.svd(a, compute_uv=False)[:4], 6),
    np.round(np.linalg.eigvalsh(a + a.T)[:3], 6),
)
print(np.round(np.abs(np.fft.rfft(np.sin(np.arange(64))))[:5], 6))
print(np.sort(rng.integers(0, 1000, 12)), rng.choice(["x", "y", "z"], 5), rng.poisson(3, 8))
print(np.einsum("ij,jk->", a, a).round(6), np.unique(rng.integers(0, 5, 50), return_counts=True))
table = np.array([(1, 2.5, "a"), (3, 4.5, "b")], dtype=[("i", "i4"), ("f", "f8"), ("s", "U1")])
print(table["f"].mean(), np.datetime64("2026-11-30") + np.arange(3), table.tobytes()[:8].hex())
try:
    np.linalg.inv(np.zeros((2, 2)))
except np.linalg.LinAlgError as error:
    print(type(error).__name__, error)
print(np.__version__, np.lib.format.magic(1, 0), np.polynomial.Polynomial([1, 2, 1]).roots())
