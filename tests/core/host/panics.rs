// The library of panics.cc.
use std::panic::{catch_unwind, panic_any, set_hook, AssertUnwindSafe};

type Callback = extern "C-unwind" fn();
type Note = extern "C" fn(*const std::os::raw::c_char);

struct Guard(Note);

impl Drop for Guard {
    fn drop(&mut self) {
        (self.0)(b"~library\0".as_ptr() as *const _);
    }
}

#[no_mangle]
pub extern "C" fn be_quiet() {
    set_hook(Box::new(|_| {}));
}

/// A panic that is caught where it happens.
#[no_mangle]
pub extern "C" fn inside() -> i32 {
    let caught = catch_unwind(|| {
        let numbers = vec![1, 2, 3];
        numbers[std::hint::black_box(7)]
    });
    let text = catch_unwind(|| panic!("{}", 40 + 2)).unwrap_err();
    if caught.is_ok() {
        return -1;
    }
    text.downcast_ref::<String>().map_or(-2, |text| text.parse().unwrap())
}

#[no_mangle]
pub extern "C-unwind" fn fail(note: Note) {
    let _guard = Guard(note);
    panic_any(8i32);
}

/// What `callback` lets through of `fail`.
#[no_mangle]
pub extern "C" fn around(callback: Callback) -> i32 {
    match catch_unwind(AssertUnwindSafe(|| callback())) {
        Ok(()) => -1,
        Err(value) => *value.downcast::<i32>().unwrap_or(Box::new(-2)),
    }
}

/// Lets pass what is not Rust's.
#[no_mangle]
pub extern "C-unwind" fn pass(callback: Callback, note: Note) {
    let _guard = Guard(note);
    callback();
}
