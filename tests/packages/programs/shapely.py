# projects: shapely numpy
# one: numpy.libs/libscipy_openblas64_
# one: shapely.libs/libgeos-
import shapely
from shapely import geometry, ops, wkt
from shapely.strtree import STRtree

a = geometry.Point(0, 0).buffer(1.5)
b = geometry.box(0, 0, 2, 2)
print(
    round(a.intersection(b).area, 8), round(a.union(b).length, 8), a.contains(geometry.Point(1, 1))
)
print(wkt.dumps(a.intersection(b).simplify(0.2), rounding_precision=4), b.wkb_hex)
points = shapely.points([[i * 0.37 % 1, i * 0.73 % 1] for i in range(200)])
tree = STRtree(points)
print(
    sorted(tree.query(geometry.box(0.1, 0.1, 0.3, 0.3)).tolist()),
    shapely.union_all(points).convex_hull.area.__round__(8),
)
print(
    len(ops.triangulate(geometry.MultiPoint(points[:20]))),
    shapely.to_geojson(geometry.LineString([(0, 0), (1, 2)])),
)
try:
    shapely.from_wkt("POINT (x)")
except shapely.errors.GEOSException as error:
    print(error)
print(shapely.geos_version, shapely.__version__)
# A module of single-phase initialisation learns its name from the interpreter.
print(
    shapely.lib.__name__,
    shapely.lib.__package__,
    shapely.lib.__spec__.name,
    shapely.lib.Geometry.__module__,
)
