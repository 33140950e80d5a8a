# An extension that needs thirty libraries.
# packages: sqlite3 libsqlite3-mod-spatialite
# emulated: sqlite3
sqlite3 :memory: <<'END' 2>&1
.load mod_spatialite
select spatialite_version(), proj4_version(), geos_version();
select AsText(ST_Union(BuildMbr(0, 0, 2, 2), BuildMbr(1, 1, 3, 3)));
select InitSpatialMetaDataFull(1);
select AsText(Transform(MakePoint(13.4, 52.5, 4326), 32633));
.load nonesuch
.load libz.so.1 nonesuch
END
echo "$?"
