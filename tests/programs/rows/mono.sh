# Platform invocation, and a compiler that runs in it.
# packages: mono-runtime mono-mcs libmono-system-core4.0-cil
cat >hello.cs <<'END'
using System; using System.Linq; using System.Runtime.InteropServices; using System.Threading;
class Hello {
    [DllImport("libm.so.6")] static extern double cos(double x);
    [DllImport("libc.so.6")] static extern int abs(int x);
    [DllImport("libz.so.1")] static extern ulong crc32(ulong crc, byte[] data, uint length);
    [DllImport("libnonesuch.so")] static extern int missing();
    static int Main() {
        Console.WriteLine("{0} {1} {2}", cos(0.5), abs(-3), crc32(0, System.Text.Encoding.ASCII.GetBytes("hello"), 5));
        try { missing(); } catch (DllNotFoundException) { Console.WriteLine("not found"); }
        try { object o = null; o.ToString(); } catch (NullReferenceException) { Console.WriteLine("caught"); }
        var thread = new Thread(() => Console.WriteLine(Enumerable.Range(1, 10).Sum()));
        thread.Start(); thread.Join();
        Console.WriteLine(System.IO.File.Exists("hello.cs"));
        return 3;
    }
}
END
mcs -r:System.Core hello.cs; echo "$?"
mono hello.exe; echo "$?"
