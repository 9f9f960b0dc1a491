;; upper: copies standard input to standard output with a to z made capitals, as `tr a-z A-Z`: a result as large as its
;; input, so that both can be large.
;;
;; Exit codes: 0 done, 1 input could not be read or output not written.
;;
;; Memory, by address:
;;      0  one iovec (pointer, length)        8  a count returned by WASI
;;  65536  one page of input, changed in place
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  ;; Reads up to a page; returns how much came, 0 at the end.
  (func $read (result i32)
    (i32.store (i32.const 0) (i32.const 65536))
    (i32.store (i32.const 4) (i32.const 65536))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 1))))
    (i32.load (i32.const 8)))

  (func $raise (param $count i32)
    (local $at i32) (local $end i32) (local $byte i32)
    (local.set $at (i32.const 65536))
    (local.set $end (i32.add (local.get $at) (local.get $count)))
    (loop $next
      (local.set $byte (i32.load8_u (local.get $at)))
      ;; 'a' is 97; one unsigned comparison does for both ends of the alphabet
      (if (i32.lt_u (i32.sub (local.get $byte) (i32.const 97)) (i32.const 26))
        (then (i32.store8 (local.get $at) (i32.sub (local.get $byte) (i32.const 32)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end)))))

  ;; Writes all of the page's beginning, however little the stream takes at a time.
  (func $write (param $count i32)
    (local $at i32)
    (local.set $at (i32.const 65536))
    (loop $more
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $count))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (local.set $count (i32.sub (local.get $count) (i32.load (i32.const 8))))
      (br_if $more (local.get $count))))

  (func (export "_start")
    (local $count i32)
    (loop $more
      (local.set $count (call $read))
      (if (local.get $count)
        (then
          (call $raise (local.get $count))
          (call $write (local.get $count))
          (br $more))))))
