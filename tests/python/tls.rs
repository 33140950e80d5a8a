// A thread_local! with a destructor.
use std::cell::RefCell;
use std::sync::atomic::{AtomicI64, Ordering};

static DROPPED: AtomicI64 = AtomicI64::new(0);

struct Numbers(Vec<i64>);

impl Drop for Numbers {
    fn drop(&mut self) {
        DROPPED.fetch_add(self.0.iter().sum(), Ordering::SeqCst);
    }
}

thread_local! {
    static NUMBERS: RefCell<Numbers> = RefCell::new(Numbers(vec![1000]));
}

/// The sum of what this thread has given, and 1000.
#[no_mangle]
pub extern "C" fn add(number: i64) -> i64 {
    NUMBERS.with(|numbers| {
        numbers.borrow_mut().0.push(number);
        numbers.borrow().0.iter().sum()
    })
}

/// The sum of the sums of the threads that have ended.
#[no_mangle]
pub extern "C" fn dropped() -> i64 {
    DROPPED.load(Ordering::SeqCst)
}
