/// A library in D with a bit of everything that its runtime does when it is loaded: constructors
/// of the process and of each thread, garbage collection, exceptions, threads.
module library;

import core.memory : GC;
import core.runtime : Runtime;
import core.stdc.stdio : fflush, puts, stdout;
import core.thread : Thread;
import std.algorithm : map, sum;
import std.array : array;
import std.conv : to;
import std.range : iota;

private int[string] ofThread;
private __gshared int ofProcess;

shared static this() { ofProcess = 7; }
shared static ~this() { puts("finished"); fflush(stdout); }
static this() { ofThread["this"] = 1; }

private abstract class Shape { abstract int area(); }
private class Square : Shape
{
    int side;
    this(int side) { this.side = side; }
    override int area() { return side * side; }
}

extern (C):

int start() { return Runtime.initialize(); }
int stop() { return Runtime.terminate(); }
int constructed() { return ofProcess + ofThread["this"]; }
int squares(int count) { return count.iota.map!(one => one * one).array.sum; }

int catches()
{
    try "none".to!int;
    catch (Exception) return 1;
    return 0;
}

int collects()
{
    Shape[] kept;
    foreach (number; 0 .. 20_000)
    {
        auto square = new Square(number % 10);
        if (number % 1000 == 5) kept ~= square;
    }
    GC.collect();
    int area;
    foreach (shape; kept) area += shape.area;
    return area;
}

int thread()
{
    int found;
    auto other = new Thread({ found = ofThread["this"] + squares(4); });
    other.start();
    other.join();
    return found;
}
