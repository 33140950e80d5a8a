# Foreign libraries; the runtime asks `dlsym` for `dlopen` itself.
# packages: sbcl
cat >hello.lisp <<'END'
(load-shared-object "libz.so.1")
(load-shared-object "libm.so.6")
(print (alien-funcall (extern-alien "crc32" (function unsigned-long unsigned-long c-string unsigned-int)) 0 "hello" 5))
(print (alien-funcall (extern-alien "cos" (function double double)) 0.5d0))
(require :sb-posix)
(require :sb-bsd-sockets)
(print (sb-posix:getuid))
(print (handler-case (load-shared-object "libnonesuch.so") (error (e) (remove #\Newline (princ-to-string e)))))
(print (handler-case (funcall (compile nil '(lambda () (car 5)))) (type-error () :caught)))
(unload-shared-object "libz.so.1")
(print (mapcar #'sb-alien::shared-object-pathname sb-alien::*shared-objects*))
(exit :code 3)
END
sbcl --no-userinit --no-sysinit --disable-debugger --load hello.lisp 2>&1; echo "$?"
