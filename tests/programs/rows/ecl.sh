# Common Lisp that is compiled to a library and loaded.
# packages: ecl gcc libc6-dev
cat >hello.lisp <<'END'
(defun twice (x) (* 2 x))
(defun deep (x) (handler-case (error "caught ~a" x) (error (e) (princ-to-string e))))
END
env -u LD_PRELOAD ecl --norc --eval '(progn (compile-file "hello.lisp") (quit 0))' >/dev/null 2>&1; echo "$?"
ecl --norc --eval '(progn (load "hello.fas") (print (twice 21)) (print (deep 5)) (load "hello.fas") (require :sockets) (print (handler-case (load "/nonesuch.fas") (error () :none))) (terpri) (quit 3))' >output 2>&1; echo "$?"; grep -v -e '^;;;' output
