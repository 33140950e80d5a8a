# Foreign libraries.
# packages: swi-prolog-nox
cat >hello.pl <<'END'
:- use_module(library(socket)). :- use_module(library(process)). :- use_module(library(readutil)).
:- use_module(library(sha)). :- use_module(library(md5)). :- use_module(library(uri)).
:- use_module(library(sgml)). :- use_module(library(http/json)). :- use_module(library(time)).
:- use_module(library(pcre), []). :- use_module(library(unicode), []). :- use_module(library(zlib)).
main :-
    sha_hash(abc, Hash, []), hash_atom(Hash, Hex), writeln(Hex),
    md5_hash(abc, Md5, []), writeln(Md5),
    uri_components('http://a/b?c#d', Parts), writeln(Parts),
    open_string("<a><b>text</b></a>", Stream), load_structure(stream(Stream), Document, [dialect(xml)]), writeln(Document),
    catch(call_with_time_limit(0.05, (repeat, fail)), Error, (print_message(silent, Error), writeln(Error))),
    catch(load_foreign_library('/nonesuch.so'), error(What, _), (writeln(What))),
    thread_create(writeln('in a thread'), Thread), thread_join(Thread),
    halt(3).
END
swipl -q -g main hello.pl 2>&1; echo "$?"
