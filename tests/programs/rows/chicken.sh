# Scheme that is compiled to a library and loaded; units of the interpreter.
# packages: chicken-bin gcc libc6-dev
cat >hello.scm <<'END'
(import (chicken foreign))
(define (twice x) (* 2 x))
(define cosine (foreign-lambda double "cos" double))
END
env -u LD_PRELOAD csc -s hello.scm -L -lm; echo "$?"
csi -n -q -e '(import (chicken file) (chicken string) (chicken process-context) srfi-4 (chicken tcp))(load "./hello.so")(print (twice 21) " " (u8vector 1 2) " " (string-intersperse (list "a" "b")))(exit 3)' 2>&1; echo "$?"
