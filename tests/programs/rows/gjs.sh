# Libraries that introspection finds.
# packages: gjs
gjs -c '
const { GLib, Gio, GObject } = imports.gi;
print(GLib.checksum_for_string ? 1 : GLib.compute_checksum_for_string(GLib.ChecksumType.SHA256, "abc", -1));
print(Gio.File.new_for_path("/usr").query_file_type(0, null) == Gio.FileType.DIRECTORY);
const Point = GObject.registerClass(class Point extends GObject.Object {});
print(new Point() instanceof GObject.Object);
try { imports.gi.Nonesuch; } catch (error) { print(error.message); }
const loop = GLib.MainLoop.new(null, false);
GLib.timeout_add(0, 10, () => { print("timeout"); loop.quit(); return false; });
loop.run();
const System = imports.system; System.gc(); System.exit(3);' 2>&1; echo "$?"
