# Linear algebra, random numbers and transforms, with the libraries that the wheel brings.
# packages:
# python: numpy
# emulated: python
python - <<'END'
import threading, numpy
print(numpy.__version__)
a = numpy.arange(9.0).reshape(3, 3) + numpy.eye(3) * 3
print(numpy.linalg.det(a), numpy.linalg.eigvals(a), numpy.linalg.solve(a, [1, 2, 3]))
print(numpy.random.default_rng(1).normal(size=4), numpy.random.default_rng(2).integers(0, 100, 5))
print(numpy.fft.fft(numpy.arange(8)))
big = numpy.random.default_rng(3).random((300, 300))
results = []
threads = [threading.Thread(target=lambda: results.append((big @ big).sum())) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(results), numpy.allclose(results, results[0]), numpy.einsum("ij,jk", a, a).tolist())
try:
    numpy.linalg.inv(numpy.zeros((2, 2)))
except numpy.linalg.LinAlgError as error:
    print(error)
END
