# projects: scipy numpy charset-normalizer
# one: numpy.libs/libscipy_openblas64_
# one: scipy.libs/libscipy_openblas-
import numpy as np
import scipy
from scipy import (
    fft,
    integrate,
    interpolate,
    linalg,
    ndimage,
    optimize,
    signal,
    sparse,
    spatial,
    special,
    stats,
)
from scipy.cluster.vq import kmeans
from scipy.sparse import linalg as sparse_linalg

rng = np.random.default_rng(5)
a = rng.standard_normal((20, 20))
print(
    scipy.__version__, np.round(linalg.expm(a / 20)[0, :3], 6), np.round(linalg.lu(a)[2][0, :3], 6)
)
found = optimize.minimize(optimize.rosen, [1.3, 0.7, 0.8], method="BFGS")
print(np.round(found.x, 4), round(optimize.brentq(np.cos, 0, 3), 8))
print(integrate.quad(np.exp, 0, 1)[0].__round__(10), np.round(special.jv(1, [1.0, 2.0]), 8))
print(np.round(interpolate.CubicSpline(range(5), [0, 1, 4, 9, 16])(2.5), 8))
matrix = sparse.diags_array([2.0, -1, -1], offsets=[0, 1, -1], shape=(50, 50)).tocsc()
print(np.round(sparse_linalg.spsolve(matrix, np.ones(50))[:3], 6))
print(np.round(sparse_linalg.eigsh(matrix, k=2, sigma=0, return_eigenvectors=False), 6))
points = rng.random((30, 2))
print(spatial.ConvexHull(points).volume.__round__(8), spatial.KDTree(points).query([0.5, 0.5])[1])
print(
    np.round(stats.ttest_ind(points[:, 0], points[:, 1]).pvalue, 8), stats.norm.ppf(0.975).round(8)
)
print(np.round(signal.butter(3, 0.2)[0], 8), np.round(fft.dct([1.0, 2, 3, 4]), 6))
print(
    ndimage.gaussian_filter(a, 1)[0, 0].round(8),
    np.round(np.sort(kmeans(points[:, :1], 2, rng=3)[0][:, 0]), 6),
)
