# `load` of packages.
# packages: tcl tcl-tls libsqlite3-tcl
# quick
# emulated: tclsh
tclsh <<'END'
package require sqlite3
package require tls
sqlite3 db :memory:
puts [db eval {select sqlite_version(), 6 * 7}]
puts [lsort [lrange [tls::ciphers tls1.2] 0 4]]
puts [tls::version]
puts [catch {load /nonesuch.so} message]
puts $message
puts [lmap item [lsort -index 1 [info loaded]] {lindex $item 1}]
db close
END
