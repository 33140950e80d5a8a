# Foreign libraries.
# packages: guile-3.0
guile --no-auto-compile -c '
(use-modules (system foreign) (system foreign-library))
(define z (load-foreign-library "libz.so.1"))
(define crc32 (foreign-library-function z "crc32" #:return-type unsigned-long #:arg-types (list unsigned-long (quote *) unsigned-int)))
(display (crc32 0 (string->pointer "hello") 5)) (newline)
(display ((foreign-library-function "libm.so.6" "cos" #:return-type double #:arg-types (list double)) 0.5)) (newline)
(display (catch #t (lambda () (load-foreign-library "/nonesuch.so")) (lambda (key . rest) (cons key (cddr rest))))) (newline)
(display (procedure? (foreign-library-function #f "qsort" #:return-type void #:arg-types (list (quote *) size_t size_t (quote *))))) (newline)
(exit 3)' 2>&1; echo "$?"
