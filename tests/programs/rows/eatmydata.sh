# A preload of its own kind (RTLD_NEXT), around a program that loads an extension.
# packages: eatmydata sqlite3 libsqlite3-mod-spatialite
eatmydata sqlite3 base 2>&1 <<'END'
.load mod_spatialite
create table t (n integer);
insert into t values (1), (2);
select sum(n), geos_version() from t;
END
echo "$?"
eatmydata sh -c 'case $LD_PRELOAD in *libeatmydata*) echo preloaded; esac; sync; echo "$?"'
