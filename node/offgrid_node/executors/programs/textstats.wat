;; textstats [N]: counts what standard input holds, N times over (1 unless given), and prints the counts once.
;;
;;   lines         line feeds, as `wc -l`
;;   words         longest runs of bytes that are not ASCII white space (9 to 13, 32), as `wc -w`
;;   bytes         as `wc -c`
;;   longest_line  bytes of the longest line, without its line feed
;;   fnv1a64       64-bit FNV-1a (draft-eastlake-fnv) of all bytes, in hexadecimal
;;
;; N makes work that takes real time and has an answer that is easy to check.
;; Exit codes: 0 done, 1 input could not be read or does not fit into memory, 2 bad argument.
;;
;; Memory, by address:
;;      0  one iovec (pointer, length)        8  a count returned by WASI
;;     16  argc, argv bytes                  64  the output, 100 bytes at most
;;    192  digits of a number               256  labels and messages
;;    512  argv pointers and strings, up to 64 KiB
;;  65536  the input, as large as it is
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  ;; The labels are 13, 6, 6, 6 and 8 bytes long.
  (data (i32.const 256) "longest_line lines words bytes fnv1a64 ")
  (data (i32.const 320) "textstats: usage: textstats [N], N from 1 to 4294967295\n")
  (data (i32.const 384) "textstats: cannot read standard input\n")
  (data (i32.const 432) "textstats: the input does not fit into memory\n")

  (global $input i32 (i32.const 65536))
  (global $input_bytes (mut i32) (i32.const 0))

  ;; where the output ends so far
  (global $out (mut i32) (i32.const 64))

  (global $lines (mut i32) (i32.const 0))
  (global $words (mut i32) (i32.const 0))
  (global $longest (mut i32) (i32.const 0))
  (global $hash (mut i64) (i64.const 0))

  ;; Writes all of a range to a stream, however little the stream takes at a time.
  (func $write (param $fd i32) (param $at i32) (param $count i32)
    (block $done
      (loop $more
        (br_if $done (i32.eqz (local.get $count)))
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $count))
        (br_if $done (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
        (local.set $count (i32.sub (local.get $count) (i32.load (i32.const 8))))
        (br $more))))

  ;; Says why on standard error and ends.
  (func $die (param $at i32) (param $count i32) (param $code i32)
    (call $write (i32.const 2) (local.get $at) (local.get $count))
    (call $proc_exit (local.get $code))
    unreachable)

  ;; Reads standard input to its end, a page at a time, growing memory as it goes.
  (func $read_input
    (local $room i32)
    (loop $more
      ;; bytes between the end of the input and the end of memory
      (local.set $room
        (i32.sub
          (i32.shl (memory.size) (i32.const 16))
          (i32.add (global.get $input) (global.get $input_bytes))))
      (if (i32.eqz (local.get $room))
        (then
          (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1))
            (then (call $die (i32.const 432) (i32.const 46) (i32.const 1))))
          (br $more)))
      (i32.store (i32.const 0) (i32.add (global.get $input) (global.get $input_bytes)))
      (i32.store (i32.const 4) (local.get $room))
      (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $die (i32.const 384) (i32.const 38) (i32.const 1))))
      (global.set $input_bytes (i32.add (global.get $input_bytes) (i32.load (i32.const 8))))
      (br_if $more (i32.load (i32.const 8)))))

  ;; One pass over the input.
  (func $count
    (local $at i32) (local $end i32) (local $byte i32)
    (local $lines i32) (local $words i32) (local $in_word i32)
    (local $line_start i32) (local $longest i32) (local $hash i64)
    (local.set $at (global.get $input))
    (local.set $end (i32.add (global.get $input) (global.get $input_bytes)))
    (local.set $line_start (local.get $at))
    (local.set $hash (i64.const 0xcbf29ce484222325))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $byte (i32.load8_u (local.get $at)))
        (local.set $hash
          (i64.mul
            (i64.xor (local.get $hash) (i64.extend_i32_u (local.get $byte)))
            (i64.const 0x100000001b3)))
        ;; white space: 9 to 13 (one unsigned comparison does for both ends), or 32
        (if
          (i32.or
            (i32.lt_u (i32.sub (local.get $byte) (i32.const 9)) (i32.const 5))
            (i32.eq (local.get $byte) (i32.const 32)))
          (then (local.set $in_word (i32.const 0)))
          (else
            ;; a word counts where it begins
            (local.set $words (i32.add (local.get $words) (i32.eqz (local.get $in_word))))
            (local.set $in_word (i32.const 1))))
        (if (i32.eq (local.get $byte) (i32.const 10))
          (then
            (local.set $lines (i32.add (local.get $lines) (i32.const 1)))
            (local.set $longest
              (call $max (local.get $longest) (i32.sub (local.get $at) (local.get $line_start))))
            (local.set $line_start (i32.add (local.get $at) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (global.set $lines (local.get $lines))
    (global.set $words (local.get $words))
    ;; the last line may end without a line feed
    (global.set $longest
      (call $max (local.get $longest) (i32.sub (local.get $end) (local.get $line_start))))
    (global.set $hash (local.get $hash)))

  (func $max (param $a i32) (param $b i32) (result i32)
    (select (local.get $a) (local.get $b) (i32.gt_u (local.get $a) (local.get $b))))

  ;; Appends a label, a number in the base given, filled with zeros to a width, and a line feed to the output.
  (func $print (param $label i32) (param $label_bytes i32) (param $value i64) (param $base i64) (param $width i32)
    (local $at i32) (local $digit i32)
    (memory.copy (global.get $out) (local.get $label) (local.get $label_bytes))
    (global.set $out (i32.add (global.get $out) (local.get $label_bytes)))
    ;; the digits come out last first, so they are laid down from the end of their place
    (local.set $at (i32.const 255))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $more
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (local.set $digit (i32.wrap_i64 (i64.rem_u (local.get $value) (local.get $base))))
      ;; '0' is 48, and 'a' is 87 + 10
      (i32.store8 (local.get $at)
        (i32.add (local.get $digit)
          (select (i32.const 87) (i32.const 48) (i32.gt_u (local.get $digit) (i32.const 9)))))
      (local.set $value (i64.div_u (local.get $value) (local.get $base)))
      (local.set $width (i32.sub (local.get $width) (i32.const 1)))
      (br_if $more
        (i32.or (i64.ne (local.get $value) (i64.const 0)) (i32.gt_s (local.get $width) (i32.const 0)))))
    (memory.copy (global.get $out) (local.get $at) (i32.sub (i32.const 256) (local.get $at)))
    (global.set $out (i32.add (global.get $out) (i32.sub (i32.const 256) (local.get $at)))))

  (func $usage
    (call $die (i32.const 320) (i32.const 56) (i32.const 2)))

  ;; N from the command line: 1 when absent.
  (func $repeats (result i64)
    (local $at i32) (local $digit i32) (local $n i64)
    (if (call $args_sizes_get (i32.const 16) (i32.const 20)) (then (call $usage)))
    (if (i32.le_u (i32.load (i32.const 16)) (i32.const 1)) (then (return (i64.const 1))))
    ;; argc pointers, then argv's bytes, must fit between 512 and the input
    (if
      (i32.or
        (i32.gt_u (i32.load (i32.const 16)) (i32.const 2))
        (i32.gt_u (i32.load (i32.const 20)) (i32.const 60000)))
      (then (call $usage)))
    (if (call $args_get (i32.const 512) (i32.const 528)) (then (call $usage)))
    (local.set $at (i32.load (i32.const 516)))
    (loop $more
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
      (if (i32.gt_u (local.get $digit) (i32.const 9)) (then (call $usage)))
      (local.set $n
        (i64.add (i64.mul (local.get $n) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
      (if (i64.gt_u (local.get $n) (i64.const 4294967295)) (then (call $usage)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $more (i32.load8_u (local.get $at))))
    (if (i64.eqz (local.get $n)) (then (call $usage)))
    (local.get $n))

  (func (export "_start")
    (local $left i64)
    (local.set $left (call $repeats))
    (call $read_input)
    (loop $again
      (call $count)
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $print (i32.const 269) (i32.const 6) (i64.extend_i32_u (global.get $lines)) (i64.const 10) (i32.const 1))
    (call $print (i32.const 275) (i32.const 6) (i64.extend_i32_u (global.get $words)) (i64.const 10) (i32.const 1))
    (call $print (i32.const 281) (i32.const 6) (i64.extend_i32_u (global.get $input_bytes)) (i64.const 10) (i32.const 1))
    (call $print (i32.const 256) (i32.const 13) (i64.extend_i32_u (global.get $longest)) (i64.const 10) (i32.const 1))
    (call $print (i32.const 287) (i32.const 8) (global.get $hash) (i64.const 16) (i32.const 16))
    (call $write (i32.const 1) (i32.const 64) (i32.sub (global.get $out) (i32.const 64)))))
