# Libraries of C functions that the bytecode interpreter loads.
# packages: ocaml-nox
cat >hello.ml <<'END'
let () =
  print_endline (Unix.inet_addr_of_string "127.0.0.1" |> Unix.string_of_inet_addr);
  print_endline (string_of_bool (Str.string_match (Str.regexp "a+b") "aaab" 0));
  let thread = Thread.create (fun () -> print_endline "in a thread") () in
  Thread.join thread;
  (try ignore (Unix.stat "nonesuch") with Unix.Unix_error (error, _, _) -> print_endline (Unix.error_message error));
  exit 3
END
ocamlc -I +threads unix.cma str.cma threads.cma hello.ml -o hello; echo "$?"
./hello; echo "$?"
ocaml -I +threads unix.cma str.cma threads.cma hello.ml; echo "$?"
